//! Frames and a pixel budget come in, image embeddings go out: one row per token of the language model.
//! Sizes, patch order and window order are decided by functions of integers on the host; tensors only compute.
//! Absent: requests, prompts, tokenizers, codecs, device names, and any mask over a whole picture.

pub mod bicubic;
pub mod config;
mod error;
mod geometry;
mod model;
pub mod patches;
pub mod preprocess;
pub mod resize;
pub mod windows;

pub use config::Config;
pub use error::Error;
pub use geometry::Geometry;
pub use model::{Encoding, Observer, Tower};
