//! The limits as plain Rust reaches them, which the compiler vectorises as far as the target's baseline goes.

use std::hint::black_box;

/// The sum of all whole 64-bit words.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks::<8>().0.iter();
    words.fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
}

/// Multiplication and addition of f32, apart, since the baseline may have no instruction for both.
pub(super) fn f32(steps: usize) -> f64 {
    const LANES: usize = 64;
    let (factor, term) = (black_box(0.999_f32), black_box(0.001_f32));
    let mut sums = [1.0_f32; LANES];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = *sum * factor + term;
        }
    }
    black_box(sums);
    2.0 * LANES as f64 * steps as f64
}
