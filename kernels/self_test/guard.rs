//! A CUDA driver that makes mistakes show: it stands before the real one, fills new memory with NaN, and puts bytes
//! behind each buffer that nobody may change.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::cuda::{Argument, Driver, Facts, Failure, Function, Launch, Memory, TileMap, Tiles};

/// NaN in f32 and in bf16, and no index of anything in u32.
const POISON: u8 = 0xFF;
/// Behind each buffer; a store of a whole warp that goes astray hits it.
const GUARD_BYTES: usize = 512;

/// The driver `inner` with poisoned, guarded memory.
#[derive(Debug)]
pub(super) struct Guard {
    inner: Arc<dyn Driver>,
    facts: Facts,
    /// The length of each buffer by its address.
    lengths: Mutex<HashMap<u64, usize>>,
    /// Guards that were written over.
    broken: Mutex<Vec<String>>,
    /// The newest kernel, which a broken guard is found behind.
    newest: Mutex<String>,
    /// How many kernels were launched.
    pub(super) launches: AtomicUsize,
}

impl Guard {
    pub(super) fn new(inner: Arc<dyn Driver>) -> Self {
        // Each buffer comes from here and returns here, so that all are filled and looked at.
        let facts = Facts { exact_allocations: true, ..inner.facts().clone() };
        // Errors are then those of the kernel that made them.
        inner.check_launches(true);
        Self {
            inner,
            facts,
            lengths: Mutex::default(),
            broken: Mutex::default(),
            newest: Mutex::default(),
            launches: AtomicUsize::new(0),
        }
    }

    /// What was written behind buffers that have been given back.
    pub(super) fn faults(&self) -> Vec<String> {
        lock(&self.broken).clone()
    }

    #[allow(unsafe_code)]
    fn look(&self, address: u64, bytes: usize) -> Result<(), Failure> {
        let mut behind = [0; GUARD_BYTES];
        // SAFETY: `allocate` has asked for so many bytes more.
        unsafe { self.inner.download(address + bytes as u64, &mut behind)? };
        if let Some(at) = behind.iter().position(|&byte| byte != POISON) {
            let newest = lock(&self.newest).clone();
            lock(&self.broken).push(format!(
                "byte {at} behind a buffer of {bytes} was written over; the newest kernel is {newest}"
            ));
        }
        Ok(())
    }
}

#[allow(unsafe_code)]
impl Driver for Guard {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn memory(&self) -> Result<Memory, Failure> {
        self.inner.memory()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Failure> {
        let whole = bytes.saturating_add(GUARD_BYTES);
        let address = self.inner.allocate(whole)?;
        // SAFETY: it was just allocated.
        unsafe { self.inner.fill(address, POISON, whole)? };
        lock(&self.lengths).insert(address, bytes);
        Ok(address)
    }

    unsafe fn free(&self, address: u64) -> Result<(), Failure> {
        let bytes = lock(&self.lengths).remove(&address);
        let looked = bytes.map_or(Ok(()), |bytes| self.look(address, bytes));
        // SAFETY: it came from `allocate`, and the caller promises that nobody uses it.
        unsafe { self.inner.free(address) }.and(looked)
    }

    unsafe fn upload(&self, from: &[u8], to: u64) -> Result<(), Failure> {
        // SAFETY: the caller promises what the driver asks for.
        unsafe { self.inner.upload(from, to) }
    }

    unsafe fn upload_with(
        &self,
        to: u64,
        bytes: usize,
        unit: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<(), Failure> {
        // SAFETY: the caller promises what the driver asks for.
        unsafe { self.inner.upload_with(to, bytes, unit, fill) }
    }

    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<(), Failure> {
        // SAFETY: the caller promises what the driver asks for.
        unsafe { self.inner.download(from, to) }
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Failure> {
        // SAFETY: the caller promises what the driver asks for.
        unsafe { self.inner.copy(from, to, bytes) }
    }

    unsafe fn fill(&self, to: u64, value: u8, bytes: usize) -> Result<(), Failure> {
        // SAFETY: the caller promises what the driver asks for.
        unsafe { self.inner.fill(to, value, bytes) }
    }

    fn function(&self, name: &str) -> Result<Function, Failure> {
        self.inner.function(name)
    }

    unsafe fn launch(
        &self,
        function: &Function,
        launch: Launch,
        arguments: &[Argument],
    ) -> Result<(), Failure> {
        self.launches.fetch_add(1, Ordering::Relaxed);
        lock(&self.newest).clone_from(&function.name);
        // SAFETY: the caller promises what the driver asks for.
        unsafe { self.inner.launch(function, launch, arguments) }
    }

    fn tile_map(&self, tiles: Tiles) -> Result<TileMap, Failure> {
        self.inner.tile_map(tiles)
    }

    fn synchronize(&self) -> Result<(), Failure> {
        self.inner.synchronize()
    }

    fn check_launches(&self, on: bool) {
        self.inner.check_launches(on);
    }

    fn begin_recording(&self) -> Result<(), Failure> {
        // Nothing may be waited for while it is recorded.
        self.inner.check_launches(false);
        self.inner.begin_recording()
    }

    fn end_recording(&self) -> Result<u64, Failure> {
        let recording = self.inner.end_recording();
        self.inner.check_launches(true);
        recording
    }

    unsafe fn replay(&self, recording: u64) -> Result<(), Failure> {
        // SAFETY: the caller promises what the driver asks for.
        unsafe { self.inner.replay(recording) }
    }

    unsafe fn forget(&self, recording: u64) -> Result<(), Failure> {
        // SAFETY: the caller promises what the driver asks for.
        unsafe { self.inner.forget(recording) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
