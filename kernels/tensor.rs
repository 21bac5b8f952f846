//! The tensor that every crate above sees: shape, dtype, and storage that only this crate looks into.

pub use candle_core::DType;

use crate::{
    Device, Error, Result,
    buffer::Buffer,
    cuda::{CudaTensor, fall_back},
    error::argument,
};

/// A dense, row-major array on a device. Clones share the storage; tensors are never written in place,
/// except the caches of [`crate::kv_cache`].
#[derive(Clone, Debug)]
pub struct Tensor {
    storage: Storage,
}

/// What holds the elements. Each operation matches on this, so the compiler lists every place that has to
/// learn of a new one.
#[derive(Clone, Debug)]
pub(crate) enum Storage {
    /// The processor: f32 in buffers of our own.
    Host(HostTensor),
    /// Apple's GPU, and what the references compute with.
    Candle(candle_core::Tensor),
    /// NVIDIA's GPUs: f32 or bf16 in their memory.
    Cuda(CudaTensor),
}

/// f32 elements on the host, row-major without gaps.
#[derive(Clone, Debug)]
pub(crate) struct HostTensor {
    buffer: Buffer,
    /// The first element's place in the buffer.
    start: usize,
    shape: Shape,
}

/// Up to four dimensions, kept in place: tensors come and go without asking for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    dims: [usize; 4],
    rank: usize,
}

impl Tensor {
    /// A tensor of f32 from host memory.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when `data` has not as many elements as `shape`.
    pub fn from_f32(data: Vec<f32>, shape: &[usize], device: &Device) -> Result<Self> {
        if Some(data.len()) != elements(shape) {
            return Err(argument("tensor", "data", data.len(), format!("elements for shape {shape:?}")));
        }
        if device.is_host() {
            return Self::host(shape, |values| values.copy_from_slice(&data));
        }
        if let Some(gpu) = device.gpu() {
            return Ok(gpu.tensor_f32(&data, shape)?.into());
        }
        Ok(candle_core::Tensor::from_vec(data, shape, &device.candle())?.into())
    }

    /// Zeros of f32.
    ///
    /// # Errors
    /// [`Error::Memory`] when the device has no room; the process goes on, however absurd the shape is.
    pub fn zeros(shape: &[usize], device: &Device) -> Result<Self> {
        if device.is_host() {
            let bytes = || elements(shape).unwrap_or(usize::MAX).saturating_mul(size_of::<f32>());
            return Self::host(shape, |values| values.fill(0.0)).map_err(|error| match error {
                Error::Memory { .. } => Error::Memory { what: "a tensor of zeros", bytes: bytes() },
                other => other,
            });
        }
        if let Some(gpu) = device.gpu() {
            let zeros = gpu.uninitialised(shape, DType::F32)?;
            zeros.clear()?;
            return Ok(zeros.into());
        }
        Ok(candle_core::Tensor::zeros(shape, DType::F32, &device.candle())?.into())
    }

    /// The elements as f32 in row-major order, copied to the host.
    ///
    /// # Errors
    /// When the device fails.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>> {
        match &self.storage {
            Storage::Host(t) => Ok(t.as_slice().to_vec()),
            Storage::Candle(t) => Ok(t.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?),
            Storage::Cuda(t) => t.to_f32_vec(),
        }
    }

    /// The length of each dimension.
    pub fn shape(&self) -> &[usize] {
        match &self.storage {
            Storage::Host(t) => t.shape.dims(),
            Storage::Candle(t) => t.dims(),
            Storage::Cuda(t) => t.shape(),
        }
    }

    /// The length of dimension `dim`, 1 when there is no such dimension.
    pub fn dim(&self, dim: usize) -> usize {
        self.shape().get(dim).copied().unwrap_or(1)
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match &self.storage {
            Storage::Host(_) => DType::F32,
            Storage::Candle(t) => t.dtype(),
            Storage::Cuda(t) => t.dtype(),
        }
    }

    /// Where it lies.
    pub fn device(&self) -> Device {
        match &self.storage {
            Storage::Host(_) => Device::cpu(),
            Storage::Candle(t) => Device::from_candle(t.device().clone()),
            Storage::Cuda(t) => Device::from_gpu(t.gpu().clone()),
        }
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        if elements(shape) != elements(self.shape()) {
            return Err(argument("reshape", "shape", shape, format!("the elements of {:?}", self.shape())));
        }
        match &self.storage {
            Storage::Host(t) => Ok(HostTensor { shape: Shape::new(shape)?, ..t.clone() }.into()),
            Storage::Candle(t) => Ok(t.reshape(shape)?.into()),
            Storage::Cuda(t) => Ok(t.reshape(shape)?.into()),
        }
    }

    /// `len` entries of dimension `dim` from `start` on.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when they reach outside.
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Self> {
        let end = start.checked_add(len);
        if dim >= self.shape().len() || end.is_none_or(|end| end > self.dim(dim)) {
            return Err(argument("narrow", "range", (dim, start, len), format!("within {:?}", self.shape())));
        }
        match &self.storage {
            Storage::Host(t) => t.narrow(dim, start, len),
            Storage::Candle(t) => Ok(t.narrow(dim, start, len)?.into()),
            Storage::Cuda(t) => Ok(t.narrow(dim, start, len)?.into()),
        }
    }

    /// A new tensor on the host; `fill` gets its elements, whose values are arbitrary before.
    pub(crate) fn host(shape: &[usize], fill: impl FnOnce(&mut [f32])) -> Result<Self> {
        Ok(HostTensor::new(shape, fill)?.into())
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    pub(crate) fn into_storage(self) -> Storage {
        self.storage
    }

    /// The elements when they lie on the host.
    pub(crate) fn as_host(&self) -> Option<&[f32]> {
        match &self.storage {
            Storage::Host(t) => Some(t.as_slice()),
            Storage::Candle(_) | Storage::Cuda(_) => None,
        }
    }

    /// The elements when they lie in a CUDA device's memory.
    #[allow(dead_code)]
    pub(crate) fn as_cuda(&self) -> Option<&CudaTensor> {
        match &self.storage {
            Storage::Cuda(t) => Some(t),
            Storage::Host(_) | Storage::Candle(_) => None,
        }
    }

    /// The same elements in another floating point type. On the host all tensors are f32.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when the storage has no such type.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        match &self.storage {
            Storage::Host(_) if dtype == DType::F32 => Ok(self.clone()),
            Storage::Host(_) => Err(argument("tensor", "dtype", dtype, "F32 on the host")),
            Storage::Candle(t) => Ok(t.to_dtype(dtype)?.into()),
            Storage::Cuda(t) => Ok(t.to_dtype(dtype)?.into()),
        }
    }

    /// The same elements for candle, for references: what lies in our own buffers is copied, and from a CUDA device to
    /// the host, widened to f32.
    pub(crate) fn to_candle(&self) -> Result<candle_core::Tensor> {
        match &self.storage {
            Storage::Host(t) => {
                Ok(candle_core::Tensor::from_slice(t.as_slice(), t.shape.dims(), &candle_core::Device::Cpu)?)
            }
            Storage::Candle(t) => Ok(t.clone()),
            Storage::Cuda(t) => {
                Ok(candle_core::Tensor::from_vec(t.to_f32_vec()?, t.shape(), &candle_core::Device::Cpu)?)
            }
        }
    }

    /// `result`, which the reference of `op` gave, in the kind of storage that this tensor has, and in its type.
    pub(crate) fn alike(&self, op: &'static str, result: Self) -> Result<Self> {
        match (&self.storage, &result.storage) {
            (Storage::Cuda(t), Storage::Host(_) | Storage::Candle(_)) => {
                fall_back(op);
                let result = t.gpu().tensor_f32(&result.to_f32_vec()?, result.shape())?;
                Ok(result.to_dtype(t.dtype())?.into())
            }
            (Storage::Host(_), Storage::Candle(_)) => {
                let values = result.to_f32_vec()?;
                Self::host(result.shape(), |to| to.copy_from_slice(&values))
            }
            _ => Ok(result),
        }
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

impl From<CudaTensor> for Tensor {
    fn from(t: CudaTensor) -> Self {
        Self { storage: Storage::Cuda(t) }
    }
}

impl From<HostTensor> for Tensor {
    fn from(t: HostTensor) -> Self {
        Self { storage: Storage::Host(t) }
    }
}

impl HostTensor {
    pub(crate) fn new(shape: &[usize], fill: impl FnOnce(&mut [f32])) -> Result<Self> {
        let no_room = || Error::Memory { what: "activations", bytes: usize::MAX };
        let len = elements(shape).ok_or_else(no_room)?;
        let mut buffer = Buffer::new(len)?;
        let room = buffer.as_mut_slice().and_then(|all| all.get_mut(..len));
        fill(room.ok_or_else(no_room)?);
        Ok(Self { buffer, start: 0, shape: Shape::new(shape)? })
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        &self.buffer.as_slice()[self.start..self.start + self.len()]
    }

    fn len(&self) -> usize {
        self.shape.dims().iter().product()
    }

    /// The same elements with no other owner: itself, or a copy.
    pub(crate) fn into_sole(mut self) -> Result<Self> {
        if self.buffer.as_mut_slice().is_some() {
            return Ok(self);
        }
        Self::new(self.shape.dims(), |values| values.copy_from_slice(self.as_slice()))
    }

    /// The elements to write to; none when they are shared, which [`HostTensor::into_sole`] prevents.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        let (start, len) = (self.start, self.len());
        self.buffer.as_mut_slice().and_then(|all| all.get_mut(start..start + len)).unwrap_or_default()
    }

    fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Tensor> {
        let shape = self.shape.with(dim, len);
        let dims = self.shape.dims();
        let inner: usize = dims[dim + 1..].iter().product();
        let outer: usize = dims[..dim].iter().product();
        if outer <= 1 {
            // A range of the buffer; nothing of nothing is anywhere.
            let start = self.start + outer * start * inner;
            return Ok(Self { buffer: self.buffer.clone(), start, shape }.into());
        }
        let row = dims[dim] * inner;
        Tensor::host(shape.dims(), |to| {
            for (to, from) in
                to.chunks_exact_mut((len * inner).max(1)).zip(self.as_slice().chunks_exact(row.max(1)))
            {
                to.copy_from_slice(&from[start * inner..(start + len) * inner]);
            }
        })
    }
}

impl Shape {
    pub(crate) fn new(dims: &[usize]) -> Result<Self> {
        let mut shape = Self { dims: [1; 4], rank: dims.len() };
        match shape.dims.get_mut(..dims.len()) {
            Some(to) => to.copy_from_slice(dims),
            None => return Err(argument("tensor", "shape", dims, "at most 4 dimensions")),
        }
        Ok(shape)
    }

    pub(crate) fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// The same shape with `len` entries in dimension `dim`, which it has.
    pub(crate) fn with(mut self, dim: usize, len: usize) -> Self {
        self.dims[dim] = len;
        self
    }
}

/// The number of elements, unless it is beyond all counting.
fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1, |len: usize, &dim| len.checked_mul(dim))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

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

    #[test]
    fn narrowing_equals_candles() {
        let x = testing::tensor(1, &[3, 4, 5]);
        let reference: Tensor = x.to_candle().unwrap().into();
        for (dim, start, len) in [(0, 1, 2), (1, 0, 4), (1, 1, 2), (2, 4, 1), (2, 2, 0), (0, 3, 0)] {
            let found = x.narrow(dim, start, len).unwrap();
            testing::assert_close("narrow", &found, &reference.narrow(dim, start, len).unwrap(), 0.0);
            // A part of a part.
            if len > 1 {
                let again = found.narrow(dim, 1, 1).unwrap();
                testing::assert_close("again", &again, &reference.narrow(dim, start + 1, 1).unwrap(), 0.0);
            }
        }
        assert_eq!(testing::tensor(1, &[0, 5]).narrow(1, 3, 2).unwrap().shape(), [0, 2]);
        assert!(x.narrow(0, 2, 2).is_err());
        assert!(x.narrow(0, usize::MAX, 2).is_err());
        assert!(x.narrow(3, 0, 1).is_err());
    }

    #[test]
    fn more_than_four_dimensions_are_refused() {
        assert!(testing::tensor(1, &[2, 3]).reshape(&[1, 2, 1, 3, 1]).is_err());
    }
}
