//! The one error of this crate: what an operation was given and what it needs.

/// Why an operation could not be carried out. Shapes and lengths are checked before any device is touched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument has the wrong shape, length or type.
    #[error("{op}: {what} is {found}, expected {expected}")]
    Argument {
        /// The operation, as its module is called.
        op: &'static str,
        /// Which argument.
        what: &'static str,
        /// What it was.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// An index points outside the rows it selects from.
    #[error("{op}: index {index} is outside of {len} rows")]
    Index {
        /// The operation, as its module is called.
        op: &'static str,
        /// The offending index.
        index: usize,
        /// How many rows there are.
        len: usize,
    },
    /// The named device does not exist in this build or on this machine.
    #[error("device {name:?}: {reason}")]
    Device {
        /// What was asked for.
        name: String,
        /// Why it can't be had.
        reason: String,
    },
    /// Memory could not be had.
    #[error("{what}: {bytes} bytes of memory could not be allocated")]
    Memory {
        /// What the memory was for.
        what: &'static str,
        /// How much was asked for.
        bytes: usize,
    },
    /// A CUDA device could not be had, or failed.
    #[error(transparent)]
    Cuda(#[from] crate::cuda::Failure),
    /// The tensor library refused.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// What every operation of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// An [`Error::Argument`] from anything that can be shown.
pub(crate) fn argument(
    op: &'static str,
    what: &'static str,
    found: impl std::fmt::Debug,
    expected: impl Into<String>,
) -> Error {
    Error::Argument { op, what, found: format!("{found:?}"), expected: expected.into() }
}
