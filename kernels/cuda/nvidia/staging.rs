//! Large copies to the device. Memory that the device copies from by itself must be pinned, and mapped files are not; so
//! they go through two pinned buffers: while the device fetches one, the processor's threads fill the other.

use std::ffi::c_void;

use cudarc::driver::sys::{CUevent, CUevent_flags, CUstream};

use super::{
    calls::{call, check},
    functions,
};
use crate::{
    cuda::Failure,
    pool::{self, SharedSlice},
};

/// Large enough that the start of a copy is no matter, small enough to be there at once.
const BYTES: usize = 16 << 20;
/// What one thread copies at a time.
const PART: usize = 1 << 20;

/// Two pinned buffers, each with the event of the copy that reads it.
#[derive(Debug)]
pub(super) struct Staging {
    halves: [Half; 2],
    next: usize,
}

#[derive(Debug)]
struct Half {
    memory: *mut u8,
    copied: CUevent,
}

// SAFETY: the memory is the process's and the event the driver's; neither belongs to a thread.
#[allow(unsafe_code)]
unsafe impl Send for Half {}

/// What is copied where: `bytes` bytes to the address `to`, in pieces that are whole multiples of `unit` bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    pub(super) to: u64,
    pub(super) bytes: usize,
    pub(super) unit: usize,
    pub(super) stream: CUstream,
}

#[allow(unsafe_code)]
impl Staging {
    pub(super) fn new() -> Result<Self, Failure> {
        let half = || -> Result<Half, Failure> {
            let (mut memory, mut copied) = (std::ptr::null_mut::<c_void>(), std::ptr::null_mut());
            // SAFETY: both are written by the calls; the half gives them back when it is dropped.
            unsafe {
                call!(cuMemHostAlloc(&mut memory, BYTES, 0))?;
                let mut half = Half { memory: memory.cast(), copied };
                call!(cuEventCreate(&mut copied, CUevent_flags::CU_EVENT_DISABLE_TIMING as u32))?;
                half.copied = copied;
                Ok(half)
            }
        };
        Ok(Self { halves: [half()?, half()?], next: 0 })
    }

    /// Has `fill(start, piece)` write each piece, and the device fetch it on the copy's stream. When this returns, all
    /// pieces are written, and the last ones may still be on their way.
    ///
    /// # Safety
    /// `copy.to` begins as many bytes of the device's memory.
    pub(super) unsafe fn run(
        &mut self,
        copy: Copy,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<(), Failure> {
        let piece = piece(copy.unit);
        if copy.unit > BYTES {
            let code = format!("a row of {} bytes is longer than a buffer of {BYTES}", copy.unit);
            return Err(Failure::Call { call: "upload", code });
        }
        let mut start = 0;
        while start < copy.bytes {
            let bytes = piece.min(copy.bytes - start);
            let half = &self.halves[self.next];
            self.next = 1 - self.next;
            // SAFETY: the event says that the device has read the half; then nobody else touches it until it is copied.
            unsafe {
                call!(cuEventSynchronize(half.copied))?;
                fill(start, std::slice::from_raw_parts_mut(half.memory, bytes));
                let to = copy.to + start as u64;
                call!(cuMemcpyHtoDAsync_v2(to, half.memory.cast(), bytes, copy.stream))?;
                call!(cuEventRecord(half.copied, copy.stream))?;
            }
            start += bytes;
        }
        Ok(())
    }
}

/// The length of a piece: the most whole units that fit.
fn piece(unit: usize) -> usize {
    (BYTES / unit.max(1)).max(1) * unit.max(1)
}

/// Copies on all threads: a mapped file's pages are found one by one, which one thread does slowly.
#[allow(unsafe_code)]
pub(super) fn copy_together(from: &[u8], to: &mut [u8]) {
    let to = SharedSlice::new(to);
    pool::run(from.len().div_ceil(PART), |i| {
        let part = i * PART..((i + 1) * PART).min(from.len());
        // SAFETY: each task has a part of its own.
        unsafe { to.part(part.start, part.len()) }.copy_from_slice(&from[part]);
    });
}

impl Drop for Half {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: nothing is under way once the event has come; both are this half's. At the end there is nobody to tell.
        unsafe {
            if !self.copied.is_null() {
                let _ = check("cuEventSynchronize", functions::cuEventSynchronize(self.copied));
                let _ = check("cuEventDestroy", functions::cuEventDestroy_v2(self.copied));
            }
            let _ = check("cuMemFreeHost", functions::cuMemFreeHost(self.memory.cast()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_rows() {
        for unit in [1, 128, 7168, 37_888, BYTES] {
            let piece = piece(unit);
            assert!(piece.is_multiple_of(unit) && piece <= BYTES && piece + unit > BYTES, "{unit}");
        }
    }

    #[test]
    fn all_threads_together_copy_all() {
        let from: Vec<u8> = (0..3 * PART + 17).map(|i| i as u8).collect();
        let mut to = vec![0; from.len()];
        copy_together(&from, &mut to);
        assert_eq!(from, to);
    }
}
