//! A CUDA device that is a processor, for tests: it runs the very sources of the kernels, compiled as C++.
//!
//! It is strict where a GPU is lenient. Threads and blocks run in an order drawn from a seed; memory is filled with NaN
//! before it is used; each buffer ends at a page that may not be touched; a barrier that not all threads reach is an
//! error and no deadlock. What a test finds here would be a wrong number on a GPU, on some days.
//!
//! Nothing that ships depends on this crate.

#![allow(unsafe_code)]
#![cfg(unix)]

mod memory;
mod recording;
pub mod testing;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, CString, c_char, c_void},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use ocellus_kernels::{
    Device,
    cuda::{Argument, Driver, Facts, Failure, Function, Launch, Memory, TileMap, Tiles},
};

use memory::Heap;
use recording::{Command, Recordings};

/// An emulated CUDA device.
#[derive(Debug)]
pub struct Emulator {
    facts: Facts,
    seed: AtomicU64,
    heap: Mutex<Heap>,
    recordings: Mutex<Recordings>,
    launched: Mutex<BTreeMap<String, usize>>,
    read_backs: Mutex<ReadBacks>,
}

/// What was copied to the host, each time waiting for the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadBacks {
    /// How often.
    pub copies: usize,
    /// How much in all.
    pub bytes: usize,
}

/// What kind of device is emulated.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides the order of threads and blocks.
    pub seed: u64,
    /// Compute capability: 8.0, or 9.0 for kernels with Hopper's instructions.
    pub capability: (u32, u32),
    /// How many multiprocessors it says it has, by which launches are laid out.
    pub multiprocessors: u32,
    /// Whether each buffer has an allocation of its own, which finds what reaches outside. Otherwise buffers are taken
    /// from the pool, as on a GPU.
    pub exact_allocations: bool,
    /// The device's memory in bytes.
    pub memory: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 0, capability: (8, 0), multiprocessors: 4, exact_allocations: true, memory: 4 << 30 }
    }
}

impl Emulator {
    /// A device with `options`.
    pub fn new(options: Options) -> Self {
        let facts = Facts {
            name: "emulated device".to_owned(),
            index: 0,
            capability: options.capability,
            driver: (12, 4),
            multiprocessors: options.multiprocessors,
            shared_bytes_per_block: if options.capability >= (9, 0) { 227 << 10 } else { 163 << 10 },
            shared_bytes_per_multiprocessor: if options.capability >= (9, 0) { 228 << 10 } else { 164 << 10 },
            cache_bytes: 40 << 20,
            exact_allocations: options.exact_allocations,
        };
        let heap = Mutex::new(Heap::new(options.memory));
        Self {
            facts,
            seed: AtomicU64::new(options.seed),
            heap,
            recordings: Mutex::default(),
            launched: Mutex::default(),
            read_backs: Mutex::default(),
        }
    }

    /// A device whose schedule is drawn from `seed`.
    pub fn device(seed: u64) -> Device {
        Device::with_driver(Arc::new(Self::new(Options { seed, ..Options::default() })))
    }

    /// The kernels that have run.
    pub fn launched(&self) -> BTreeSet<String> {
        self.launched.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// How often `kernel` has run.
    pub fn launches(&self, kernel: &str) -> usize {
        self.launched.lock().unwrap_or_else(PoisonError::into_inner).get(kernel).copied().unwrap_or(0)
    }

    /// The most bytes of its memory that were in use at one time since the last call.
    pub fn take_most_used(&self) -> usize {
        self.heap().take_most_used()
    }

    /// What was copied to the host so far.
    pub fn read_backs(&self) -> ReadBacks {
        *self.read_backs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heap(&self) -> MutexGuard<'_, Heap> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recordings(&self) -> MutexGuard<'_, Recordings> {
        self.recordings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a command, or writes it down where a recording is under way.
    fn submit(&self, command: Command) -> Result<(), Failure> {
        match self.recordings().record(command) {
            None => Ok(()),
            Some(command) => self.execute(&command),
        }
    }

    fn execute(&self, command: &Command) -> Result<(), Failure> {
        match command {
            Command::Launch { function, launch, arguments } => self.run(function, *launch, arguments),
            &Command::Copy { from, to, bytes } => {
                self.heap().check("a copy on the device", from, bytes)?;
                self.heap().check("a copy on the device", to, bytes)?;
                // SAFETY: both ranges are allocated; `copy` allows them to overlap.
                unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
                Ok(())
            }
            &Command::Fill { to, value, bytes } => {
                self.heap().check("a fill", to, bytes)?;
                // SAFETY: the range is allocated.
                unsafe { std::ptr::write_bytes(to as *mut u8, value, bytes) };
                Ok(())
            }
        }
    }

    fn run(&self, function: &Function, launch: Launch, arguments: &[Argument]) -> Result<(), Failure> {
        let pointers: Vec<*const u8> =
            arguments.iter().map(|argument| argument.as_bytes().as_ptr()).collect();
        let sizes: Vec<u32> = arguments.iter().map(|argument| argument.as_bytes().len() as u32).collect();
        let launch = RawLaunch {
            entry: function.handle as *const c_void,
            arguments: pointers.as_ptr(),
            sizes: sizes.as_ptr(),
            argument_count: arguments.len() as u32,
            grid: launch.grid,
            block: launch.block,
            shared_bytes: launch.shared_bytes,
            // Each launch gets an order of its own.
            seed: self.seed.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed),
        };
        let mut message = [0u8; 1024];
        let mut fault = 0;
        // One launch at a time, and no memory given back meanwhile.
        let heap = self.heap();
        // SAFETY: the entry is from `function`; arguments, sizes and message live until it returns.
        let outcome = unsafe {
            ocellus_emulator_launch(&launch, message.as_mut_ptr().cast(), message.len(), &mut fault)
        };
        if outcome == 0 {
            let mut launched = self.launched.lock().unwrap_or_else(PoisonError::into_inner);
            *launched.entry(function.name.clone()).or_default() += 1;
            return Ok(());
        }
        let reason = CStr::from_bytes_until_nul(&message).unwrap_or_default().to_string_lossy();
        let place = if outcome == 2 { heap.describe(fault) } else { String::new() };
        Err(Failure::Launch { kernel: function.name.clone(), reason: format!("{reason}{place}") })
    }
}

impl Driver for Emulator {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn memory(&self) -> Result<Memory, Failure> {
        Ok(self.heap().memory())
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Failure> {
        self.heap().allocate(bytes)
    }

    unsafe fn free(&self, address: u64) -> Result<(), Failure> {
        self.heap().free(address)
    }

    unsafe fn upload(&self, from: &[u8], to: u64) -> Result<(), Failure> {
        self.recordings().expect_none("an upload")?;
        self.heap().check("a copy to the device", to, from.len())?;
        // SAFETY: the range is allocated.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    unsafe fn upload_with(
        &self,
        to: u64,
        bytes: usize,
        unit: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<(), Failure> {
        self.heap().check("a copy to the device", to, bytes)?;
        // Short pieces, so that all callers are seen to count from each piece's start.
        let length = unit.max(1) * (4096 / unit.max(1)).max(1);
        for start in (0..bytes).step_by(length) {
            let mut piece = vec![0xFF; length.min(bytes - start)];
            fill(start, &mut piece);
            // SAFETY: the range is allocated.
            unsafe { self.upload(&piece, to + start as u64)? };
        }
        Ok(())
    }

    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<(), Failure> {
        self.recordings().expect_none("a download")?;
        self.heap().check("a copy to the host", from, to.len())?;
        let mut read_backs = self.read_backs.lock().unwrap_or_else(PoisonError::into_inner);
        read_backs.copies += 1;
        read_backs.bytes += to.len();
        // SAFETY: the range is allocated.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Failure> {
        self.submit(Command::Copy { from, to, bytes })
    }

    unsafe fn fill(&self, to: u64, value: u8, bytes: usize) -> Result<(), Failure> {
        self.submit(Command::Fill { to, value, bytes })
    }

    fn function(&self, name: &str) -> Result<Function, Failure> {
        let missing = || Failure::NoKernel(name.to_owned());
        let c_name = CString::new(name).map_err(|_| missing())?;
        // SAFETY: the name ends with zero; what is found lives as long as the process.
        let entry = unsafe { ocellus_emulator_find(c_name.as_ptr()) };
        if entry.is_null() {
            return Err(missing());
        }
        Ok(Function { name: name.to_owned(), handle: entry as u64 })
    }

    unsafe fn launch(
        &self,
        function: &Function,
        launch: Launch,
        arguments: &[Argument],
    ) -> Result<(), Failure> {
        self.submit(Command::Launch { function: function.clone(), launch, arguments: arguments.to_vec() })
    }

    fn tile_map(&self, tiles: Tiles) -> Result<TileMap, Failure> {
        let Tiles { address, rows, columns, tile_rows } = tiles;
        // What the device's driver refuses.
        if !address.is_multiple_of(16) || !columns.is_multiple_of(8) || !(1..=256).contains(&tile_rows) {
            return Err(Failure::Call { call: "tile_map", code: format!("{tiles:?} is not allowed") });
        }
        let (rows, columns) = (u64::from(rows), u64::from(columns));
        let mut words = [0; 16];
        // As `EmulatedMap` in hopper.h.
        words[..7].copy_from_slice(&[
            0x6F63_656C_6C75_736D,
            address,
            columns,
            rows,
            columns * 2,
            Tiles::COLUMNS.into(),
            tile_rows.into(),
        ]);
        Ok(TileMap(words))
    }

    fn synchronize(&self) -> Result<(), Failure> {
        self.recordings().expect_none("a wait for the device")
    }

    fn check_launches(&self, _: bool) {}

    fn begin_recording(&self) -> Result<(), Failure> {
        self.recordings().begin()
    }

    fn end_recording(&self) -> Result<u64, Failure> {
        self.recordings().end()
    }

    unsafe fn replay(&self, recording: u64) -> Result<(), Failure> {
        let commands = self.recordings().get(recording)?;
        commands.iter().try_for_each(|command| self.execute(command))
    }

    unsafe fn forget(&self, recording: u64) -> Result<(), Failure> {
        self.recordings().forget(recording)
    }
}

/// As in `emulator.cpp`.
#[repr(C)]
struct RawLaunch {
    entry: *const c_void,
    arguments: *const *const u8,
    sizes: *const u32,
    argument_count: u32,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    seed: u64,
}

unsafe extern "C" {
    fn ocellus_emulator_find(name: *const c_char) -> *const c_void;
    fn ocellus_emulator_launch(
        launch: *const RawLaunch,
        message: *mut c_char,
        room: usize,
        fault: *mut u64,
    ) -> i32;
}
