//! What decoding one picture may cost.

use crate::{Error, Format};

/// Limits for one picture, all of them checked before its pixels are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The longest file that is looked at, in bytes.
    pub max_bytes: usize,
    /// The largest area of a decoded picture, in pixels.
    pub max_pixels: usize,
    /// The most memory that decoding may hold at once, in bytes: the samples as the file has them, what its decoder
    /// keeps beside them, and the RGB result. It is estimated from the header.
    pub max_memory_bytes: usize,
}

impl Default for Budget {
    /// 64 MiB of file, 200 megapixels, 2 GiB of memory: more than any camera writes, less than what stops a machine.
    fn default() -> Self {
        Self { max_bytes: 64 << 20, max_pixels: 200_000_000, max_memory_bytes: 2 << 30 }
    }
}

impl Budget {
    /// Checks the length of the file.
    pub(crate) fn check_bytes(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.max_bytes {
            return Err(Error::TooManyBytes { bytes, max_bytes: self.max_bytes });
        }
        Ok(())
    }

    /// Checks the size that a header declares, and that it is not empty. Gives the area.
    pub(crate) fn check_size(&self, format: Format, (height, width): (usize, usize)) -> Result<usize, Error> {
        if height == 0 || width == 0 {
            return Err(Error::ZeroSized { format, height, width });
        }
        match height.checked_mul(width) {
            Some(pixels) if pixels <= self.max_pixels => Ok(pixels),
            _ => Err(Error::TooManyPixels { format, height, width, max_pixels: self.max_pixels }),
        }
    }

    /// Checks the memory that decoding `pixels` takes at `bytes_per_pixel`.
    pub(crate) fn check_memory(
        &self,
        format: Format,
        pixels: usize,
        bytes_per_pixel: usize,
    ) -> Result<(), Error> {
        let bytes = pixels.saturating_mul(bytes_per_pixel);
        if bytes > self.max_memory_bytes {
            return Err(Error::TooMuchMemory { format, bytes, max_memory_bytes: self.max_memory_bytes });
        }
        Ok(())
    }
}
