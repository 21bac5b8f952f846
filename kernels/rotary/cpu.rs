//! The rotation of one head over slices, for operations that rotate while they read.

use crate::vectorised::multiply_add;

/// `out = x · cos + rotate_half(x) · sin`; all `(head_dim)`, an even number.
#[inline(always)]
pub(crate) fn rotate<const FUSED: bool>(x: &[f32], (cos, sin): (&[f32], &[f32]), out: &mut [f32]) {
    let half = x.len() / 2;
    let ((a, b), (first, second)) = (x.split_at(half), out.split_at_mut(half));
    let ((cos_a, cos_b), (sin_a, sin_b)) = (cos.split_at(half), sin.split_at(half));
    for i in 0..half {
        first[i] = multiply_add::<FUSED>(a[i], cos_a[i], -(b[i] * sin_a[i]));
        second[i] = multiply_add::<FUSED>(b[i], cos_b[i], a[i] * sin_b[i]);
    }
}
