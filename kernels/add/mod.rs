//! Addition of two tensors of one shape: the residual connections.

mod reference;

pub use reference::forward as reference;

use crate::{Result, Tensor};

/// `a + b`, both of one shape, f32.
///
/// # Errors
/// [`crate::Error::Argument`] when the shapes differ.
pub fn forward(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    b.expect_shape("add", "b", a.shape())?;
    reference::forward(a, b)
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
        let error = forward(&a, &testing::tensor(2, &[1, 4])).unwrap_err();
        assert_eq!(error.to_string(), "add: b is [1, 4], expected [3, 4]");
    }
}
