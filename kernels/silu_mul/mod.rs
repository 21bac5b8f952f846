//! The gate of a SwiGLU feed-forward layer: `silu(gate) · up` with `silu(x) = x / (1 + e⁻ˣ)`
//! (Shazeer, <https://arxiv.org/abs/2002.05202>).

pub(crate) mod cpu;
mod cuda;
mod reference;

pub use reference::forward as reference;

use crate::{Result, Storage, Tensor, processor::Isa};

const OP: &str = "silu_mul";

/// `silu(gate) · up`, both of one shape and type: f32, or on a CUDA device bf16.
///
/// # Errors
/// [`crate::Error::Argument`] when the shapes differ.
pub fn forward(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    up.expect_shape(OP, "up", gate.shape())?;
    match (gate.storage(), up.storage()) {
        (Storage::Host(g), Storage::Host(u)) => {
            let (g, u) = (g.as_slice(), u.as_slice());
            Tensor::host(gate.shape(), |out| cpu::forward(Isa::current(), g, u, out))
        }
        (Storage::Cuda(gate), Storage::Cuda(up)) => Ok(cuda::forward(gate, up)?.into()),
        _ => gate.alike(OP, reference::forward(gate, up)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn equals_the_formula_in_f64() {
        let (gate, up) = (testing::tensor(1, &[5, 7]), testing::tensor(2, &[5, 7]));
        let formula = |(&g, &u): (&f32, &f32)| {
            let g = f64::from(g);
            (g / (1.0 + (-g).exp()) * f64::from(u)) as f32
        };
        let expected: Vec<f32> =
            gate.to_f32_vec().unwrap().iter().zip(&up.to_f32_vec().unwrap()).map(formula).collect();
        // Three f32 roundings of numbers below 1.
        testing::assert_values(
            "silu_mul",
            &forward(&gate, &up).unwrap().to_f32_vec().unwrap(),
            &expected,
            2e-7,
        );
    }

    #[test]
    fn shapes_must_be_equal() {
        let error = forward(&testing::tensor(1, &[5, 7]), &testing::tensor(2, &[7, 5])).unwrap_err();
        assert_eq!(error.to_string(), "silu_mul: up is [7, 5], expected [5, 7]");
    }
}
