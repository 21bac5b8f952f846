//! Large memory that computing reads from end to end: in huge pages where the system gives them, aligned for
//! vector loads. With pages of 4 KiB, translating addresses halves the rate at which weights can be read.

#![allow(unsafe_code)]
use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use crate::{
    Error, HostBytes, Result,
    pool::{self, SharedSlice},
    settle::{self, Pace, Settles},
};

/// Every block begins on a cache line.
pub(crate) const ALIGNMENT: usize = 64;
/// The size of a huge page on the machines that have some.
const HUGE_PAGE: usize = 2 << 20;
/// Blocks share mappings of this size, so that a small one does not take a huge page of its own.
const CHUNK: usize = 128 << 20;

/// Memory of zeros that is written by its one owner and then frozen to be shared.
pub(crate) struct Block {
    chunk: Arc<Chunk>,
    range: Range<usize>,
}

/// A frozen [`Block`], or a mapped file's bytes on their way to one. Clones share it.
#[derive(Clone)]
pub(crate) struct Frozen(Arc<Settling>);

/// Bytes that are read where they lie in a file until they have been moved to a block, the same bytes all the time.
pub(crate) struct Settling {
    block: OnceLock<Block>,
    file: Option<HostBytes>,
    what: &'static str,
}

/// One mapping; it goes back to the system with its last block.
struct Chunk {
    start: *mut u8,
    len: usize,
    _map: memmap2::MmapMut,
}

// SAFETY: the memory belongs to the mapping, which has no thread affinity; who may write where is kept by `Block`,
// whose ranges never overlap.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

/// The chunk that the next blocks are cut from, and how much of it is given away.
static CURRENT: Mutex<Option<(Arc<Chunk>, usize)>> = Mutex::new(None);

impl Block {
    /// `bytes` zeros.
    ///
    /// # Errors
    /// [`Error::Memory`] when the system has no room.
    pub(crate) fn zeros(bytes: usize, what: &'static str) -> Result<Self> {
        let no_room = || Error::Memory { what, bytes };
        let len = bytes.checked_next_multiple_of(ALIGNMENT).ok_or_else(no_room)?;
        if len > CHUNK / 4 {
            return Self::of_its_own(bytes, what);
        }
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|(chunk, used)| chunk.len - used < len) {
            *current = Some((Arc::new(Chunk::new(CHUNK).ok_or_else(no_room)?), 0));
        }
        let Some((chunk, used)) = current.as_mut() else { return Err(no_room()) };
        let start = *used;
        *used += len;
        Ok(Self { chunk: chunk.clone(), range: start..start + bytes })
    }

    /// The same in a mapping that no other block shares, so that it goes back to the system alone.
    ///
    /// # Errors
    /// As [`Block::zeros`].
    pub(crate) fn of_its_own(bytes: usize, what: &'static str) -> Result<Self> {
        let chunk = Arc::new(Chunk::new(bytes).ok_or(Error::Memory { what, bytes })?);
        Ok(Self { chunk, range: 0..bytes })
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the range lies within the mapping, no other block has it, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.start.add(self.range.start), self.range.len()) }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: the range lies within the mapping, and writing needs `self` exclusively.
        unsafe { std::slice::from_raw_parts(self.chunk.start.add(self.range.start), self.range.len()) }
    }

    pub(crate) fn freeze(self) -> Frozen {
        Frozen(Arc::new(Settling { block: OnceLock::from(self), file: None, what: "" }))
    }
}

impl Frozen {
    /// A copy of `bytes`, made by all threads.
    ///
    /// # Errors
    /// As [`Block::zeros`].
    pub(crate) fn copy_of(bytes: &HostBytes, what: &'static str) -> Result<Self> {
        const PIECE: usize = 4 << 20;
        let len = bytes.as_ref().len();
        let mut block = Block::zeros(len, what)?;
        let to = SharedSlice::new(block.as_mut_slice());
        pool::run(len.div_ceil(PIECE), |piece| {
            let start = piece * PIECE;
            // SAFETY: each task has a piece of its own.
            bytes.copy_to(start, unsafe { to.part(start, PIECE.min(len - start)) });
        });
        bytes.release();
        Ok(block.freeze())
    }

    /// `bytes` where they lie.
    pub(crate) fn in_place(bytes: &HostBytes, what: &'static str) -> Self {
        Self(Arc::new(Settling { block: OnceLock::new(), file: Some(bytes.clone()), what }))
    }

    /// `bytes` where they lie until they have been moved, which begins soon. Without room they stay.
    pub(crate) fn settling(bytes: &HostBytes, what: &'static str) -> Self {
        let place = Arc::new(Settling { block: OnceLock::new(), file: Some(bytes.clone()), what });
        let settles: Arc<dyn Settles> = place.clone();
        settle::later(Arc::downgrade(&settles));
        Self(place)
    }

    /// Whether `bytes` can be read where they lie as well as in a block, but for the pages' size: they begin on a cache
    /// line, and no disk is waited for.
    pub(crate) fn can_settle(bytes: &HostBytes) -> bool {
        bytes.as_ref().as_ptr().align_offset(ALIGNMENT) == 0 && bytes.in_memory()
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match (self.0.block.get(), &self.0.file) {
            (Some(block), _) => block.as_slice(),
            (None, Some(file)) => file.as_ref(),
            (None, None) => &[],
        }
    }

    /// Whether it lies where it stays.
    #[cfg(test)]
    pub(crate) fn settled(&self) -> bool {
        self.0.block.get().is_some()
    }
}

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl Settles for Frozen {
    fn settle(&self, pace: &mut Pace) {
        self.0.settle(pace);
    }
}

impl Settles for Settling {
    /// Who has a slice of the bytes keeps it: the file stays mapped, though its pages are given back, to be read again
    /// where somebody still does.
    fn settle(&self, pace: &mut Pace) {
        if let (None, Some(file)) = (self.block.get(), &self.file)
            && let Ok(block) = pace.copy(file, self.what)
        {
            // Only one thread settles, so there is no other block.
            let _ = self.block.set(block);
            file.release();
        }
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        if let (None, Some(file)) = (self.block.get(), &self.file) {
            file.release();
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} bytes)", self.range.len())
    }
}

/// `count` zeros whose pages the system gives when they are first written, on the thread that writes them, and in
/// huge pages where it has some.
///
/// # Errors
/// [`Error::Memory`] when there is no room.
pub(crate) fn untouched_zeros(count: usize, what: &'static str) -> Result<Vec<f32>> {
    let bytes = count.saturating_mul(size_of::<f32>());
    let zeros =
        bytemuck::allocation::try_zeroed_vec::<f32>(count).map_err(|()| Error::Memory { what, bytes })?;
    #[cfg(target_os = "linux")]
    {
        let address = zeros.as_ptr().addr();
        let (start, end) = (address.next_multiple_of(HUGE_PAGE), (address + bytes) & !(HUGE_PAGE - 1));
        if start < end {
            // SAFETY: the range lies within the vector, and this advice changes no content. A system without huge
            // pages refuses it, which does not matter.
            unsafe {
                libc::madvise(
                    zeros.as_ptr().cast_mut().byte_add(start - address).cast(),
                    end - start,
                    libc::MADV_HUGEPAGE,
                );
            }
        }
    }
    Ok(zeros)
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frozen({} bytes)", self.as_slice().len())
    }
}

impl Chunk {
    fn new(len: usize) -> Option<Self> {
        // Room to begin at the edge of a huge page.
        let mut map = memmap2::MmapMut::map_anon(len.checked_add(HUGE_PAGE)?).ok()?;
        #[cfg(target_os = "linux")]
        {
            // A system without huge pages goes on with small ones.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        let offset = map.as_ptr().align_offset(HUGE_PAGE).min(HUGE_PAGE);
        // SAFETY: the mapping is `HUGE_PAGE` larger than `len`.
        let start = unsafe { map.as_mut_ptr().add(offset) };
        Some(Self { start, len, _map: map })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_zero_aligned_and_apart() {
        let mut blocks: Vec<Block> = [1, 64, 65, 4096, CHUNK / 4, CHUNK / 4 + 1, 0]
            .into_iter()
            .map(|bytes| Block::zeros(bytes, "test").unwrap())
            .collect();
        for (i, block) in blocks.iter_mut().enumerate() {
            let slice = block.as_mut_slice();
            assert_eq!(slice.as_ptr().align_offset(ALIGNMENT), 0);
            assert!(slice.iter().all(|&byte| byte == 0), "block {i}");
            slice.fill(i as u8 + 1);
        }
        for (i, block) in blocks.into_iter().enumerate() {
            assert!(block.freeze().as_slice().iter().all(|&byte| byte == i as u8 + 1), "block {i}");
        }
    }

    #[test]
    fn what_no_machine_has_is_refused() {
        assert!(Block::zeros(usize::MAX, "test").is_err());
        assert!(Block::zeros(1 << 62, "test").is_err());
    }
}
