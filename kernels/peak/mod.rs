//! What the processor can do at best, measured: how fast memory is read from end to end, and how many operations
//! a second its multiply-add instructions give. A kernel's time means something only beside these.
//!
//! Each limit is the best of several short runs: other programs can only make a run slower. A multiply-add counts as
//! two operations. The instructions are those of [`Isa::current`], so a forced lesser set has lesser limits.
//!
//! A GPU has limits of its own: what a copy within its memory reads and writes, and what its matrix instructions give.

mod cuda;
mod machine;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::{
    fmt,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

pub use machine::{last_level_cache_bytes, processor_name};

use crate::{Device, Result, cuda::Gpu, pages, pool, processor::Isa};

/// Something that a machine has only so much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Bytes a second, read in order from memory in huge pages (where the system gives them), far more of them than
    /// the caches hold. On a GPU, those that a copy reads and those that it writes together.
    Read,
    /// Operations a second of the multiply-add in f32.
    F32,
    /// Operations a second of the dot product of pairs of bf16 numbers.
    Bf16,
    /// Operations a second of the dot product of four 8-bit integers.
    Int8,
}

/// How many threads work at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Threads {
    /// The calling one alone.
    One,
    /// All of the pool.
    All,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::F32, Self::Bf16, Self::Int8];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Memory for [`Limit::Read`], and how long to measure. Kept between measurements, since making it takes longer than
/// reading it.
#[derive(Debug)]
pub struct Meter {
    place: Place,
    runs: usize,
}

#[derive(Debug)]
enum Place {
    Host {
        memory: pages::Frozen,
        isa: Isa,
    },
    Gpu(Arc<Gpu>),
    /// A device whose limits nobody has measured yet.
    Unknown,
}

/// More than any processor's last-level cache, so that little of it is still there when it is read again.
const MEMORY_BYTES: usize = 1 << 30;
/// What is read in one go: long enough for the prefetchers to run ahead, short enough to share out evenly.
const PIECE_BYTES: usize = 8 << 20;
/// One run of multiply-adds.
const RUN: Duration = Duration::from_millis(30);
/// The best of so many runs counts.
const RUNS: usize = 7;

impl Meter {
    /// For the processor. Takes and fills 1 GiB of memory.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] when the system has no room.
    pub fn new() -> Result<Self> {
        Self::of_size(MEMORY_BYTES, RUNS)
    }

    /// For the processor, but with one run instead of the best of several: for measuring over and over, between other
    /// things. Takes and fills 1 GiB of memory.
    ///
    /// # Errors
    /// As [`Meter::new`].
    pub fn of_one_run() -> Result<Self> {
        Self::of_size(MEMORY_BYTES, 1)
    }

    /// For `device`.
    ///
    /// # Errors
    /// As [`Meter::new`].
    pub fn on(device: &Device) -> Result<Self> {
        let place = match device.gpu() {
            Some(gpu) => Place::Gpu(gpu.clone()),
            None if device.is_host() => return Self::new(),
            None => Place::Unknown,
        };
        Ok(Self { place, runs: RUNS })
    }

    fn of_size(bytes: usize, runs: usize) -> Result<Self> {
        let mut block = pages::Block::zeros(bytes, "the memory that a measurement reads")?;
        let memory = pool::SharedSlice::new(block.as_mut_slice());
        pool::run(bytes.div_ceil(PIECE_BYTES), |piece| {
            let start = piece * PIECE_BYTES;
            // SAFETY: each task writes a piece of its own.
            #[allow(unsafe_code)]
            let piece = unsafe { memory.part(start, PIECE_BYTES.min(bytes - start)) };
            // Pages that were never written may all be the same one of zeros.
            piece.fill(1);
        });
        Ok(Self { place: Place::Host { memory: block.freeze(), isa: Isa::current() }, runs })
    }

    /// Bytes or operations a second. `None` when there is no such instruction, or the device fails; a GPU is only ever
    /// measured as a whole.
    pub fn measure(&self, limit: Limit, threads: Threads) -> Option<f64> {
        match (&self.place, limit, threads) {
            (Place::Host { memory, isa }, Limit::Read, _) => {
                Some(read(memory.as_slice(), *isa, self.runs, threads))
            }
            (Place::Host { isa, .. }, _, _) => operations(limit, *isa, self.runs, threads),
            (Place::Gpu(gpu), Limit::Read, Threads::All) => told(cuda::copy(gpu, self.runs)),
            (Place::Gpu(gpu), Limit::Bf16, Threads::All) => told(cuda::matrix(gpu, self.runs)),
            (Place::Gpu(_) | Place::Unknown, _, _) => None,
        }
    }
}

/// A failing device is told of: a missing limit alone would look like a missing instruction.
fn told(measured: Result<f64>) -> Option<f64> {
    measured.inspect_err(|error| tracing::warn!("a limit was not measured: {error}")).ok()
}

fn read(memory: &[u8], isa: Isa, runs: usize, threads: Threads) -> f64 {
    let pieces: Vec<&[u8]> = memory.chunks(PIECE_BYTES).collect();
    let task = |piece: usize| {
        black_box(sum(pieces[piece], isa));
    };
    best(runs, || {
        let started = Instant::now();
        share_out(threads, pieces.len(), &task);
        memory.len() as f64 / started.elapsed().as_secs_f64()
    })
}

fn operations(limit: Limit, isa: Isa, runs: usize, threads: Threads) -> Option<f64> {
    // How many steps take about a millisecond is found out first.
    let mut steps = 1 << 10;
    let per_step = loop {
        let started = Instant::now();
        let operations = multiply_add(limit, isa, steps)?;
        if started.elapsed() > Duration::from_millis(1) {
            break operations / steps as f64;
        }
        steps *= 2;
    };
    let tasks = (RUN.as_millis() as usize).max(pool::threads() * 4);
    let task = |_| {
        multiply_add(limit, isa, steps);
    };
    Some(best(runs, || {
        let started = Instant::now();
        share_out(threads, tasks, &task);
        per_step * steps as f64 * tasks as f64 / started.elapsed().as_secs_f64()
    }))
}

fn share_out(threads: Threads, tasks: usize, task: &(impl Fn(usize) + Sync)) {
    match threads {
        Threads::One => (0..tasks).for_each(task),
        Threads::All => pool::run(tasks, task),
    }
}

fn best(runs: usize, mut run: impl FnMut() -> f64) -> f64 {
    (0..runs).map(|_| run()).fold(0.0, f64::max)
}

/// Reads every byte. The sum of all 64-bit words, modulo 2⁶⁴, keeps the compiler from leaving it out.
fn sum(bytes: &[u8], isa: Isa) -> u64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => x86::sum_avx512(bytes),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => x86::sum_avx2(bytes),
        _ => portable::sum(bytes),
    }
}

/// Executes independent chains of multiply-adds for `steps` steps, and gives the number of operations that were.
fn multiply_add(limit: Limit, isa: Isa, steps: usize) -> Option<f64> {
    match (limit, isa) {
        #[cfg(target_arch = "x86_64")]
        (Limit::F32, Isa::Avx512) => Some(x86::f32_avx512(steps)),
        #[cfg(target_arch = "x86_64")]
        (Limit::Bf16, Isa::Avx512) => Some(x86::bf16_avx512(steps)),
        #[cfg(target_arch = "x86_64")]
        (Limit::Int8, Isa::Avx512) => Some(x86::int8_avx512(steps)),
        #[cfg(target_arch = "x86_64")]
        (Limit::F32, Isa::Avx2) => Some(x86::f32_avx2(steps)),
        #[cfg(target_arch = "x86_64")]
        (Limit::Int8, Isa::Avx2) => Some(x86::int8_avx2(steps)),
        (Limit::F32, Isa::Portable) => Some(portable::f32(steps)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A read that left something out would look faster than memory is.
    #[test]
    fn every_byte_is_read() {
        for isa in Isa::available() {
            for len in [0, 8, 56, 64, 512, 520, 4096 + 64 + 8] {
                let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
                let words = bytes.as_chunks::<8>().0.iter();
                let expected = words.fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
                assert_eq!(sum(&bytes, isa), expected, "{isa}, {len}");
            }
        }
    }

    #[test]
    fn what_is_counted_grows_with_the_steps() {
        for isa in Isa::available() {
            for limit in [Limit::F32, Limit::Bf16, Limit::Int8] {
                let Some(one) = multiply_add(limit, isa, 1) else { continue };
                assert_eq!(multiply_add(limit, isa, 1000), Some(1000.0 * one), "{isa}, {limit}");
            }
            assert!(multiply_add(Limit::F32, isa, 1).is_some(), "{isa}");
        }
    }

    #[test]
    fn limits_are_positive_and_finite() {
        let meter = Meter::of_size((16 << 20) + 24, 1).unwrap();
        for limit in Limit::ALL {
            for threads in [Threads::One, Threads::All] {
                let found = meter.measure(limit, threads);
                assert!(found.is_none_or(|x| x > 1e6 && x.is_finite()), "{limit}, {threads:?}: {found:?}");
                assert!(found.is_some() || matches!(limit, Limit::Bf16 | Limit::Int8), "{limit}");
            }
        }
    }
}
