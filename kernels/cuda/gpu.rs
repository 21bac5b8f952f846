//! A device with its memory and its kernels: what the operations of this crate launch on.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Argument, CudaTensor, Driver, Failure, Function, Launch,
    buffer::{DeviceBuffer, Home},
    pool::{Pool, size_class},
    recording::Arena,
};
use crate::{DType, Result, error::argument};

/// A CUDA device. Clones of the `Arc` around it share its memory.
#[derive(Debug)]
pub(crate) struct Gpu {
    driver: Arc<dyn Driver>,
    functions: Mutex<HashMap<&'static str, Function>>,
    pool: Mutex<Pool>,
    /// What the recording under way keeps, when there is one.
    recording: Mutex<Option<Arc<Arena>>>,
}

impl Gpu {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver, functions: Mutex::default(), pool: Mutex::default(), recording: Mutex::default() }
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// The driver, for one that stands before it.
    pub(crate) fn shared_driver(&self) -> Arc<dyn Driver> {
        self.driver.clone()
    }

    /// Starts a kernel; nothing when the grid is empty. `arguments` must be what the kernel takes, in its order, and the
    /// tensors among them as large as it thinks: the operation that calls this has checked their shapes.
    ///
    /// # Errors
    /// [`Failure::Launch`] when the device can't do a launch of this shape, and whatever the driver says.
    #[allow(unsafe_code)]
    pub(crate) fn launch(&self, kernel: &'static str, launch: Launch, arguments: &[Argument]) -> Result<()> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        self.check(launch).map_err(|reason| Failure::Launch { kernel: kernel.to_owned(), reason })?;
        let mut functions = lock(&self.functions);
        let function = match functions.get(kernel) {
            Some(function) => function,
            None => functions.entry(kernel).or_insert(self.driver.function(kernel)?),
        };
        // SAFETY: each operation gives its kernel buffers whose shapes it has checked; the emulator's tests find the ones
        // that don't. Buffers live until the stream has come past their last use.
        unsafe { self.driver.launch(function, launch, arguments)? };
        Ok(())
    }

    /// What is wrong with a launch.
    fn check(&self, Launch { grid, block, shared_bytes }: Launch) -> std::result::Result<(), String> {
        let threads = block.iter().fold(1u32, |all, &n| all.saturating_mul(n));
        let most = self.driver.facts().shared_bytes_per_block;
        if threads == 0 || threads > 1024 || threads % 32 != 0 || block[2] > 64 {
            return Err(format!("blocks of {block:?} threads, expected a multiple of 32 up to 1024"));
        }
        if grid[0] > i32::MAX as u32 || grid[1] > 65_535 || grid[2] > 65_535 {
            return Err(format!("a grid of {grid:?} blocks, expected at most [2147483647, 65535, 65535]"));
        }
        if shared_bytes > most {
            return Err(format!("{shared_bytes} bytes of shared memory, the device has {most} for a block"));
        }
        Ok(())
    }

    /// Room for `bytes` bytes, whose values are arbitrary, until it is dropped: for activations.
    ///
    /// # Errors
    /// [`Failure::OutOfMemory`].
    pub(crate) fn allocate(self: &Arc<Self>, bytes: usize) -> Result<DeviceBuffer> {
        let arena = lock(&self.recording).clone();
        if self.driver.facts().exact_allocations {
            let address = self.driver.allocate(bytes)?;
            return Ok(DeviceBuffer::new(self, address, bytes, Home::of(arena, None)));
        }
        let class = size_class(bytes);
        let idle = match &arena {
            Some(arena) => arena.take(class),
            None => lock(&self.pool).take(class),
        };
        let address = match idle {
            Some(address) => address,
            None => self.allocate_new(class)?,
        };
        Ok(DeviceBuffer::new(self, address, bytes, Home::of(arena, Some(class))))
    }

    /// Room for exactly `bytes` bytes that stay as long as a model: weights, caches.
    ///
    /// # Errors
    /// [`Failure::OutOfMemory`].
    pub(crate) fn allocate_lasting(self: &Arc<Self>, bytes: usize) -> Result<DeviceBuffer> {
        Ok(DeviceBuffer::new(self, self.allocate_new(bytes)?, bytes, Home::Device))
    }

    /// Memory of the driver's; what waits in the pool is given back where there is no room otherwise.
    fn allocate_new(&self, bytes: usize) -> std::result::Result<u64, Failure> {
        match self.driver.allocate(bytes) {
            Err(Failure::OutOfMemory { .. }) if lock(&self.pool).bytes() > 0 => {
                self.release_idle()?;
                self.driver.allocate(bytes)
            }
            outcome => outcome,
        }
    }

    /// Gives the memory of activations back that nobody uses.
    ///
    /// # Errors
    /// When the device has failed.
    #[allow(unsafe_code)]
    pub(crate) fn release_idle(&self) -> std::result::Result<(), Failure> {
        let idle = lock(&self.pool).drain();
        // SAFETY: nobody has what waits in the pool.
        idle.into_iter().try_for_each(|address| unsafe { self.driver.free(address) })
    }

    pub(super) fn pool(&self) -> MutexGuard<'_, Pool> {
        lock(&self.pool)
    }

    pub(super) fn recording(&self) -> MutexGuard<'_, Option<Arc<Arena>>> {
        lock(&self.recording)
    }

    /// A tensor whose elements are arbitrary, for a kernel to write.
    ///
    /// # Errors
    /// [`Failure::OutOfMemory`].
    pub(crate) fn uninitialised(self: &Arc<Self>, shape: &[usize], dtype: DType) -> Result<CudaTensor> {
        CudaTensor::new(shape, dtype, |bytes| self.allocate(bytes))
    }

    /// The same in memory of exactly its size that stays as long as a model.
    ///
    /// # Errors
    /// [`Failure::OutOfMemory`].
    pub(crate) fn lasting(self: &Arc<Self>, shape: &[usize], dtype: DType) -> Result<CudaTensor> {
        CudaTensor::new(shape, dtype, |bytes| self.allocate_lasting(bytes))
    }

    /// A tensor of `values`.
    ///
    /// # Errors
    /// [`Failure::OutOfMemory`]; [`crate::Error::Argument`] when they are not as many as `shape` has.
    pub(crate) fn tensor_f32(self: &Arc<Self>, values: &[f32], shape: &[usize]) -> Result<CudaTensor> {
        self.upload(bytemuck::cast_slice(values), shape, DType::F32)
    }

    /// A list of integers for a kernel to read: dtype U32, shape `(values)`.
    ///
    /// # Errors
    /// [`Failure::OutOfMemory`].
    pub(crate) fn integers(self: &Arc<Self>, values: &[u32]) -> Result<CudaTensor> {
        self.upload(bytemuck::cast_slice(values), &[values.len()], DType::U32)
    }

    /// A tensor of the elements whose bytes are given.
    ///
    /// # Errors
    /// As [`Gpu::tensor_f32`].
    pub(crate) fn upload(
        self: &Arc<Self>,
        bytes: &[u8],
        shape: &[usize],
        dtype: DType,
    ) -> Result<CudaTensor> {
        let tensor = self.uninitialised(shape, dtype)?;
        if tensor.size_in_bytes() != bytes.len() {
            return Err(argument(
                "tensor",
                "data",
                bytes.len(),
                format!("{} bytes for shape {shape:?} of {dtype:?}", tensor.size_in_bytes()),
            ));
        }
        tensor.buffer().write(0, bytes)?;
        Ok(tensor)
    }
}

/// Says once for each operation that it has no kernel and is computed on the host.
pub(crate) fn fall_back(op: &'static str) {
    static TOLD: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut told = lock(&TOLD);
    if told.get_or_insert_default().insert(op) {
        tracing::warn!("{op} has no CUDA kernel for this case and is computed on the processor, slowly");
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // At the end there is nobody to tell.
        let _ = self.release_idle();
    }
}
