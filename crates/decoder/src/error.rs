//! Why the decoder refused.

/// Why a batch could not be computed or a cache not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The parts of a batch disagree.
    #[error("decoder batch: {what} is {found}, expected {expected}")]
    Batch {
        /// Which part.
        what: &'static str,
        /// What it was.
        found: usize,
        /// What it should be.
        expected: usize,
    },
    /// An operation failed.
    #[error(transparent)]
    Kernel(#[from] ocellus_kernels::Error),
}
