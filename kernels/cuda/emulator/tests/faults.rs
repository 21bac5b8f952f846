//! The emulator finds the mistakes that a GPU makes wrong numbers, crashes or deadlocks of.

#![allow(unsafe_code, clippy::unwrap_used)]

use ocellus_cuda_emulator::{Emulator, Options};
use ocellus_kernels::cuda::{Argument, Driver, Failure, Launch};

/// An emulated device with a kernel's output of as many f32 as the block has threads.
struct Bench {
    emulator: Emulator,
    out: u64,
    threads: usize,
}

impl Bench {
    fn new(seed: u64, threads: usize) -> Self {
        let emulator = Emulator::new(Options { seed, ..Options::default() });
        let out = emulator.allocate(threads * 4).unwrap();
        Self { emulator, out, threads }
    }

    fn run(&self, kernel: &str, arguments: &[Argument]) -> Result<Vec<f32>, Failure> {
        let launch = Launch { grid: [1, 1, 1], block: [self.threads as u32, 1, 1], shared_bytes: 4096 };
        let function = self.emulator.function(kernel)?;
        // SAFETY: the emulator says when a kernel reaches outside of its memory.
        unsafe { self.emulator.launch(&function, launch, arguments)? };
        self.read(self.out, self.threads)
    }

    fn read(&self, from: u64, n: usize) -> Result<Vec<f32>, Failure> {
        let mut bytes = vec![0; n * 4];
        // SAFETY: the emulator refuses what is not allocated.
        unsafe { self.emulator.download(from, &mut bytes)? };
        Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    fn message(&self, kernel: &str, arguments: &[Argument]) -> String {
        self.run(kernel, arguments).unwrap_err().to_string()
    }
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{message:?} should say {part:?}");
    }
}

#[test]
fn a_missing_barrier_shows() {
    let expected: Vec<f32> = (0..64).map(|i| ((i + 1) % 64) as f32).collect();
    for seed in 0..4 {
        let bench = Bench::new(seed, 64);
        let out = [Argument::address(bench.out)];
        assert_ne!(bench.run("fault_no_barrier", &out).unwrap(), expected);
        assert_eq!(bench.run("fault_barrier", &out).unwrap(), expected);
    }
}

#[test]
fn a_barrier_that_not_all_threads_reach_is_named() {
    let bench = Bench::new(1, 64);
    let out = [Argument::address(bench.out)];
    let message = bench.message("fault_half_a_barrier", &out);
    assert_says(
        &message,
        &["fault_half_a_barrier", "block (0, 0, 0)", "32 threads wait for ever", "32 have returned"],
    );
    assert_says(
        &bench.message("fault_two_barriers", &out),
        &["at the __syncthreads of", "while another thread"],
    );
    assert_says(&bench.message("fault_diverged_shuffle", &out), &["__shfl_xor_sync", "lane"]);
    assert_says(&bench.message("fault_lost_lane", &out), &["__shfl_xor_sync", "device.cuh"]);
    // The device goes on.
    assert!(bench.run("fault_barrier", &out).is_ok());
}

#[test]
fn copies_land_when_they_are_waited_for() {
    for seed in 0..4 {
        let bench = Bench::new(seed, 64);
        let (input, out) = (bench.emulator.allocate(1024).unwrap(), bench.emulator.allocate(1024).unwrap());
        let values: Vec<f32> = (0..256).map(|i| i as f32).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        // SAFETY: the emulator refuses what is not allocated.
        unsafe { bench.emulator.upload(&bytes, input).unwrap() };
        let expected: Vec<f32> = (0..256).map(|i| values[(i + 4) % 256]).collect();
        let run = |wait, barrier| {
            let arguments = [
                Argument::address(input),
                Argument::address(out),
                Argument::i32(wait),
                Argument::i32(barrier),
            ];
            bench.run("fault_copy", &arguments).unwrap();
            bench.read(out, 256).unwrap()
        };
        assert_eq!(run(1, 1), expected);
        assert_ne!(run(0, 1), expected);
        assert_ne!(run(1, 0), expected);
    }
}

#[test]
fn reads_and_writes_outside_are_named() {
    let bench = Bench::new(1, 32);
    let (input, out) =
        (Argument::address(bench.emulator.allocate(48).unwrap()), Argument::address(bench.out));
    assert!(bench.run("fault_read", &[input, out, Argument::i32(11)]).is_ok());
    let message = bench.message("fault_read", &[input, out, Argument::i32(13)]);
    assert_says(
        &message,
        &["fault_read", "block (0, 0, 0), thread", "4 bytes past the end of a buffer of 48 bytes"],
    );
    assert_says(
        &bench.message("fault_write", &[out, Argument::i32(32)]),
        &["thread (3, 0, 0)", "0 bytes past the end of a buffer of 128"],
    );
    assert_says(
        &bench.message("fault_shared_write", &[out, Argument::i32(4099)]),
        &["3 bytes past the end of 4096"],
    );
    assert_says(&bench.message("fault_deep", &[out, Argument::i32(1000)]), &["memory that nobody has"]);
    assert!(bench.run("fault_deep", &[out, Argument::i32(3)]).is_ok());
    assert_says(&bench.message("fault_divide", &[out, Argument::u32(0)]), &["divides by zero"]);
    assert!(bench.run("fault_barrier", &[out]).is_ok());
}

#[test]
fn a_write_before_a_buffer_is_found_when_it_is_given_back() {
    let bench = Bench::new(1, 32);
    bench.run("fault_write", &[Argument::address(bench.out), Argument::i32(-1)]).unwrap();
    // SAFETY: nobody uses it after this.
    let message = unsafe { bench.emulator.free(bench.out) }.unwrap_err().to_string();
    assert_eq!(message, "free failed: something was written around a buffer of 128 bytes");
}

#[test]
fn memory_is_not_a_number_before_it_is_written() {
    let bench = Bench::new(1, 32);
    assert!(bench.read(bench.out, 32).unwrap().iter().all(|x| x.is_nan()));
    let found = bench.run("fault_uninitialised", &[Argument::address(bench.out)]).unwrap();
    assert!(found.iter().all(|x| x.is_nan()));
}

#[test]
fn launches_are_checked() {
    let bench = Bench::new(1, 128);
    let out = Argument::address(bench.out);
    assert_says(
        &bench.message("fault_bounds", &[out]),
        &["128 threads in a block, its __launch_bounds__ are 64"],
    );
    assert_says(&bench.message("fault_barrier", &[]), &["0 arguments were given, it takes 1"]);
    assert_says(&bench.message("fault_read", &[out, out, out]), &["argument 2 has 8 bytes, it takes 4"]);
    assert_eq!(bench.message("no_such_kernel", &[]), "there is no CUDA kernel called no_such_kernel");
}

#[test]
fn structures_and_places_arrive() {
    let bench = Bench::new(1, 32);
    // As in faults.cu: two words of 4 bytes and one of 8.
    let shape = [u64::from(3u32) | u64::from(0.5f32.to_bits()) << 32, 7];
    let found = bench.run("fault_structure", &[Argument::of(shape), Argument::address(bench.out)]).unwrap();
    assert_eq!(found, [8.5; 32]);

    let (grid, block) = ([3u32, 2, 4], [4u32, 4, 2]);
    let out = bench.emulator.allocate(24 * 32 * 4).unwrap();
    let function = bench.emulator.function("fault_places").unwrap();
    // SAFETY: the buffers are as large as the launch.
    unsafe {
        bench.emulator.fill(out, 0, 24 * 32 * 4).unwrap();
        let launch = Launch { grid, block, shared_bytes: 0 };
        bench.emulator.launch(&function, launch, &[Argument::address(out)]).unwrap();
    }
    for (i, found) in bench.read(out, 24 * 32).unwrap().iter().enumerate() {
        assert_eq!(found.to_bits() as usize, 1 + i / 32 * 1000 + i % 32);
    }
}
