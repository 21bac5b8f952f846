//! Shapes, or a checkpoint, come in; tables of times beside the machine's own limits go out, for `ocellus bench` and
//! for the harness in `benches/`. The limits are measured first, weights come from beyond the caches, pictures are
//! never the same twice, and each time is a median with its spread. [`checkpoint`] writes models of random weights, so
//! that nothing needs to be downloaded to measure. Absent: arguments, terminals, and code that names a device.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod checkpoint;
pub mod format;
pub mod kernels;
mod limits;
pub mod load;
pub mod model;
pub mod picture;
pub mod preprocess;
mod random;
mod report;
pub mod self_test;
mod spread;
pub mod text;
pub mod vision;

pub use limits::Limits;
use ocellus_engine::WeightFormat;
pub use ocellus_kernels::doctor;
pub use report::{Column, Report, Table};
pub use spread::Spread;

/// Is told in a few words what is being done, for a progress display.
pub type Progress<'a> = dyn Fn(&str) + 'a;
