//! A fuzzer that knows a server by its OpenAPI document alone: it draws good, nearly good and hostile requests for
//! every described call, sends them over TCP, and holds each answer against the document.
//!
//! A case is a function of a seed and a number, so every finding can be sent again alone.

mod case;
mod document;
mod exchange;
mod json;
mod judge;
mod media;
mod odd;
mod random;
mod storm;
mod value;

pub use case::{Case, Manner};
pub use document::Document;
pub use exchange::{Answer, Connection, Fault};
pub use judge::judge;
pub use storm::{Figures, Target, Violation, storm, try_case};
