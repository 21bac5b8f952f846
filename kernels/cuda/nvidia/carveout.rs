//! How a multiprocessor's memory is divided between cache and shared memory. The driver looks at one block of a kernel;
//! left to it, there may be room for one where three could run. A preference is a hint, and a function of integers here.

use std::collections::HashMap;

use crate::cuda::{Facts, Launch};

/// Kernels with less shared memory leave the division to the driver: all their blocks fit in any.
const LEAST_BYTES: u32 = 4 << 10;
/// What the system takes of shared memory for each block.
const RESERVED_BYTES: u32 = 1 << 10;
/// Threads, blocks and registers of a multiprocessor, at most.
const THREADS: u32 = 2048;
const BLOCKS: u32 = 32;
const REGISTERS: u32 = 65_536;

/// What was asked for, by the handles of the kernels.
#[derive(Debug, Default)]
pub(super) struct Carveouts {
    set: HashMap<usize, Wanted>,
}

/// What one block of a kernel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    threads: u32,
    shared_bytes: u32,
}

impl Carveouts {
    /// What is still to be asked for before this launch.
    pub(super) fn missing(&self, kernel: usize, launch: Launch) -> Option<Wanted> {
        let Launch { block, shared_bytes, .. } = launch;
        let wanted = Wanted { threads: block.iter().product(), shared_bytes };
        (shared_bytes >= LEAST_BYTES && self.set.get(&kernel) != Some(&wanted)).then_some(wanted)
    }

    /// It was asked for.
    pub(super) fn set(&mut self, kernel: usize, wanted: Wanted) {
        self.set.insert(kernel, wanted);
    }
}

impl Wanted {
    /// The part of a multiprocessor's memory, in percent of what may be shared, that holds as many blocks as threads and
    /// registers allow, or all of it.
    pub(super) fn percent(self, registers: u32, facts: &Facts) -> i32 {
        let threads = self.threads.max(32);
        // Registers come in eights for each thread.
        let by_registers = REGISTERS / (registers.next_multiple_of(8).max(8) * threads);
        let blocks = (THREADS / threads).min(by_registers).clamp(1, BLOCKS);
        let bytes = u64::from(blocks) * u64::from(self.shared_bytes + RESERVED_BYTES);
        let all = u64::from(facts.shared_bytes_per_multiprocessor).max(1);
        (bytes * 100).div_ceil(all).min(100) as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(shared_bytes_per_multiprocessor: u32) -> Facts {
        Facts {
            name: String::new(),
            index: 0,
            capability: (9, 0),
            driver: (12, 4),
            multiprocessors: 132,
            shared_bytes_per_block: 227 << 10,
            shared_bytes_per_multiprocessor,
            cache_bytes: 0,
            exact_allocations: false,
        }
    }

    #[test]
    fn as_many_blocks_as_fit_find_room() {
        let launch = |threads, shared_bytes| Launch { grid: [1; 3], block: [threads, 1, 1], shared_bytes };
        // The tower's windows: 33 KiB for each of 128 threads with 168 registers, so three blocks want 102 KiB.
        for (threads, shared_bytes, registers, kib, expected) in [
            (128, 33_792, 168, 228, 45),
            (128, 33_792, 168, 100, 100),
            (128, 33_792, 64, 228, 100),
            (384, 200 << 10, 168, 228, 89),
            (1024, 4 << 10, 255, 164, 4),
            (32, 48 << 10, 0, 0, 100),
        ] {
            let wanted = Carveouts::default().missing(1, launch(threads, shared_bytes)).unwrap();
            assert_eq!(wanted.percent(registers, &facts(kib << 10)), expected, "{threads}, {shared_bytes}");
        }
    }

    #[test]
    fn each_kernel_is_asked_for_once() {
        let mut carveouts = Carveouts::default();
        let launch = |shared_bytes| Launch { grid: [7, 1, 1], block: [64, 2, 1], shared_bytes };
        assert_eq!(carveouts.missing(1, launch(100)), None);
        let wanted = carveouts.missing(1, launch(8192)).unwrap();
        assert_eq!(wanted, Wanted { threads: 128, shared_bytes: 8192 });
        carveouts.set(1, wanted);
        assert_eq!(carveouts.missing(1, launch(8192)), None);
        assert!(carveouts.missing(1, launch(9000)).is_some() && carveouts.missing(2, launch(8192)).is_some());
    }
}
