//! The exact Gaussian error linear unit: `x · Φ(x) = x / 2 · (1 + erf(x / √2))`, not its tanh approximation
//! (Hendrycks and Gimpel, <https://arxiv.org/abs/1606.08415>; `nn.GELU()` in the reference's patch merger).

pub(crate) mod cpu;
mod cuda;
mod reference;

pub use reference::forward as reference;

use crate::{Result, Storage, Tensor, processor::Isa};

const OP: &str = "gelu";

/// The unit applied to each element of a f32 tensor of any shape, or on a CUDA device of a bf16 one.
///
/// # Errors
/// When the device fails.
pub fn forward(x: &Tensor) -> Result<Tensor> {
    match x.storage() {
        Storage::Host(values) => {
            Tensor::host(x.shape(), |out| cpu::forward(Isa::current(), values.as_slice(), out))
        }
        Storage::Cuda(x) => Ok(cuda::forward(x)?.into()),
        Storage::Candle(_) => x.alike(OP, reference::forward(x)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn it_is_the_exact_one_and_not_the_tanh_approximation() {
        // x · Φ(x) to the last digit of a f32; the tanh approximation differs by 1.5e-4 at -2 and by 4e-4 at 2.5.
        let table = [
            (-6.0, -5.919_26e-9),
            (-2.0, -0.045_500_26),
            (-0.5, -0.154_268_77),
            (0.0, 0.0),
            (1.0, 0.841_344_8),
            (2.5, 2.484_475_8),
        ];
        let (x, expected): (Vec<f32>, Vec<f32>) = table.into_iter().unzip();
        let n = x.len();
        let found = forward(&Tensor::from_f32(x, &[n], &Device::cpu()).unwrap()).unwrap();
        // Two units in the last place of 2.5.
        crate::testing::assert_values("gelu", &found.to_f32_vec().unwrap(), &expected, 5e-7);
    }
}
