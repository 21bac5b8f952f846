//! Checkpoints from a model hub: a repository's name comes in, a folder with its files goes out.
//!
//! The files lie in the cache that Python's `huggingface_hub` uses, in its layout, so that what one has fetched the
//! other finds. A download that was interrupted, however roughly, goes on where it stopped; every file is compared
//! with the checksum that the hub names before it gets its place; and a hub that lies can fill no disk and write
//! nothing outside of its repository's folder. What is absent here: models (a checkpoint is a few names of files),
//! the terminal, and everything else that a hub offers.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cache;
mod choice;
mod digest;
mod error;
mod fetch;
mod hub;
mod lock;
mod name;
mod pull;
mod retry;
mod settings;
mod space;
mod tree;

pub use cache::Snapshot;
pub use error::Error;
pub use name::RepositoryName;
pub use pull::{BeforeWeights, Event, FilePlan, Options, Plan, Progress, cached, plan, pull};
pub use retry::{Clock, SystemClock};
pub use settings::{Settings, Token};
