//! A device with its memory and its kernels: what the operations of this crate launch on.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use super::{Argument, CudaTensor, Driver, Failure, Function, Launch};
use crate::{DType, Result, error::argument};

/// A CUDA device. Clones of the `Arc` around it share its memory.
#[derive(Debug)]
pub(crate) struct Gpu {
    driver: Arc<dyn Driver>,
    functions: Mutex<HashMap<&'static str, Function>>,
}

/// Bytes in a device's memory; they return to it when this is dropped.
#[derive(Debug)]
pub(crate) struct DeviceBuffer {
    gpu: Arc<Gpu>,
    address: u64,
    bytes: usize,
}

impl Gpu {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver, functions: Mutex::default() }
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        &*self.driver
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
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Room for `bytes` bytes, whose values are arbitrary.
    ///
    /// # Errors
    /// [`Failure::OutOfMemory`].
    pub(crate) fn allocate(self: &Arc<Self>, bytes: usize) -> Result<DeviceBuffer> {
        Ok(DeviceBuffer { gpu: self.clone(), address: self.driver.allocate(bytes)?, bytes })
    }

    /// A tensor whose elements are arbitrary, for a kernel to write.
    ///
    /// # Errors
    /// [`Failure::OutOfMemory`].
    pub(crate) fn uninitialised(self: &Arc<Self>, shape: &[usize], dtype: DType) -> Result<CudaTensor> {
        CudaTensor::new(self, shape, dtype)
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

#[allow(unsafe_code)]
impl DeviceBuffer {
    pub(crate) fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// Its length in bytes.
    pub(crate) fn size(&self) -> usize {
        self.bytes
    }

    /// Copies `bytes` to its bytes from `start` on. It takes `&self` because the device orders what is asked for.
    ///
    /// # Errors
    /// [`Failure::Range`], or when the device fails.
    pub(crate) fn write(&self, start: usize, bytes: &[u8]) -> Result<()> {
        let to = self.at(start, bytes.len())?;
        // SAFETY: `at` has checked that the range lies in this buffer.
        unsafe { self.gpu.driver.upload(bytes, to) }.map_err(Into::into)
    }

    /// Copies its bytes from `start` on to `bytes`.
    ///
    /// # Errors
    /// [`Failure::Range`], or when the device fails.
    pub(crate) fn read(&self, start: usize, bytes: &mut [u8]) -> Result<()> {
        let from = self.at(start, bytes.len())?;
        // SAFETY: `at` has checked that the range lies in this buffer.
        unsafe { self.gpu.driver.download(from, bytes) }.map_err(Into::into)
    }

    /// Copies `bytes` bytes of `from`, another buffer, from its byte `first` on, to its own bytes from `start` on.
    ///
    /// # Errors
    /// [`Failure::Range`], or when the device fails.
    pub(crate) fn copy_from(&self, start: usize, from: &Self, first: usize, bytes: usize) -> Result<()> {
        let (from, to) = (from.at(first, bytes)?, self.at(start, bytes)?);
        // SAFETY: `at` has checked that both ranges lie in their buffers, which differ.
        unsafe { self.gpu.driver.copy(from, to, bytes) }.map_err(Into::into)
    }

    /// Sets all bytes to `value`.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn fill(&self, value: u8) -> Result<()> {
        // SAFETY: it is this buffer from its first byte to its last.
        unsafe { self.gpu.driver.fill(self.address, value, self.bytes) }.map_err(Into::into)
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
        // SAFETY: it was allocated, and this is its only owner. What failed before is said by the next call.
        let _ = unsafe { self.gpu.driver.free(self.address) };
    }
}

/// Says once for each operation that it has no kernel and is computed on the host.
pub(crate) fn fall_back(op: &'static str) {
    static TOLD: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.get_or_insert_default().insert(op) {
        tracing::warn!("{op} has no CUDA kernel for this case and is computed on the processor, slowly");
    }
}
