//! A range of a device's memory with an owner, and where it goes when that is dropped.

use std::sync::Arc;

use super::{Failure, Gpu, recording::Arena};
use crate::Result;

/// Bytes in a device's memory.
#[derive(Debug)]
pub(crate) struct DeviceBuffer {
    gpu: Arc<Gpu>,
    address: u64,
    bytes: usize,
    home: Home,
}

/// Where a buffer goes when it is dropped.
#[derive(Debug)]
pub(super) enum Home {
    /// Back to the driver.
    Device,
    /// To the pool, as one of this size class.
    Pool(usize),
    /// To a recording, whose replays use it; as one of this size class, unless its length is exact.
    Arena(Arc<Arena>, Option<usize>),
}

impl Home {
    /// The home of a new buffer: that of the recording under way, or else the pool's if it has a size class.
    pub(super) fn of(arena: Option<Arc<Arena>>, class: Option<usize>) -> Self {
        match (arena, class) {
            (Some(arena), class) => Self::Arena(arena, class),
            (None, Some(class)) => Self::Pool(class),
            (None, None) => Self::Device,
        }
    }
}

#[allow(unsafe_code)]
impl DeviceBuffer {
    pub(super) fn new(gpu: &Arc<Gpu>, address: u64, bytes: usize, home: Home) -> Self {
        Self { gpu: gpu.clone(), address, bytes, home }
    }

    pub(crate) fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// Copies `bytes` to its bytes from `start` on. It takes `&self` because the device orders what is asked for.
    ///
    /// # Errors
    /// [`Failure::Range`], or when the device fails.
    pub(crate) fn write(&self, start: usize, bytes: &[u8]) -> Result<()> {
        let to = self.at(start, bytes.len())?;
        // SAFETY: `at` has checked that the range lies in this buffer.
        unsafe { self.gpu.driver().upload(bytes, to) }.map_err(Into::into)
    }

    /// Copies what `fill(start, piece)` writes to `bytes` of its bytes from `start` on, see
    /// [`super::Driver::upload_with`].
    ///
    /// # Errors
    /// [`Failure::Range`], or when the device fails.
    pub(crate) fn write_with(
        &self,
        start: usize,
        bytes: usize,
        unit: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<()> {
        let to = self.at(start, bytes)?;
        // SAFETY: `at` has checked that the range lies in this buffer.
        unsafe { self.gpu.driver().upload_with(to, bytes, unit, fill) }.map_err(Into::into)
    }

    /// Copies its bytes from `start` on to `bytes`.
    ///
    /// # Errors
    /// [`Failure::Range`], or when the device fails.
    pub(crate) fn read(&self, start: usize, bytes: &mut [u8]) -> Result<()> {
        let from = self.at(start, bytes.len())?;
        // SAFETY: `at` has checked that the range lies in this buffer.
        unsafe { self.gpu.driver().download(from, bytes) }.map_err(Into::into)
    }

    /// Copies `bytes` bytes of `from`, another buffer, from its byte `first` on, to its own bytes from `start` on.
    ///
    /// # Errors
    /// [`Failure::Range`], or when the device fails.
    pub(crate) fn copy_from(&self, start: usize, from: &Self, first: usize, bytes: usize) -> Result<()> {
        let (from, to) = (from.at(first, bytes)?, self.at(start, bytes)?);
        // SAFETY: `at` has checked that both ranges lie in their buffers, which differ.
        unsafe { self.gpu.driver().copy(from, to, bytes) }.map_err(Into::into)
    }

    /// Sets all bytes to `value`.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn fill(&self, value: u8) -> Result<()> {
        // SAFETY: it is this buffer from its first byte to its last.
        unsafe { self.gpu.driver().fill(self.address, value, self.bytes) }.map_err(Into::into)
    }

    fn at(&self, start: usize, bytes: usize) -> std::result::Result<u64, Failure> {
        match start.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(self.address + start as u64),
            _ => Err(Failure::Range { start, bytes, length: self.bytes }),
        }
    }
}

impl Drop for DeviceBuffer {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        let recording = self.gpu.recording().clone();
        match (&self.home, recording) {
            (Home::Arena(arena, class), _) => arena.put(*class, self.address),
            // A recording that is under way may read it at each replay.
            (Home::Device | Home::Pool(_), Some(arena)) => arena.keep(self.address),
            (Home::Pool(class), None) => self.gpu.pool().put(*class, self.address),
            (Home::Device, None) => {
                // SAFETY: it was allocated, and this is its only owner. What failed before is said by the next call.
                let _ = unsafe { self.gpu.driver().free(self.address) };
            }
        }
    }
}
