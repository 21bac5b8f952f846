//! The three sizes that decide how pixels become patches and patches become tokens.

use crate::Error;

/// How a tower cuts pictures. Every value comes from a checkpoint's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Side of a square patch, in pixels.
    pub patch_size: usize,
    /// Side of the square of patches that the merger joins into one token, in patches.
    pub merge_size: usize,
    /// Frames that one patch spans.
    pub temporal_patch_size: usize,
}

/// No configuration needs a side beyond this; the bound keeps every product of sizes within `usize`.
const LARGEST: usize = 1 << 12;

impl Geometry {
    /// Side of the square that becomes one token, in pixels: both sides of a resized picture are multiples of it.
    pub fn factor(&self) -> usize {
        self.patch_size.saturating_mul(self.merge_size)
    }

    /// Values of one patch of an RGB clip: channel, time, row, column.
    pub fn patch_values(&self) -> usize {
        CHANNELS.saturating_mul(self.temporal_patch_size).saturating_mul(self.patch_size * self.patch_size)
    }

    /// Checks that every size is at least one and not absurd.
    ///
    /// # Errors
    /// [`Error::Geometry`] naming the first size that is out of range.
    pub fn check(&self) -> Result<(), Error> {
        let sizes = [
            ("patch_size", self.patch_size),
            ("merge_size", self.merge_size),
            ("temporal_patch_size", self.temporal_patch_size),
        ];
        for (name, value) in sizes {
            if value == 0 || value > LARGEST {
                return Err(Error::Geometry { name, value, expected: format!("1 to {LARGEST}") });
            }
        }
        Ok(())
    }
}

/// Red, green and blue.
pub(crate) const CHANNELS: usize = 3;
