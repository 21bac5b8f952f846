//! The emulated instructions, used as the PTX manual shows them, compute what the manual says.

#![allow(unsafe_code, clippy::unwrap_used)]

use half::bf16;
use ocellus_cuda_emulator::{Emulator, Options, testing};
use ocellus_kernels::cuda::{Argument, Driver, Launch};

fn run(kernel: &str, inputs: &[&[u8]], out_bytes: usize) -> Vec<u8> {
    let emulator = Emulator::new(Options { seed: testing::seed(), ..Options::default() });
    let mut arguments = Vec::new();
    let out = emulator.allocate(out_bytes).unwrap();
    let mut bytes = vec![0; out_bytes];
    // SAFETY: the emulator refuses what is not allocated.
    unsafe {
        for input in inputs {
            let address = emulator.allocate(input.len()).unwrap();
            emulator.upload(input, address).unwrap();
            arguments.push(Argument::address(address));
        }
        arguments.push(Argument::address(out));
        let launch = Launch { grid: [1, 1, 1], block: [32, 1, 1], shared_bytes: 768 };
        emulator.launch(&emulator.function(kernel).unwrap(), launch, &arguments).unwrap();
        emulator.download(out, &mut bytes).unwrap();
    }
    bytes
}

fn matrix(stream: u64, n: usize) -> (Vec<f64>, Vec<u8>) {
    let values: Vec<bf16> = testing::numbers(stream, n).into_iter().map(bf16::from_f32).collect();
    (values.iter().map(|v| v.to_f64()).collect(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

#[test]
fn products_of_fragments_are_products_of_matrices() {
    for transposed in [false, true] {
        let ((a, a_bytes), (b, b_bytes)) = (matrix(1, 256), matrix(2, 128));
        let kernel = if transposed { "instruction_product_trans" } else { "instruction_product" };
        let found = run(kernel, &[&a_bytes, &b_bytes], 16 * 8 * 4);
        for (i, found) in found.as_chunks::<4>().0.iter().enumerate() {
            let (row, column) = (i / 8, i % 8);
            let expected: f64 = (0..16)
                .map(|k| match transposed {
                    false => a[row * 16 + k] * b[column * 16 + k],
                    true => a[k * 16 + row] * b[k * 8 + column],
                })
                .sum();
            // One rounding to f32.
            let found = f64::from(f32::from_le_bytes(*found));
            assert!((found - expected).abs() < 1e-6, "{kernel}: {row}, {column}: {found}, {expected}");
        }
    }
}

#[test]
fn lanes_exchange_what_the_manual_says() {
    let found = run("instruction_shuffles", &[], 32 * 6 * 4);
    let found: Vec<i32> = found.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect();
    for lane in 0..32i32 {
        let down = if lane + 3 < 32 { lane + 3 } else { lane };
        let up = if lane % 8 >= 3 { lane - 3 } else { lane };
        let expected = [5, lane ^ 12, down, up, 0x4924_9249, 496];
        assert_eq!(found[lane as usize * 6..][..6], expected, "lane {lane}");
    }
}
