//! Checkpoints: a folder of weights comes in, named tensors and [`Linear`] layers go out.
//!
//! A checkpoint is opened from a [`Source`], checked as a whole, and asked through a [`Loader`]: a model
//! declares the names and shapes it wants, the loader finds them or says in one sentence what is wrong.
//! What is absent here: models (no tensor name is known, no config is read), tokenizers, downloads, and
//! devices beyond the handle that is passed on; and a model never learns in which format a layer was stored.

mod checkpoint;
mod embedding;
mod error;
pub mod fields;
mod header;
mod index;
mod linear;
mod loader;
mod mmap;
mod packed;
mod source;

pub use checkpoint::Checkpoint;
pub use embedding::Embedding;
pub use error::{Error, Result};
pub use linear::{Linear, LinearShape};
pub use loader::{Loader, Scope};
pub use packed::{PackedWeights, write_packed};
pub use safetensors::Dtype;
pub use source::Source;
