//! Addition of two tensors of one shape: the residual connections.

pub(crate) mod cpu;
mod cuda;
mod reference;

pub use reference::forward as reference;

use crate::{Result, Storage, Tensor, processor::Isa};

/// `a + b`, both of one shape, f32; on a CUDA device `b` may be bf16.
///
/// # Errors
/// [`crate::Error::Argument`] when the shapes differ.
pub fn forward(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    b.expect_shape("add", "b", a.shape())?;
    match (a.storage(), b.storage()) {
        (Storage::Host(x), Storage::Host(y)) => {
            let (x, y) = (x.as_slice(), y.as_slice());
            Tensor::host(a.shape(), |out| cpu::forward(Isa::current(), x, y, out))
        }
        (Storage::Cuda(a), Storage::Cuda(b)) => Ok(cuda::forward(a, b)?.into()),
        _ => a.alike("add", reference::forward(a, b)?),
    }
}

/// `a + b`, written over `a` when nobody else has it.
///
/// # Errors
/// [`crate::Error::Argument`] when the shapes differ.
pub fn into(a: Tensor, b: &Tensor) -> Result<Tensor> {
    b.expect_shape("add", "b", a.shape())?;
    match (a.into_storage(), b.storage()) {
        (Storage::Host(a), Storage::Host(b)) => {
            let mut sum = a.into_sole()?;
            sum.as_mut_slice().iter_mut().zip(b.as_slice()).for_each(|(a, b)| *a += b);
            Ok(sum.into())
        }
        (Storage::Cuda(a), Storage::Cuda(b)) => Ok(cuda::into(a, b)?.into()),
        (Storage::Host(a), _) => forward(&a.into(), b),
        (Storage::Candle(a), _) => forward(&a.into(), b),
        (Storage::Cuda(a), _) => forward(&a.into(), b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn adds_and_never_broadcasts() {
        let (a, b) = (testing::tensor(1, &[3, 4]), testing::tensor(2, &[3, 4]));
        let sum = forward(&a, &b).unwrap().to_f32_vec().unwrap();
        assert_eq!(sum[5], a.to_f32_vec().unwrap()[5] + b.to_f32_vec().unwrap()[5]);
        let shared = a.clone();
        assert_eq!(into(a.clone(), &b).unwrap().to_f32_vec().unwrap(), sum);
        assert_eq!(shared.to_f32_vec().unwrap(), a.to_f32_vec().unwrap());
        let error = forward(&a, &testing::tensor(2, &[1, 4])).unwrap_err();
        assert_eq!(error.to_string(), "add: b is [1, 4], expected [3, 4]");
    }
}
