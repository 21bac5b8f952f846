//! The house as a whole: what its tests share. Nothing that ships depends on this crate.

pub mod fuzz;
pub mod golden;
pub mod house;
pub mod picture;

pub use ocellus_bench::checkpoint;
