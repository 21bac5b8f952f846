//! NVIDIA's driver, found when the program runs. Never run by a test without a GPU: what can be decided with integers is
//! in functions of their own, everything else is a call whose return code is checked.
//!
//! Kernels and small copies go to one stream, large copies from the host to another; each waits for the other where one
//! needs what the other does, so that to the caller all is done in the order in which it was asked for.

#![allow(unsafe_code)]

mod calls;
mod carveout;
mod discovery;
mod functions;
mod staging;

use std::{
    collections::HashMap,
    ffi::{CString, c_void},
    ptr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUevent, CUevent_flags, CUfunction, CUfunction_attribute, CUgraphExec,
    CUjit_option, CUmodule, CUresult, CUstream, CUstream_flags, CUstreamCaptureMode,
};

use self::{
    calls::{call, check, describe},
    carveout::Carveouts,
    discovery::Found,
    staging::{Copy, Staging, copy_together},
};
use super::{
    Argument, Driver, Facts, Failure, Function, Launch, Memory, TileMap, Tiles, modules, ptx::MODULES,
};

/// Copies up to this size go through the driver's own staging, which takes them at once.
const SMALL_BYTES: usize = 64 << 10;
/// What the driver's compiler may say of a module.
const LOG_BYTES: usize = 16 << 10;

/// A device in use.
#[derive(Debug)]
pub(crate) struct Nvidia {
    facts: Facts,
    device: CUdevice,
    context: CUcontext,
    /// Kernels, and copies that wait for them.
    compute: CUstream,
    /// Large copies from the host.
    copies: CUstream,
    /// Where one stream waits for the other.
    computed: CUevent,
    copied: CUevent,
    /// Pinned memory for what is read back at each step.
    read_back: Mutex<ReadBack>,
    staging: Mutex<Option<Staging>>,
    modules: Mutex<HashMap<usize, Loaded>>,
    carveouts: Mutex<Carveouts>,
    checks: AtomicBool,
}

#[derive(Debug)]
struct ReadBack(*mut u8);

#[derive(Debug)]
struct Loaded(CUmodule);

// SAFETY: contexts, streams, events, modules and functions of the driver belong to no thread; it locks them itself. Each
// method makes the context current on its thread first.
unsafe impl Send for Nvidia {}
// SAFETY: as above; what this process keeps is behind locks.
unsafe impl Sync for Nvidia {}
// SAFETY: pinned memory of the process.
unsafe impl Send for ReadBack {}
// SAFETY: a handle of the driver, which belongs to no thread.
unsafe impl Send for Loaded {}

impl Nvidia {
    /// How many devices the driver sees.
    ///
    /// # Errors
    /// When there is no driver, it is too old, or it sees none.
    pub(crate) fn count() -> Result<usize, Failure> {
        discovery::count()
    }

    /// Takes device `index` into use.
    ///
    /// # Errors
    /// When it can't be had: each cause is a variant of its own.
    pub(crate) fn open(index: usize) -> Result<Self, Failure> {
        let Found { device, facts } = discovery::find(index)?;
        let mut context = ptr::null_mut();
        // SAFETY: the device exists.
        let code = unsafe { functions::cuDevicePrimaryCtxRetain(&mut context, device) };
        if code.is(CUresult::CUDA_ERROR_OUT_OF_MEMORY) {
            let code = "there is no room on the device even to begin; who else uses it?".to_owned();
            return Err(Failure::Call { call: "cuDevicePrimaryCtxRetain", code });
        }
        check("cuDevicePrimaryCtxRetain", code)?;
        // From here on dropping gives back what was taken.
        let mut this = Self {
            facts,
            device,
            context,
            compute: ptr::null_mut(),
            copies: ptr::null_mut(),
            computed: ptr::null_mut(),
            copied: ptr::null_mut(),
            read_back: Mutex::new(ReadBack(ptr::null_mut())),
            staging: Mutex::new(None),
            modules: Mutex::default(),
            carveouts: Mutex::default(),
            checks: AtomicBool::new(false),
        };
        let (stream, event) =
            (CUstream_flags::CU_STREAM_NON_BLOCKING, CUevent_flags::CU_EVENT_DISABLE_TIMING);
        let mut pinned: *mut c_void = ptr::null_mut();
        // SAFETY: the context lives as long as `this`; each handle is written by the call that makes it.
        unsafe {
            call!(cuCtxSetCurrent(context))?;
            call!(cuStreamCreate(&mut this.compute, stream as u32))?;
            call!(cuStreamCreate(&mut this.copies, stream as u32))?;
            call!(cuEventCreate(&mut this.computed, event as u32))?;
            call!(cuEventCreate(&mut this.copied, event as u32))?;
            call!(cuMemHostAlloc(&mut pinned, SMALL_BYTES, 0))?;
        }
        lock(&this.read_back).0 = pinned.cast();
        Ok(this)
    }

    /// Makes the context this thread's.
    fn enter(&self) -> Result<(), Failure> {
        // SAFETY: the context lives as long as `self`.
        unsafe { call!(cuCtxSetCurrent(self.context)) }
    }

    /// Loads a module's PTX, which the driver compiles for the device and keeps in its own cache.
    fn load(&self, index: usize) -> Result<CUmodule, Failure> {
        let module = MODULES[index];
        let failed = |log: String| Failure::Module { module: module.name.to_owned(), log };
        let text = CString::new(module.text).map_err(|_| failed("its text holds a zero".to_owned()))?;
        let mut log = vec![0u8; LOG_BYTES];
        let mut options =
            [CUjit_option::CU_JIT_ERROR_LOG_BUFFER, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), ptr::without_provenance_mut(LOG_BYTES)];
        let mut handle = ptr::null_mut();
        // SAFETY: the text ends with zero; options and values are as many, and the log is as long as the second says.
        let code = unsafe {
            functions::cuModuleLoadDataEx(
                &mut handle,
                text.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        if code.is(CUresult::CUDA_SUCCESS) {
            return Ok(handle);
        }
        let said = log.split(|&byte| byte == 0).next().unwrap_or_default();
        let said = String::from_utf8_lossy(said).trim().to_owned();
        let code = describe(code);
        Err(failed(if said.is_empty() { code } else { format!("{code}: {said}") }))
    }

    /// Asks for as much shared memory on each multiprocessor as the kernel's blocks there want together.
    fn prefer_shared_memory(&self, kernel: CUfunction, launch: Launch) -> Result<(), Failure> {
        let mut carveouts = lock(&self.carveouts);
        let Some(wanted) = carveouts.missing(kernel.addr(), launch) else { return Ok(()) };
        let mut registers = 0;
        // SAFETY: the kernel is loaded, and the number lives until the call returns. The preference is a hint that changes
        // nothing of what is computed.
        unsafe {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS;
            call!(cuFuncGetAttribute(&mut registers, attribute, kernel))?;
            let percent = wanted.percent(u32::try_from(registers).unwrap_or(0), &self.facts);
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
            call!(cuFuncSetAttribute(kernel, attribute, percent))?;
        }
        carveouts.set(kernel.addr(), wanted);
        Ok(())
    }

    /// Copies to the device behind what `compute` does, and has it wait for the copy.
    unsafe fn upload_staged(
        &self,
        (to, bytes, unit): (u64, usize, usize),
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<(), Failure> {
        let mut staging = lock(&self.staging);
        let staging = match &mut *staging {
            Some(staging) => staging,
            none => none.insert(Staging::new()?),
        };
        // SAFETY: the caller's promise; the events are this device's.
        unsafe {
            call!(cuEventRecord(self.computed, self.compute))?;
            call!(cuStreamWaitEvent(self.copies, self.computed, 0))?;
            staging.run(Copy { to, bytes, unit, stream: self.copies }, fill)?;
            call!(cuEventRecord(self.copied, self.copies))?;
            call!(cuStreamWaitEvent(self.compute, self.copied, 0))
        }
    }
}

impl Driver for Nvidia {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn memory(&self) -> Result<Memory, Failure> {
        self.enter()?;
        let (free, total) = discovery::memory()?;
        Ok(Memory { free, total })
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Failure> {
        self.enter()?;
        let mut address = 0;
        // The driver refuses to allocate nothing.
        let bytes = bytes.max(1);
        // SAFETY: `address` lives until the call returns.
        let code = unsafe { functions::cuMemAlloc_v2(&mut address, bytes) };
        discovery::no_room("cuMemAlloc", code, bytes)?;
        Ok(address)
    }

    unsafe fn free(&self, address: u64) -> Result<(), Failure> {
        self.enter()?;
        // SAFETY: the caller's promise. The driver waits for what still uses it.
        unsafe { call!(cuMemFree_v2(address)) }
    }

    unsafe fn upload(&self, from: &[u8], to: u64) -> Result<(), Failure> {
        self.enter()?;
        if from.is_empty() {
            return Ok(());
        }
        if from.len() > SMALL_BYTES {
            let mut fill = |start: usize, piece: &mut [u8]| {
                copy_together(&from[start..start + piece.len()], piece);
            };
            // SAFETY: the caller's promise.
            return unsafe { self.upload_staged((to, from.len(), 1), &mut fill) };
        }
        // SAFETY: the caller's promise. Of memory that is not pinned the driver takes a copy before it returns.
        unsafe { call!(cuMemcpyHtoDAsync_v2(to, from.as_ptr().cast(), from.len(), self.compute)) }
    }

    unsafe fn upload_with(
        &self,
        to: u64,
        bytes: usize,
        unit: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<(), Failure> {
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { self.upload_staged((to, bytes, unit), fill) }
    }

    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<(), Failure> {
        self.enter()?;
        if to.is_empty() {
            return Ok(());
        }
        let pinned = lock(&self.read_back);
        let small = to.len() <= SMALL_BYTES;
        let target = if small { pinned.0 } else { to.as_mut_ptr() };
        // SAFETY: the caller's promise; the target is as long, and the stream is waited for before anybody reads it.
        unsafe {
            call!(cuMemcpyDtoHAsync_v2(target.cast(), from, to.len(), self.compute))?;
            call!(cuStreamSynchronize(self.compute))?;
            if small {
                ptr::copy_nonoverlapping(target, to.as_mut_ptr(), to.len());
            }
        }
        Ok(())
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Failure> {
        self.enter()?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { call!(cuMemcpyDtoDAsync_v2(to, from, bytes, self.compute)) }
    }

    unsafe fn fill(&self, to: u64, value: u8, bytes: usize) -> Result<(), Failure> {
        self.enter()?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { call!(cuMemsetD8Async(to, value, bytes, self.compute)) }
    }

    fn function(&self, name: &str) -> Result<Function, Failure> {
        self.enter()?;
        let missing = || Failure::NoKernel(name.to_owned());
        let index = modules::find(MODULES, name, self.facts.capability).ok_or_else(missing)?;
        let c_name = CString::new(name).map_err(|_| missing())?;
        let mut loaded = lock(&self.modules);
        let module = match loaded.get(&index) {
            Some(Loaded(module)) => *module,
            None => {
                let module = self.load(index)?;
                loaded.insert(index, Loaded(module));
                module
            }
        };
        let mut function: CUfunction = ptr::null_mut();
        // Blocks may have more than 48 KiB of shared memory only where that is asked for.
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let most = i32::try_from(self.facts.shared_bytes_per_block).unwrap_or(i32::MAX);
        // SAFETY: the module is loaded and stays so; the name ends with zero.
        unsafe {
            call!(cuModuleGetFunction(&mut function, module, c_name.as_ptr()))?;
            call!(cuFuncSetAttribute(function, attribute, most))?;
        }
        Ok(Function { name: name.to_owned(), handle: function.expose_provenance() as u64 })
    }

    unsafe fn launch(
        &self,
        function: &Function,
        launch: Launch,
        arguments: &[Argument],
    ) -> Result<(), Failure> {
        const MOST: usize = 24;
        let failed = |reason: String| Failure::Launch { kernel: function.name.clone(), reason };
        if arguments.len() > MOST {
            return Err(failed(format!("{} arguments, at most {MOST} are possible", arguments.len())));
        }
        self.enter()?;
        let mut pointers = [ptr::null_mut::<c_void>(); MOST];
        for (pointer, argument) in pointers.iter_mut().zip(arguments) {
            *pointer = argument.as_bytes().as_ptr().cast_mut().cast();
        }
        let Launch { grid: [gx, gy, gz], block: [bx, by, bz], shared_bytes } = launch;
        let kernel: CUfunction = ptr::with_exposed_provenance_mut(function.handle as usize);
        self.prefer_shared_memory(kernel, launch)?;
        let (pointers, none) = (pointers.as_mut_ptr(), ptr::null_mut());
        // SAFETY: the function is this device's; the driver copies the arguments, which the caller promises to be right.
        let code = unsafe {
            functions::cuLaunchKernel(
                kernel,
                gx,
                gy,
                gz,
                bx,
                by,
                bz,
                shared_bytes,
                self.compute,
                pointers,
                none,
            )
        };
        if !code.is(CUresult::CUDA_SUCCESS) {
            return Err(failed(format!("{} for {launch:?}", describe(code))));
        }
        if self.checks.load(Ordering::Relaxed) {
            // SAFETY: the stream is this device's.
            let code = unsafe { functions::cuStreamSynchronize(self.compute) };
            if !code.is(CUresult::CUDA_SUCCESS) {
                return Err(failed(format!("{} for {launch:?}", describe(code))));
            }
        }
        Ok(())
    }

    fn tile_map(&self, tiles: Tiles) -> Result<TileMap, Failure> {
        use sys::{
            CUtensorMapDataType_enum as DataType, CUtensorMapFloatOOBfill_enum as OutOfBounds,
            CUtensorMapInterleave_enum as Interleave, CUtensorMapL2promotion_enum as Promotion,
            CUtensorMapSwizzle_enum as Swizzle,
        };
        self.enter()?;
        let Tiles { address, rows, columns, tile_rows } = tiles;
        let address: *mut c_void = ptr::with_exposed_provenance_mut(address as usize);
        let size = [u64::from(columns), u64::from(rows)];
        // Bytes from row to row; from column to column is what the type says.
        let strides = [u64::from(columns) * 2];
        let (tile, steps) = ([Tiles::COLUMNS, tile_rows], [1, 1]);
        let mut map = sys::CUtensorMap_st { opaque: [0; 16] };
        // SAFETY: all lists have two entries, and the strides one less, as the rank says; the map is written by the call.
        unsafe {
            call!(cuTensorMapEncodeTiled(
                &mut map,
                DataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2,
                address,
                size.as_ptr(),
                strides.as_ptr(),
                tile.as_ptr(),
                steps.as_ptr(),
                Interleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                OutOfBounds::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            ))?;
        }
        Ok(TileMap(map.opaque))
    }

    fn synchronize(&self) -> Result<(), Failure> {
        self.enter()?;
        // SAFETY: the streams are this device's.
        unsafe {
            call!(cuStreamSynchronize(self.copies))?;
            call!(cuStreamSynchronize(self.compute))
        }
    }

    fn check_launches(&self, on: bool) {
        self.checks.store(on, Ordering::Relaxed);
    }

    fn begin_recording(&self) -> Result<(), Failure> {
        self.enter()?;
        // Relaxed: other threads may allocate meanwhile, which has nothing to do with this stream.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is this device's.
        unsafe { call!(cuStreamBeginCapture_v2(self.compute, mode)) }
    }

    fn end_recording(&self) -> Result<u64, Failure> {
        self.enter()?;
        let (mut graph, mut executable) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the stream is this device's; the graph is given back once it is compiled.
        unsafe {
            call!(cuStreamEndCapture(self.compute, &mut graph))?;
            let outcome = call!(cuGraphInstantiateWithFlags(&mut executable, graph, 0));
            if !graph.is_null() {
                call!(cuGraphDestroy(graph))?;
            }
            outcome?;
        }
        Ok(executable.expose_provenance() as u64)
    }

    unsafe fn replay(&self, recording: u64) -> Result<(), Failure> {
        self.enter()?;
        let executable: CUgraphExec = ptr::with_exposed_provenance_mut(recording as usize);
        // SAFETY: the caller's promise.
        unsafe { call!(cuGraphLaunch(executable, self.compute)) }
    }

    unsafe fn forget(&self, recording: u64) -> Result<(), Failure> {
        self.enter()?;
        let executable: CUgraphExec = ptr::with_exposed_provenance_mut(recording as usize);
        // SAFETY: the caller's promise.
        unsafe { call!(cuGraphExecDestroy(executable)) }
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        // At the end there is nobody to tell, so return codes are of no use.
        let _ = self.enter();
        *lock(&self.staging) = None;
        // SAFETY: nobody uses the device any more; each handle is this device's, or null where opening it failed.
        unsafe {
            if !self.compute.is_null() {
                let _ = call!(cuStreamSynchronize(self.compute));
                let _ = call!(cuStreamDestroy_v2(self.compute));
            }
            if !self.copies.is_null() {
                let _ = call!(cuStreamDestroy_v2(self.copies));
            }
            for event in [self.computed, self.copied] {
                if !event.is_null() {
                    let _ = call!(cuEventDestroy_v2(event));
                }
            }
            let pinned = lock(&self.read_back).0;
            if !pinned.is_null() {
                let _ = call!(cuMemFreeHost(pinned.cast()));
            }
            for (_, Loaded(module)) in lock(&self.modules).drain() {
                let _ = call!(cuModuleUnload(module));
            }
            let _ = call!(cuDevicePrimaryCtxRelease_v2(self.device));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
