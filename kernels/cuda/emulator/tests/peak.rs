//! The kernel by which a device's matrix peak is measured computes the products that it is said to.

#![allow(clippy::unwrap_used)]

use half::bf16;
use ocellus_cuda_emulator::{Emulator, Options, testing};
use ocellus_kernels::cuda::{Argument, Driver, Launch};

const THREADS: usize = 256;
/// As in kernels/peak/cuda.rs: two tiles of 64 rows and one of 256, of 64 numbers each.
const SHARED_BYTES: usize = (2 * 64 + 256) * 128;

/// As in peak.cu.
fn noise(i: u32) -> f32 {
    let i = (i ^ 61 ^ (i >> 16)).wrapping_mul(9);
    let i = (i ^ (i >> 4)).wrapping_mul(0x27d4_eb2d);
    bf16::from_f32(((i ^ (i >> 15)) & 0xffff) as f32 / 32768.0 - 1.0).to_f32()
}

/// The number at `(row, feature)` of tiles that begin at row 0: rows of 128 bytes, whose pieces of 16 bytes are exchanged.
fn number(row: usize, feature: usize) -> f32 {
    let piece = (feature / 8) ^ (row % 8);
    noise((row * 64 + piece * 8 + feature % 8) as u32)
}

#[test]
fn each_thread_has_the_sum_of_its_products() {
    let options = Options { seed: testing::seed(), capability: (9, 0), ..Options::default() };
    let emulator = Emulator::new(options);
    let (blocks, steps) = (2, 6u32);
    let bytes = blocks * THREADS * 4;
    let out = emulator.allocate(bytes).unwrap();
    let function = emulator.function("peak_matrix").unwrap();
    let launch = Launch {
        grid: [blocks as u32, 1, 1],
        block: [THREADS as u32, 1, 1],
        shared_bytes: SHARED_BYTES as u32,
    };
    let arguments = [Argument::address(out), Argument::u32(steps)];
    let mut found = vec![0u8; bytes];
    // SAFETY: the kernel takes an address with room for a number of each thread, and a count.
    #[allow(unsafe_code)]
    unsafe {
        emulator.launch(&function, launch, &arguments).unwrap();
        emulator.download(out, &mut found).unwrap();
        emulator.free(out).unwrap();
    }
    let found: Vec<f32> = found.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let b: Vec<[f32; 64]> = (0..256).map(|n| std::array::from_fn(|k| number(128 + n, k))).collect();
    for (thread, found) in found.iter().enumerate() {
        let (warp, lane) = (thread % THREADS / 32, thread % 32);
        // Four warps have sixteen rows each of one of the two tiles.
        let row = warp / 4 * 64 + warp % 4 * 16 + lane / 4;
        let columns = (0..256).filter(|n| n % 8 / 2 == lane % 4);
        let products = columns.flat_map(|n| {
            let b = &b[n];
            [row, row + 8].map(|row| (0..64).map(|k| f64::from(number(row, k) * b[k])).sum::<f64>())
        });
        // Whole tiles of 64 features, of which a step is a fourth: six steps are two tiles.
        let expected = products.sum::<f64>() * f64::from(steps.div_ceil(4));
        // 128 sums of 128 products below 1, each rounded to f32.
        assert!((f64::from(*found) - expected).abs() < 0.01, "thread {thread}: {found}, {expected}");
    }
}
