//! Launches that are recorded once and replayed: what a decode step is made of. All arguments are fixed when they are
//! recorded; what changes from replay to replay lies in memory that the launches read.

use std::sync::{Arc, Mutex};

use super::{Gpu, gpu::lock, pool::Pool};
use crate::Error;

/// Recorded launches with the memory that they use.
#[derive(Debug)]
pub(crate) struct Recording {
    gpu: Arc<Gpu>,
    handle: u64,
    /// Held until the recording is gone.
    _arena: Arc<Arena>,
}

/// The memory that belongs to a recording. It is given back when the recording and all buffers in it are gone.
#[derive(Debug)]
pub(super) struct Arena {
    gpu: Arc<Gpu>,
    /// May be used again within the recording, as its launches are in order.
    idle: Mutex<Pool>,
    /// Used by the recording, and by nobody else any more.
    kept: Mutex<Vec<u64>>,
}

impl Recording {
    /// Records what `compute` launches; nothing of it is done. Uploads and read-backs are errors within.
    ///
    /// # Errors
    /// As `compute`, and when the device can't record.
    #[allow(unsafe_code)]
    pub(crate) fn new<T, E: From<Error>>(
        gpu: &Arc<Gpu>,
        compute: impl FnOnce() -> Result<T, E>,
    ) -> Result<(Self, T), E> {
        let arena = Arc::new(Arena { gpu: gpu.clone(), idle: Mutex::default(), kept: Mutex::default() });
        gpu.driver().begin_recording().map_err(Error::from)?;
        *gpu.recording() = Some(arena.clone());
        let outcome = compute();
        *gpu.recording() = None;
        let handle = gpu.driver().end_recording();
        let recording = Self { gpu: gpu.clone(), handle: handle.map_err(Error::from)?, _arena: arena };
        Ok((recording, outcome?))
    }

    /// Does everything that was recorded.
    ///
    /// # Errors
    /// When the device fails.
    #[allow(unsafe_code)]
    pub(crate) fn replay(&self) -> Result<(), Error> {
        // SAFETY: the handle is this recording's, and the arena has all memory that was made while it was recorded. What
        // was there before belongs to whoever records, see `crate::graph`.
        unsafe { self.gpu.driver().replay(self.handle) }.map_err(Into::into)
    }
}

impl Drop for Recording {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: nobody else has the handle. At the end there is nobody to tell of a failure.
        let _ = unsafe { self.gpu.driver().forget(self.handle) };
    }
}

impl Arena {
    pub(super) fn take(&self, class: usize) -> Option<u64> {
        lock(&self.idle).take(class)
    }

    pub(super) fn put(&self, class: Option<usize>, address: u64) {
        match class {
            Some(class) => lock(&self.idle).put(class, address),
            None => self.keep(address),
        }
    }

    pub(super) fn keep(&self, address: u64) {
        lock(&self.kept).push(address);
    }
}

impl Drop for Arena {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        let all = lock(&self.idle).drain().into_iter().chain(lock(&self.kept).drain(..)).collect::<Vec<_>>();
        for address in all {
            // SAFETY: the recording and its buffers are gone, so nobody uses it.
            let _ = unsafe { self.gpu.driver().free(address) };
        }
    }
}
