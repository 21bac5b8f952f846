//! The language model of Qwen2.5-VL: token ids, spliced embeddings and positions come in, logits go out.
//! An image is rows of embeddings here, nothing more; positions are computed once for each request and then
//! advanced by one; the four sizes are four configs of one model.
//! Absent: pictures, prompts, tokenizers, sampling, scheduling, and who owns which block of the cache.

pub mod config;
mod error;
mod model;
pub mod positions;

pub use config::Config;
pub use error::Error;
pub use model::{Batch, Decoder, Formats, KvCache, Observer};
pub use ocellus_kernels::attention::Sequence;
