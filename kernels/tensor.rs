//! The tensor that every crate above sees: shape, dtype, and storage that only this crate looks into.

pub use candle_core::DType;

use crate::{Device, Error, Result, error::argument};

/// A dense, row-major array on a device. Clones share the storage; tensors are never written in place,
/// except the caches of [`crate::kv_cache`].
#[derive(Clone, Debug)]
pub struct Tensor {
    storage: Storage,
}

/// What holds the elements. CUDA buffers of our own become a second variant: each operation matches on
/// this, so the compiler then lists every place that has to learn of it.
#[derive(Clone, Debug)]
pub(crate) enum Storage {
    /// The processor, or Apple's GPU.
    Candle(candle_core::Tensor),
}

impl Tensor {
    /// A tensor of f32 from host memory.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when `data` has not as many elements as `shape`.
    pub fn from_f32(data: Vec<f32>, shape: &[usize], device: &Device) -> Result<Self> {
        if data.len() != shape.iter().product::<usize>() {
            return Err(argument("tensor", "data", data.len(), format!("elements for shape {shape:?}")));
        }
        Ok(candle_core::Tensor::from_vec(data, shape, &device.candle)?.into())
    }

    /// Zeros of f32. Host memory is taken lazily: pages cost nothing before they are written.
    ///
    /// # Errors
    /// [`Error::Memory`] when the device has no room; the process goes on, however absurd the shape is.
    pub fn zeros(shape: &[usize], device: &Device) -> Result<Self> {
        if device.is_host() {
            let len = shape.iter().try_fold(1, |len: usize, &dim| len.checked_mul(dim));
            let zeros = len.and_then(|len| bytemuck::allocation::try_zeroed_vec(len).ok());
            let bytes = len.unwrap_or(usize::MAX).saturating_mul(size_of::<f32>());
            return Self::from_f32(
                zeros.ok_or(Error::Memory { what: "a tensor of zeros", bytes })?,
                shape,
                device,
            );
        }
        Ok(candle_core::Tensor::zeros(shape, DType::F32, &device.candle)?.into())
    }

    /// The elements as f32 in row-major order, copied to the host.
    ///
    /// # Errors
    /// When the device fails.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>> {
        match &self.storage {
            Storage::Candle(t) => Ok(t.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?),
        }
    }

    /// The length of each dimension.
    pub fn shape(&self) -> &[usize] {
        match &self.storage {
            Storage::Candle(t) => t.dims(),
        }
    }

    /// The length of dimension `dim`, 1 when there is no such dimension.
    pub fn dim(&self, dim: usize) -> usize {
        self.shape().get(dim).copied().unwrap_or(1)
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match &self.storage {
            Storage::Candle(t) => t.dtype(),
        }
    }

    /// Where it lies.
    pub fn device(&self) -> Device {
        match &self.storage {
            Storage::Candle(t) => Device { candle: t.device().clone() },
        }
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != self.shape().iter().product::<usize>() {
            return Err(argument("reshape", "shape", shape, format!("the elements of {:?}", self.shape())));
        }
        match &self.storage {
            Storage::Candle(t) => Ok(t.reshape(shape)?.into()),
        }
    }

    /// `len` entries of dimension `dim` from `start` on.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when they reach outside.
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Self> {
        if dim >= self.shape().len() || start + len > self.dim(dim) {
            return Err(argument("narrow", "range", (dim, start, len), format!("within {:?}", self.shape())));
        }
        match &self.storage {
            Storage::Candle(t) => Ok(t.narrow(dim, start, len)?.into()),
        }
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// An error naming `op` and `what` unless the shape is `expected`.
    pub(crate) fn expect_shape(
        &self,
        op: &'static str,
        what: &'static str,
        expected: &[usize],
    ) -> Result<()> {
        if self.shape() == expected {
            return Ok(());
        }
        Err(argument(op, what, self.shape(), format!("{expected:?}")))
    }

    /// The shape as `N` numbers, or an error naming `op` and `what`.
    pub(crate) fn dims<const N: usize>(&self, op: &'static str, what: &'static str) -> Result<[usize; N]> {
        self.shape().try_into().map_err(|_| argument(op, what, self.shape(), format!("{N} dimensions")))
    }
}

impl From<candle_core::Tensor> for Tensor {
    fn from(t: candle_core::Tensor) -> Self {
        Self { storage: Storage::Candle(t) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_that_no_machine_has_are_refused() {
        let check = |shape: &[usize], bytes: usize| {
            let message = Tensor::zeros(shape, &Device::cpu()).unwrap_err().to_string();
            assert_eq!(message, format!("a tensor of zeros: {bytes} bytes of memory could not be allocated"));
        };
        check(&[1 << 29, 1 << 29], 1 << 60);
        check(&[1 << 31, 1 << 31], usize::MAX);
        check(&[usize::MAX, 2], usize::MAX);
        assert_eq!(Tensor::zeros(&[2, 0], &Device::cpu()).unwrap().shape(), [2, 0]);
        assert_eq!(Tensor::zeros(&[1, 3], &Device::cpu()).unwrap().to_f32_vec().unwrap(), [0.0; 3]);
    }
}
