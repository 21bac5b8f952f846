//! Memory of the processor's activations. A buffer that is dropped waits for the next one of its size, so that a
//! model's steps, which need the same sizes again and again, neither ask the system for memory nor fault pages in.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{Error, Result, pages};

/// Elements of the smallest buffer: one cache line.
const LINE: usize = 16;
/// Buffers from this size on are mapped in huge pages.
const MAPPED_BYTES: usize = 1 << 20;
/// What may wait unused, in bytes. Beyond that, memory goes back to the system at once.
const IDLE_BYTES: usize = 512 << 20;

static IDLE: Mutex<Idle> = Mutex::new(Idle { buffers: Vec::new(), bytes: 0 });

/// What stays when nothing is computed, in bytes: the small buffers of a decode step.
const KEPT_BYTES: usize = 4 << 20;

/// Gives the memory of activations back that nobody uses, but for a little: for when there is nothing to compute.
pub fn release_idle_buffers() {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner).shrink();
}

/// Elements of f32. Clones share them; only a sole owner may write.
pub(crate) struct Buffer {
    /// Taken out when it is dropped, and at no other time.
    memory: Option<Arc<Memory>>,
}

enum Memory {
    Small(Box<[Line]>),
    Mapped(pages::Block),
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

// SAFETY: sixteen f32 without padding; all bit patterns are values.
#[allow(unsafe_code)]
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl bytemuck::Pod for Line {}

/// Buffers that nobody uses. The shortest are few, so a plain list serves.
struct Idle {
    buffers: Vec<Arc<Memory>>,
    bytes: usize,
}

impl Buffer {
    /// Room for at least `len` elements, whose values are arbitrary.
    ///
    /// # Errors
    /// [`Error::Memory`] when the system has no room.
    pub(crate) fn new(len: usize) -> Result<Self> {
        let len = size_class(len);
        if let Some(memory) = IDLE.lock().unwrap_or_else(PoisonError::into_inner).take(len) {
            return Ok(Self { memory: Some(memory) });
        }
        let bytes = len.saturating_mul(size_of::<f32>());
        let memory = if bytes >= MAPPED_BYTES {
            Memory::Mapped(pages::Block::of_its_own(bytes, "activations")?)
        } else {
            let no_room = |_| Error::Memory { what: "activations", bytes };
            Memory::Small(bytemuck::allocation::try_zeroed_slice_box(len / LINE).map_err(no_room)?)
        };
        Ok(Self { memory: Some(Arc::new(memory)) })
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        match self.memory.as_deref() {
            None => &[],
            Some(Memory::Small(lines)) => bytemuck::cast_slice(lines),
            Some(Memory::Mapped(block)) => bytemuck::cast_slice(block.as_slice()),
        }
    }

    /// The elements to write to; nothing when they are shared.
    pub(crate) fn as_mut_slice(&mut self) -> Option<&mut [f32]> {
        match Arc::get_mut(self.memory.as_mut()?)? {
            Memory::Small(lines) => Some(bytemuck::cast_slice_mut(lines)),
            Memory::Mapped(block) => Some(bytemuck::cast_slice_mut(block.as_mut_slice())),
        }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self { memory: self.memory.clone() }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(mut memory) = self.memory.take()
            && Arc::get_mut(&mut memory).is_some()
        {
            IDLE.lock().unwrap_or_else(PoisonError::into_inner).put(memory);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} elements)", self.as_slice().len())
    }
}

impl Memory {
    fn len(&self) -> usize {
        match self {
            Self::Small(lines) => lines.len() * LINE,
            Self::Mapped(block) => block.as_slice().len() / size_of::<f32>(),
        }
    }

    fn bytes(&self) -> usize {
        self.len() * size_of::<f32>()
    }
}

impl Idle {
    /// Drops the largest until little is left.
    fn shrink(&mut self) {
        self.buffers.sort_by_key(|memory| memory.len());
        while self.bytes > KEPT_BYTES
            && let Some(memory) = self.buffers.pop()
        {
            self.bytes -= memory.bytes();
        }
    }

    fn take(&mut self, len: usize) -> Option<Arc<Memory>> {
        let index = self.buffers.iter().rposition(|memory| memory.len() == len)?;
        let memory = self.buffers.swap_remove(index);
        self.bytes -= memory.bytes();
        Some(memory)
    }

    fn put(&mut self, memory: Arc<Memory>) {
        let bytes = memory.bytes();
        // The newest sizes are the likeliest to come again.
        while self.bytes + bytes > IDLE_BYTES && !self.buffers.is_empty() {
            self.bytes -= self.buffers.remove(0).bytes();
        }
        if bytes <= IDLE_BYTES {
            self.bytes += bytes;
            self.buffers.push(memory);
        }
    }
}

/// `len` rounded up to whole lines, and to one of four sizes between powers of two, so that neighbouring sizes share.
fn size_class(len: usize) -> usize {
    let len = len.max(LINE);
    let step = (len.checked_next_power_of_two().unwrap_or(0) / 8).max(LINE);
    len.checked_next_multiple_of(step).unwrap_or(usize::MAX / LINE * LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_little() {
        for len in [0, 1, 16, 17, 100, 2048, 11_008, 1_000_001] {
            let class = size_class(len);
            assert!(
                class >= len && class.is_multiple_of(LINE) && class <= (len + len / 4).max(LINE * 2),
                "{len}"
            );
            assert_eq!(size_class(class), class);
        }
    }

    #[test]
    fn only_a_sole_owner_writes() {
        for len in [5, 1 << 20] {
            let mut buffer = Buffer::new(len).unwrap();
            buffer.as_mut_slice().unwrap().fill(1.0);
            let mut other = buffer.clone();
            assert!(buffer.as_mut_slice().is_none() && other.as_mut_slice().is_none());
            drop(buffer);
            assert_eq!(other.as_mut_slice().unwrap()[..5], [1.0; 5]);
        }
    }

    #[test]
    fn a_dropped_buffer_is_used_again() {
        // A size that no other test asks for.
        let len = 7 << 19;
        let buffer = Buffer::new(len).unwrap();
        let place = buffer.as_slice().as_ptr();
        drop(buffer);
        assert_eq!(Buffer::new(len).unwrap().as_slice().as_ptr(), place);
    }

    #[test]
    fn the_largest_go_first() {
        let memory = |len: usize| Arc::new(Memory::Small(vec![Line([0.0; LINE]); len / LINE].into()));
        let mut idle = Idle { buffers: Vec::new(), bytes: 0 };
        for len in [64, 4 << 20, 128, 1 << 20] {
            idle.put(memory(len));
        }
        idle.shrink();
        let mut left: Vec<usize> = idle.buffers.iter().map(|memory| memory.len()).collect();
        left.sort_unstable();
        assert_eq!(left, [64, 128]);
        assert_eq!(idle.bytes, 192 * size_of::<f32>());
    }

    #[test]
    fn what_no_machine_has_is_refused() {
        assert!(Buffer::new(usize::MAX / 8).is_err());
        assert!(Buffer::new(usize::MAX).is_err());
    }
}
