//! Attention on a CUDA device: launches of the kernels beside this folder, whose own files say how they compute.

pub(crate) mod causal;
pub(crate) mod varlen;

use crate::{Result, error::argument};

/// Threads of a block of any of the kernels.
const THREADS: u32 = 128;
/// Rows of a tile of queries, and of a tile of keys.
const TILE: [usize; 2] = [128, 64];
/// Heads up to this width stay in registers, and lie in shared memory only where keys come later.
const HELD: usize = 80;

/// Bytes from one row to the next in shared memory.
fn stride(head_dim: usize) -> usize {
    2 * head_dim + 16
}

/// Shared memory of the kernels that go through tiles, in bytes.
fn tiled_bytes(head_dim: usize) -> u32 {
    let [queries, keys] = TILE;
    let rows = if head_dim <= HELD { queries.max(2 * keys) } else { queries + 2 * keys };
    (rows * stride(head_dim)) as u32
}

/// The running maximum is of scores that are not yet scaled, so it takes a positive scale.
fn check_scale(op: &'static str, scale: f32) -> Result<()> {
    if scale > 0.0 && scale.is_finite() {
        return Ok(());
    }
    Err(argument(op, "scale", scale, "a positive number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_into_a_block() {
        for (head_dim, bytes) in [(16, 6144), (32, 10_240), (64, 18_432), (80, 22_528), (128, 69_632)] {
            assert_eq!(tiled_bytes(head_dim), bytes, "{head_dim}");
        }
        // Devices of compute capability 8.6 and 8.9 have the least: 99 KiB for a block.
        assert!(tiled_bytes(128) <= 99 << 10);
    }

    #[test]
    fn only_a_positive_scale_is_taken() {
        assert!(check_scale("attention", 0.1).is_ok());
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(check_scale("attention", scale).is_err(), "{scale}");
        }
    }
}
