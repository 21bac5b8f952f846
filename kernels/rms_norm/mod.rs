//! Root mean square normalisation over the last dimension: `w · x / √(mean(x²) + eps)`
//! (Zhang and Sennrich, <https://arxiv.org/abs/1910.07467>), in f32.

pub(crate) mod cpu;
mod cuda;
mod reference;

pub use reference::forward as reference;

use crate::{Result, Storage, Tensor, processor::Isa};

const OP: &str = "rms_norm";

/// `x: (tokens, features)`, `weight: (features)`; gives `(tokens, features)`, on a CUDA device as bf16.
///
/// # Errors
/// [`crate::Error::Argument`] when shapes disagree.
pub fn forward(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let [_, features] = x.dims(OP, "x")?;
    weight.expect_shape(OP, "weight", &[features])?;
    match (x.storage(), weight.storage()) {
        (Storage::Host(values), Storage::Host(weight)) => {
            let (values, weight) = (values.as_slice(), weight.as_slice());
            Tensor::host(x.shape(), |out| cpu::forward(Isa::current(), values, weight, eps, out))
        }
        (Storage::Cuda(x), Storage::Cuda(weight)) => Ok(cuda::forward(x, weight, eps)?.into()),
        _ => x.alike(OP, reference::forward(x, weight, eps)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn equals_the_formula_in_f64() {
        for (tokens, features) in [(1, 1), (3, 48), (65, 80), (2, 3584)] {
            let (x, weight) = (testing::tensor(1, &[tokens, features]), testing::tensor(2, &[features]));
            let values = x.to_f32_vec().unwrap();
            let weights = weight.to_f32_vec().unwrap();
            let expected: Vec<f32> = values
                .chunks_exact(features)
                .flat_map(|row| {
                    let mean = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / features as f64;
                    let scale = (mean + 1e-6).sqrt().recip();
                    row.iter().zip(&weights).map(move |(&v, &w)| (f64::from(v) * scale * f64::from(w)) as f32)
                })
                .collect();
            let found = forward(&x, &weight, 1e-6).unwrap().to_f32_vec().unwrap();
            // A handful of f32 roundings of numbers below 4.
            testing::assert_values("rms_norm", &found, &expected, 4e-6);
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        let x = Tensor::zeros(&[2, 8], &crate::Device::cpu()).unwrap();
        let found = forward(&x, &testing::tensor(2, &[8]), 1e-6).unwrap().to_f32_vec().unwrap();
        assert!(found.iter().all(|&v| v == 0.0));
    }
}
