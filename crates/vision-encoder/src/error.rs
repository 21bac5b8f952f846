//! The one error of this crate: what could not be turned into embeddings, and why.

/// Why pixels, grids or weights were refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A picture without area, or so large that its sizes cannot be computed with.
    #[error(
        "a picture of {height}x{width} pixels (height x width) can't be resized: sides must be 1 to {largest}"
    )]
    Size {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// The longest side that is accepted.
        largest: usize,
    },
    /// A picture thinner than the rule allows.
    #[error(
        "a picture of {height}x{width} pixels (height x width) is too thin: the sides may differ {limit} times at most"
    )]
    AspectRatio {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// The largest accepted quotient of the sides.
        limit: usize,
    },
    /// A picture so thin that the rule would leave nothing of one side.
    #[error(
        "a picture of {height}x{width} pixels (height x width) would shrink to {new_height}x{new_width} under {max_pixels} pixels"
    )]
    Vanishes {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// Height that the rule gives.
        new_height: usize,
        /// Width that the rule gives.
        new_width: usize,
        /// The limit that made it shrink.
        max_pixels: f64,
    },
    /// Limits that no picture can meet.
    #[error(
        "pixel limits {min_pixels} to {max_pixels}: the lower must not exceed the upper, and the upper must be 1 to 2^48"
    )]
    PixelLimits {
        /// The lower limit.
        min_pixels: usize,
        /// The upper limit.
        max_pixels: f64,
    },
    /// A size of the tower's configuration that makes no sense.
    #[error("vision geometry: {name} is {value}, expected {expected}")]
    Geometry {
        /// The size, as the configuration calls it.
        name: &'static str,
        /// What it was.
        value: usize,
        /// What it should be.
        expected: String,
    },
    /// A pixel buffer whose length is not what its sizes say.
    #[error("{what}: the buffer has {found} bytes, expected {expected} for {height}x{width} RGB pixels")]
    Pixels {
        /// Which buffer.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length that its sizes demand.
        expected: String,
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
    },
    /// Frames that can't be cut into patches.
    #[error("{count} frames of {height}x{width} pixels (height x width) can't be cut into patches: {reason}")]
    Frames {
        /// How many frames.
        count: usize,
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// Which rule they break.
        reason: String,
    },
    /// A mean or deviation that would give values that are not numbers.
    #[error("image_{name}[{channel}] is {value}, expected {expected}")]
    Normalization {
        /// `mean` or `std`.
        name: &'static str,
        /// The colour channel, red first.
        channel: usize,
        /// What it was.
        value: f32,
        /// What it should be.
        expected: &'static str,
    },
    /// A grid that patchify could not have made.
    #[error("grid {index} is {t}x{h}x{w} patches (time x height x width): {reason}")]
    Grid {
        /// Its place in the list.
        index: usize,
        /// Time steps.
        t: usize,
        /// Patches down.
        h: usize,
        /// Patches across.
        w: usize,
        /// Which rule it breaks.
        reason: String,
    },
    /// Memory could not be had.
    #[error("{what}: {bytes} bytes of memory could not be allocated")]
    Memory {
        /// What the memory was for.
        what: &'static str,
        /// How much was asked for; `usize::MAX` when the number does not fit.
        bytes: usize,
    },
    /// An operation failed.
    #[error(transparent)]
    Kernel(#[from] ocellus_kernels::Error),
}
