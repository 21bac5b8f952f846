//! Bytes of a picture come in, upright RGB frames of eight bits go out, with the numbers of which frames to sample.
//! What a file is gets decided by its content, and what it may cost by a [`Budget`] that the caller passes.
//! Absent: models and their sizes, requests, network and files, and any codec that is not memory-safe.

mod budget;
mod container;
mod error;
mod format;
mod image;
mod orientation;
mod pixel_buffer;
mod pixels;
mod png;
mod sampling;
mod tiff;

pub use budget::Budget;
pub use error::Error;
pub use format::{Format, probe};
pub use image::{Picture, decode_image};
pub use pixel_buffer::PixelBuffer;
pub use png::encode_png;
pub use sampling::{FrameCount, IndexRule, Sampling, frame_indices, smart_nframes};
