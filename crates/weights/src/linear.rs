//! A linear layer, whatever its weight is stored in.

use ocellus_kernels::{
    Precision, Tensor,
    linear::{self, Weight},
};

/// `y = x · Wᵀ + b`. Clones share the weight.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

/// What a model knows of a linear layer before it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearShape {
    /// The length of a row of the output.
    pub out_features: usize,
    /// The length of a row of the input.
    pub in_features: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

impl Linear {
    pub(crate) fn new(weight: Weight, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// `x: (tokens, in_features)` gives `(tokens, out_features)`, in the type that activations have on the device.
    ///
    /// # Errors
    /// [`ocellus_kernels::Error::Argument`] when `x` has another shape; otherwise when the device fails.
    pub fn forward(&self, x: &Tensor) -> ocellus_kernels::Result<Tensor> {
        linear::forward(x, &self.weight, self.bias.as_ref())
    }

    /// The same in f32 on every device: for logits, and for what layers add to.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_f32(&self, x: &Tensor) -> ocellus_kernels::Result<Tensor> {
        linear::forward_f32(x, &self.weight, self.bias.as_ref())
    }

    /// `gelu` of [`Linear::forward`], the exact one.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_gelu(&self, x: &Tensor) -> ocellus_kernels::Result<Tensor> {
        linear::forward_gelu(x, &self.weight, self.bias.as_ref())
    }

    /// `residual + x · Wᵀ + b`, written over the residual when nobody else has it. Both are f32, `(tokens, …)`.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_add(&self, x: &Tensor, residual: Tensor) -> ocellus_kernels::Result<Tensor> {
        linear::forward_add(x, &self.weight, self.bias.as_ref(), residual)
    }

    /// `silu(gate) · up` of the two layers that [`crate::Scope::gate_up`] put together: `(tokens, in_features)` f32
    /// gives `(tokens, out_features / 2)` f32.
    ///
    /// # Errors
    /// As [`Linear::forward`], and when it is not such a layer.
    pub fn swiglu(&self, x: &Tensor) -> ocellus_kernels::Result<Tensor> {
        linear::swiglu(x, &self.weight, self.bias.as_ref())
    }

    /// The arithmetic that fits around this layer.
    pub fn precision(&self) -> Precision {
        self.weight.precision()
    }

    /// Its dimensions.
    pub fn shape(&self) -> LinearShape {
        LinearShape {
            out_features: self.weight.rows(),
            in_features: self.weight.cols(),
            bias: self.bias.is_some(),
        }
    }

    /// The size of weight and bias in memory, in bytes: what a product with a single row has to read.
    pub fn bytes(&self) -> usize {
        let bias_bytes = self.bias.as_ref().map_or(0, |bias| bias.dim(0) * bias.dtype().size_in_bytes());
        self.weight.size_in_bytes() + bias_bytes
    }
}
