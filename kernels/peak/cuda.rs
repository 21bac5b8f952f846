//! The limits of a CUDA device: what a copy within its memory moves, and what its matrix instructions give.

use std::{sync::Arc, time::Instant};

use super::best;
use crate::{
    DType, Result,
    cuda::{Argument, Gpu, Launch},
};

/// Far more than any second-level cache holds.
const COPY_BYTES: usize = 1 << 30;
/// Copies of one run: what it takes to start them is then nothing beside them.
const COPIES: usize = 8;
/// Operations of a block in one step of the kernel, see `peak.cu`.
const OPERATIONS_A_STEP: f64 = (1 << 20) as f64;
const THREADS: u32 = 256;
/// Two tiles of 64 rows and one of 256, of 128 bytes each: Hopper's factors.
const SHARED_BYTES: u32 = (2 * 64 + 256) * 128;
/// A run of the kernel takes some milliseconds on the fastest device and some tens on the slowest.
const STEPS: u32 = 1 << 15;

/// Bytes a second that a copy reads and writes, both counted.
///
/// # Errors
/// When the device has no room for two buffers, or fails.
pub(super) fn copy(gpu: &Arc<Gpu>, runs: usize) -> Result<f64> {
    let bytes = copy_bytes(gpu.driver().memory()?.free);
    let (from, to) = (gpu.allocate(bytes)?, gpu.allocate(bytes)?);
    // Memory that was never written may be no memory yet.
    from.fill(1)?;
    to.fill(2)?;
    let run = || -> Result<f64> {
        gpu.driver().synchronize()?;
        let started = Instant::now();
        for _ in 0..COPIES {
            to.copy_from(0, &from, 0, bytes)?;
        }
        gpu.driver().synchronize()?;
        Ok((2 * bytes * COPIES) as f64 / started.elapsed().as_secs_f64())
    };
    best_of(runs, run)
}

/// Operations a second of products of bf16 matrices with sums in f32.
///
/// # Errors
/// When the device fails.
pub(super) fn matrix(gpu: &Arc<Gpu>, runs: usize) -> Result<f64> {
    // The first run loads the kernel and wakes the device.
    matrix_of(gpu, STEPS)?;
    best_of(runs, || matrix_of(gpu, STEPS))
}

fn matrix_of(gpu: &Arc<Gpu>, steps: u32) -> Result<f64> {
    let launch = geometry(gpu.driver().facts().multiprocessors);
    let threads = (launch.grid[0] * THREADS) as usize;
    let out = gpu.uninitialised(&[threads], DType::F32)?;
    gpu.driver().synchronize()?;
    let started = Instant::now();
    gpu.launch("peak_matrix", launch, &[Argument::from(&out), Argument::u32(steps)])?;
    gpu.driver().synchronize()?;
    let operations = f64::from(launch.grid[0]) * f64::from(steps) * OPERATIONS_A_STEP;
    Ok(operations / started.elapsed().as_secs_f64())
}

/// Two blocks for each multiprocessor.
fn geometry(multiprocessors: u32) -> Launch {
    Launch { grid: [2 * multiprocessors, 1, 1], block: [THREADS, 1, 1], shared_bytes: SHARED_BYTES }
}

/// The size of each of two buffers: half of what is free at most, in whole MiB.
fn copy_bytes(free: usize) -> usize {
    (free / 4).min(COPY_BYTES) >> 20 << 20
}

fn best_of(runs: usize, mut run: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut failure = None;
    let found = best(runs, || {
        run().unwrap_or_else(|error| {
            failure = Some(error);
            0.0
        })
    });
    failure.map_or(Ok(found), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_and_buffers_fit() {
        assert_eq!(geometry(132).grid, [264, 1, 1]);
        // An RTX 4090 gives a block 99 KiB; two blocks share a multiprocessor of the others.
        const { assert!(SHARED_BYTES <= 99 << 10) };
        for (free, expected) in [(80 << 30, 1 << 30), (1 << 30, 256 << 20), (3 << 20, 0)] {
            assert_eq!(copy_bytes(free), expected, "{free}");
        }
    }
}
