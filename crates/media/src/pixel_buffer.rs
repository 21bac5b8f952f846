//! The memory of one picture. A large one asks for huge pages: twelve megapixels are nine thousand pages of 4 KiB, and
//! being given those takes as long as a fifth of decoding.

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

use memmap2::MmapMut;

/// Bytes of pixels or samples, as many as it was made with or fewer.
pub struct PixelBuffer {
    memory: Memory,
    /// Where the bytes begin: large memory at the edge of a huge page.
    start: usize,
    len: usize,
}

enum Memory {
    Small(Vec<u8>),
    Large(MmapMut),
}

/// From here on huge pages are worth a mapping of its own.
const LARGE: usize = 8 << 20;
/// The size of a huge page on the machines that have some.
const HUGE_PAGE: usize = 2 << 20;

impl PixelBuffer {
    /// Zeros, or nothing when the system has no room.
    pub(crate) fn zeros(len: usize) -> Option<Self> {
        if len < LARGE {
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(len).ok()?;
            bytes.resize(len, 0);
            return Some(bytes.into());
        }
        let map = MmapMut::map_anon(len.checked_add(HUGE_PAGE)?).ok()?;
        #[cfg(target_os = "linux")]
        {
            // A system without huge pages goes on with small ones.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        let start = map.as_ptr().align_offset(HUGE_PAGE).min(HUGE_PAGE);
        Some(Self { memory: Memory::Large(map), start, len })
    }

    /// Leaves the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for PixelBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let bytes = match &self.memory {
            Memory::Small(bytes) => bytes.as_slice(),
            Memory::Large(map) => &map[self.start..],
        };
        &bytes[..self.len]
    }
}

impl DerefMut for PixelBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let bytes = match &mut self.memory {
            Memory::Small(bytes) => bytes.as_mut_slice(),
            Memory::Large(map) => &mut map[self.start..],
        };
        &mut bytes[..self.len]
    }
}

impl From<Vec<u8>> for PixelBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self { memory: Memory::Small(bytes), start: 0, len }
    }
}

impl FromIterator<u8> for PixelBuffer {
    fn from_iter<I: IntoIterator<Item = u8>>(bytes: I) -> Self {
        Vec::from_iter(bytes).into()
    }
}

impl Clone for PixelBuffer {
    fn clone(&self) -> Self {
        self.to_vec().into()
    }
}

impl PartialEq for PixelBuffer {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for PixelBuffer {}

impl fmt::Debug for PixelBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PixelBuffer({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large() {
        for len in [0, 1, LARGE - 1, LARGE, LARGE + 12_345] {
            let mut buffer = PixelBuffer::zeros(len).unwrap();
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|&byte| byte == 0));
            buffer.iter_mut().enumerate().for_each(|(index, byte)| *byte = index as u8);
            let copy = buffer.clone();
            buffer.truncate(len / 2);
            buffer.truncate(len);
            assert!(*buffer == copy[..len / 2]);
        }
    }

    #[test]
    fn what_no_machine_has_is_refused() {
        assert!(PixelBuffer::zeros(usize::MAX).is_none());
        assert!(PixelBuffer::zeros(isize::MAX as usize).is_none());
    }
}
