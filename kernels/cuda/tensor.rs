//! A tensor in a CUDA device's memory: row-major without gaps, f32, bf16 or u32.

use std::sync::Arc;

use super::{Argument, DeviceBuffer, Gpu, Launch, elements};
use crate::{DType, Result, error::argument, tensor::Shape};

/// Elements in a device's memory. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct CudaTensor {
    buffer: Arc<DeviceBuffer>,
    /// The first element's place in the buffer, in bytes.
    start: usize,
    shape: Shape,
    dtype: DType,
}

impl CudaTensor {
    /// Arbitrary elements, in memory that `allocate` gives.
    pub(super) fn new(
        shape: &[usize],
        dtype: DType,
        allocate: impl FnOnce(usize) -> Result<DeviceBuffer>,
    ) -> Result<Self> {
        if !matches!(dtype, DType::F32 | DType::BF16 | DType::U32) {
            return Err(argument("tensor", "dtype", dtype, "F32, BF16 or U32"));
        }
        let bytes = shape.iter().try_fold(dtype.size_in_bytes(), |n, &dim| n.checked_mul(dim));
        let buffer = allocate(bytes.unwrap_or(usize::MAX))?;
        Ok(Self { buffer: Arc::new(buffer), start: 0, shape: Shape::new(shape)?, dtype })
    }

    /// The device it lies on.
    pub(crate) fn gpu(&self) -> &Arc<Gpu> {
        self.buffer.gpu()
    }

    pub(crate) fn shape(&self) -> &[usize] {
        self.shape.dims()
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// The number of its elements.
    pub(crate) fn len(&self) -> usize {
        self.shape().iter().product()
    }

    pub(crate) fn size_in_bytes(&self) -> usize {
        self.len() * self.dtype.size_in_bytes()
    }

    /// The address of its first element. Kernels may count on an alignment of 16 bytes when this is a whole tensor, or
    /// rows of one whose rows are multiples of 16 bytes.
    pub(crate) fn address(&self) -> u64 {
        self.buffer.address() + self.start as u64
    }

    /// Whether its first element lies at a multiple of 16 bytes.
    pub(crate) fn is_aligned(&self) -> bool {
        self.address().is_multiple_of(16)
    }

    pub(super) fn buffer(&self) -> &DeviceBuffer {
        &self.buffer
    }

    /// The same elements with no other owner, for a kernel that writes in place: itself, or a copy.
    ///
    /// # Errors
    /// When the device has no room.
    pub(crate) fn into_sole(mut self) -> Result<Self> {
        if Arc::get_mut(&mut self.buffer).is_some() {
            return Ok(self);
        }
        self.copy()
    }

    /// The same elements in a buffer of their own.
    ///
    /// # Errors
    /// When the device has no room.
    pub(crate) fn copy(&self) -> Result<Self> {
        let copy = self.gpu().uninitialised(self.shape(), self.dtype)?;
        copy.buffer.copy_from(0, &self.buffer, self.start, self.size_in_bytes())?;
        Ok(copy)
    }

    /// Copies `part`, whose rows are as its own, over its rows from `row` on.
    ///
    /// # Errors
    /// [`crate::cuda::Failure::Range`] when they reach outside; otherwise when the device fails.
    pub(crate) fn set_rows(&self, row: usize, part: &Self) -> Result<()> {
        let row_bytes = self.shape()[1..].iter().product::<usize>() * self.dtype.size_in_bytes();
        let start = self.start + row * row_bytes;
        self.buffer.copy_from(start, &part.buffer, part.start, part.size_in_bytes())
    }

    /// Its elements as bytes.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.size_in_bytes()];
        self.buffer.read(self.start, &mut bytes)?;
        Ok(bytes)
    }

    /// Its elements, widened to f32 where they are bf16.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when they are integers; otherwise when the device fails.
    pub(crate) fn to_f32_vec(&self) -> Result<Vec<f32>> {
        let bytes = self.to_bytes()?;
        match self.dtype {
            DType::F32 => {
                Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
            }
            DType::BF16 => Ok(bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|bytes| half::bf16::from_le_bytes(*bytes).to_f32())
                .collect()),
            other => Err(argument("tensor", "dtype", other, "F32 or BF16")),
        }
    }

    /// Its elements as integers.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when they are not; otherwise when the device fails.
    pub(crate) fn to_u32_vec(&self) -> Result<Vec<u32>> {
        if self.dtype != DType::U32 {
            return Err(argument("tensor", "dtype", self.dtype, "U32"));
        }
        let bytes = self.to_bytes()?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
    }

    /// Sets all bits to zero.
    pub(crate) fn clear(&self) -> Result<()> {
        self.buffer.fill(0)
    }

    /// Replaces its integers, which may be fewer than there is room for; what was asked for before still sees the old
    /// ones.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when there is no room; otherwise when the device fails.
    pub(crate) fn set_integers(&self, values: &[u32]) -> Result<()> {
        if self.dtype != DType::U32 || values.len() > self.len() {
            let expected = format!("at most {} integers", self.len());
            return Err(argument("tensor", "values", values.len(), expected));
        }
        self.buffer.write(self.start, bytemuck::cast_slice(values))
    }

    /// Replaces its bytes, of which there may be more; what was asked for before still sees the old ones.
    ///
    /// # Errors
    /// [`super::Failure::Range`] when there are fewer; otherwise when the device fails.
    pub(crate) fn write_bytes(&self, bytes: &[u8]) -> Result<()> {
        self.buffer.write(self.start, bytes)
    }

    /// Replaces all its bytes by those that `fill(start, piece)` writes, see [`super::Driver::upload_with`].
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn write_with(&self, unit: usize, fill: &mut dyn FnMut(usize, &mut [u8])) -> Result<()> {
        self.buffer.write_with(self.start, self.size_in_bytes(), unit, fill)
    }

    /// Replaces its first elements by those of `from`, another tensor of the same type that is no longer.
    ///
    /// # Errors
    /// [`super::Failure::Range`] when it is; otherwise when the device fails.
    pub(crate) fn overwrite(&self, from: &Self) -> Result<()> {
        self.buffer.copy_from(self.start, &from.buffer, from.start, from.size_in_bytes())
    }

    /// The same elements under another shape with as many.
    pub(crate) fn reshape(&self, shape: &[usize]) -> Result<Self> {
        Ok(Self { shape: Shape::new(shape)?, ..self.clone() })
    }

    /// `len` entries of dimension `dim` from `start` on, which lie within it. Where they lie side by side, nothing is
    /// copied.
    pub(crate) fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Self> {
        let dims = self.shape();
        let size = self.dtype.size_in_bytes();
        let inner = dims[dim + 1..].iter().product::<usize>() * size;
        let outer: usize = dims[..dim].iter().product();
        let shape = self.shape.with(dim, len);
        if outer <= 1 {
            let start = self.start + outer * start * inner;
            return Ok(Self { buffer: self.buffer.clone(), start, shape, dtype: self.dtype });
        }
        let to = self.gpu().uninitialised(shape.dims(), self.dtype)?;
        let units = |bytes: usize| (bytes / size) as u64;
        let arguments = [
            Argument::address(self.address() + (start * inner) as u64),
            Argument::from(&to),
            Argument::of(units(dims[dim] * inner)),
            Argument::of(units(len * inner)),
            Argument::of(to.len() as u64),
        ];
        let kernel = if size == 2 { "copy_columns_16" } else { "copy_columns_32" };
        to.gpu().launch(kernel, Launch::over(to.len()), &arguments)?;
        Ok(to)
    }

    /// The same numbers in another floating point type, rounded to nearest even.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when either type is not F32 or BF16; otherwise when the device has no room.
    pub(crate) fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let kernel = match (self.dtype, dtype) {
            (from, to) if from == to => return Ok(self.clone()),
            (DType::F32, DType::BF16) => "narrow_to_bf16",
            (DType::BF16, DType::F32) => "widen_to_f32",
            (from, to) => return Err(argument("tensor", "dtype", (from, to), "F32 and BF16")),
        };
        let to = self.gpu().uninitialised(self.shape(), dtype)?;
        elements::launch(kernel, &[self, &to])?;
        Ok(to)
    }

    /// An error naming `op` and `what` unless the elements are of type `expected`.
    pub(crate) fn expect_dtype(&self, op: &'static str, what: &'static str, expected: DType) -> Result<()> {
        if self.dtype == expected {
            return Ok(());
        }
        Err(argument(op, what, self.dtype, format!("{expected:?}")))
    }
}

impl From<&CudaTensor> for Argument {
    fn from(tensor: &CudaTensor) -> Self {
        Self::address(tensor.address())
    }
}

impl Launch {
    /// One thread for each of `n` elements, of which the kernel takes more than one where the grid has an end.
    pub(crate) fn over(n: usize) -> Self {
        let blocks = n.div_ceil(256).min(1 << 20) as u32;
        Self { grid: [blocks, 1, 1], block: [256, 1, 1], shared_bytes: 0 }
    }
}
