//! Every operation that the model needs, one folder each, and the tensor type that all crates above see.
//!
//! Tensors and integers come in, tensors go out. What is absent here: models (no names of layers, no
//! configs), files, requests. This is the only crate that knows devices: nothing above it names one.
//!
//! An operation's folder holds `mod.rs` (formula, shapes, argument checks, one `match` on the storage),
//! `reference.rs` (plain candle operations, kept for ever as the definition), and one file per device that
//! has a faster path, each tested against the reference.
//!
//! Sequences are packed: the tokens of many sequences lie side by side in one `(tokens, …)` tensor and
//! their lengths travel beside it, so that a batch of one and a batch of many have the same signature.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod add;
mod allocator;
pub mod attention;
mod buffer;
pub mod cuda;
mod device;
pub mod doctor;
pub mod embedding;
mod error;
mod exp;
pub mod gelu;
pub mod graph;
mod host_bytes;
pub mod kv_cache;
pub mod linear;
#[cfg(target_arch = "x86_64")]
mod opaque;
mod pages;
pub mod peak;
pub mod pool;
mod prefetch;
pub mod processor;
pub mod resample;
pub mod rms_norm;
pub mod rotary;
pub mod rows;
pub mod sampling;
pub mod self_test;
pub mod settle;
pub mod silu_mul;
pub mod step;
mod tensor;
#[cfg(test)]
mod testing;
pub mod top_k;
mod vectorised;

pub use allocator::return_freed_memory;
pub use buffer::release_idle_buffers;
pub use device::{Device, Precision};
pub use error::{Error, Result};
pub use host_bytes::{Backing, HostBytes, HostElements, HostMatrix};
pub(crate) use tensor::Storage;
pub use tensor::{DType, Tensor};
