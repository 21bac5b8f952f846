//! The one error of this crate: why a file did not become frames.

use crate::Format;

/// Why bytes were refused, or why no frames could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is longer than the budget.
    #[error("the file has {bytes} bytes, at most {max_bytes} are accepted")]
    TooManyBytes {
        /// Its length.
        bytes: usize,
        /// The budget.
        max_bytes: usize,
    },
    /// The picture is larger than the budget.
    #[error(
        "the {format} picture has {height}x{width} pixels (height x width), at most {max_pixels} in all are accepted"
    )]
    TooManyPixels {
        /// What the file is.
        format: Format,
        /// Height that the header declares.
        height: usize,
        /// Width that the header declares.
        width: usize,
        /// The budget.
        max_pixels: usize,
    },
    /// Decoding would take more memory than the budget, or than there is.
    #[error(
        "decoding the {format} picture would take {bytes} bytes of memory, at most {max_memory_bytes} are accepted"
    )]
    TooMuchMemory {
        /// What the file is.
        format: Format,
        /// The estimate.
        bytes: usize,
        /// The budget.
        max_memory_bytes: usize,
    },
    /// The header declares a picture without area.
    #[error(
        "the {format} picture has {height}x{width} pixels (height x width): both sides must be 1 at least"
    )]
    ZeroSized {
        /// What the file is.
        format: Format,
        /// Height that the header declares.
        height: usize,
        /// Width that the header declares.
        width: usize,
    },
    /// The content is a picture or a video that only a separate codec process may decode.
    #[error(
        "the content looks like {format}, which needs a codec that is not part of this build; pictures may be BMP, JPEG, PNG, TIFF or WEBP"
    )]
    NeedsCodec {
        /// What the content looks like.
        format: &'static str,
    },
    /// The content is something that is known and not accepted.
    #[error(
        "the content looks like {format}, which is not accepted; pictures may be BMP, JPEG, PNG, TIFF or WEBP"
    )]
    Unsupported {
        /// What the content looks like.
        format: &'static str,
    },
    /// The content is nothing that is known.
    #[error(
        "the content is no known picture: {bytes} bytes that start with [{start}]; pictures may be BMP, JPEG, PNG, TIFF or WEBP"
    )]
    Unrecognised {
        /// Its length.
        bytes: usize,
        /// Its first bytes in hexadecimal.
        start: String,
    },
    /// The file ends before the picture does.
    #[error("the {format} picture is cut off after {bytes} bytes: {reason}")]
    Truncated {
        /// What the file is.
        format: Format,
        /// Its length.
        bytes: usize,
        /// What is missing.
        reason: String,
    },
    /// The file breaks the rules of its format.
    #[error("the {format} picture is broken: {reason}")]
    Broken {
        /// What the file is.
        format: Format,
        /// Which rule, in the decoder's words.
        reason: String,
    },
    /// The file follows its format's rules but uses a part of them that is not implemented.
    #[error("the {format} picture uses a feature that is not supported: {reason}")]
    Feature {
        /// What the file is.
        format: Format,
        /// Which one.
        reason: String,
    },
    /// The decoder itself failed. The picture is refused, the process goes on.
    #[error("the {format} decoder gave up on this picture")]
    Decoder {
        /// What the file is.
        format: Format,
    },
    /// Numbers of a clip that no frames can be chosen from.
    #[error("{name} is {value}, expected {expected}")]
    Sampling {
        /// The number.
        name: &'static str,
        /// What it was.
        value: String,
        /// What it should be.
        expected: String,
    },
}
