//! Sampling by sampling.cu: the tables in the device's memory, and its launches.

use std::{mem::size_of, sync::Arc};

use super::{
    Choice, Row,
    request::{RANDOM, Request},
};
use crate::{
    DType, Result,
    cuda::{Argument, CudaTensor, DeviceBuffer, Gpu, Launch},
};

/// Threads of a block.
const THREADS: u32 = 256;
/// Tokens of a row that one block looks at.
const CHUNK: usize = 2048;
/// Bins of weights.
const BINS: usize = 1024;
/// Tokens that are collected where a cut lies.
const MEMBERS: usize = 8192;
/// Bytes of `Together` in order.cuh, aligned to 16.
const TOGETHER: u32 = 144;
/// Bytes of `BlockBins`.
const BLOCK_BINS: u32 = 3 * 4 * BINS as u32;
/// Bytes of `State`.
const STATE: usize = 64;

/// The kernels in their order.
const KERNELS: [&str; 4] = ["sampling_best", "sampling_weigh", "sampling_cut", "sampling_draw"];

/// How many of the kernels these rows need.
pub(super) fn launches(requests: &[Request]) -> usize {
    let of = |request: &Request| match (request.has(RANDOM), request.cuts()) {
        (false, _) => 1,
        (true, false) => 2,
        (true, true) => 4,
    };
    requests.iter().map(of).max().unwrap_or(1)
}

/// What the kernels keep between them and between steps.
#[derive(Debug)]
pub(super) struct CudaSampler {
    slots: usize,
    vocabulary: usize,
    /// `(slots)` of [`Request`]; those of rows that are not there are zeros.
    requests: DeviceBuffer,
    /// `(slots)` of `State`, zeros between steps.
    states: DeviceBuffer,
    /// `(slots, BINS)` of a weight and a count, zeros between steps.
    bins: DeviceBuffer,
    /// `(slots, chunks)` u64.
    sums: DeviceBuffer,
    /// `(slots, MEMBERS)` of a place and a weight.
    members: DeviceBuffer,
    /// `(slots, vocabulary)` f32.
    biases: DeviceBuffer,
    /// `(slots, vocabulary)` u16.
    seen: DeviceBuffer,
    /// `(slots, words)` u32.
    allowed: DeviceBuffer,
    /// `(2, slots)` u32: the tokens, and whether they were drawn.
    chosen: CudaTensor,
}

/// See `Tables` in sampling.cu.
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C)]
struct Tables {
    logits: u64,
    biases: u64,
    seen: u64,
    allowed: u64,
    requests: u64,
    states: u64,
    bins: u64,
    sums: u64,
    members: u64,
    chosen: u64,
    vocabulary: u32,
    words: u32,
    most_rows: u32,
    unused: u32,
}

/// Bytes of a [`CudaSampler`].
pub(super) fn bytes(slots: usize, vocabulary: usize) -> usize {
    let rows = size_of::<Request>() + STATE + BINS * 16 + MEMBERS * 16 + 2 * size_of::<u32>();
    let tables = vocabulary.div_ceil(CHUNK) * 8 + vocabulary * (4 + 2) + vocabulary.div_ceil(32) * 4;
    slots.saturating_mul(rows + tables)
}

impl CudaSampler {
    pub(super) fn new(gpu: &Arc<Gpu>, slots: usize, vocabulary: usize) -> Result<Self> {
        let words = vocabulary.div_ceil(32);
        let room = |each: usize| gpu.allocate_lasting(slots * each);
        let sampler = Self {
            slots,
            vocabulary,
            requests: room(size_of::<Request>())?,
            states: room(STATE)?,
            bins: room(BINS * 16)?,
            sums: room(vocabulary.div_ceil(CHUNK) * 8)?,
            members: room(MEMBERS * 16)?,
            biases: room(vocabulary * 4)?,
            seen: room(vocabulary * 2)?,
            allowed: room(words * 4)?,
            chosen: gpu.lasting(&[2, slots], DType::U32)?,
        };
        sampler.states.fill(0)?;
        sampler.bins.fill(0)?;
        sampler.requests.fill(0)?;
        // Rows that are not there have a token that the embedding can look up.
        sampler.chosen.clear()?;
        Ok(sampler)
    }

    /// `seen: (vocabulary)` where the sequence has penalties, else empty.
    pub(super) fn assign(&mut self, slot: usize, seen: &[u16], biases: &[(u32, f32)]) -> Result<()> {
        if !seen.is_empty() {
            self.seen.write(slot * self.vocabulary * 2, bytemuck::cast_slice(seen))?;
        }
        if !biases.is_empty() {
            let mut all = vec![0.0f32; self.vocabulary];
            for (id, bias) in biases {
                if let Some(own) = all.get_mut(*id as usize) {
                    *own += bias;
                }
            }
            self.biases.write(slot * self.vocabulary * 4, bytemuck::cast_slice(&all))?;
        }
        Ok(())
    }

    pub(super) fn upload(&mut self, requests: &[Request], rows: &[Row<'_>]) -> Result<()> {
        let mut all = vec![Request::default(); self.slots];
        all[..requests.len()].copy_from_slice(requests);
        self.requests.write(0, bytemuck::cast_slice(&all))?;
        for (i, row) in rows.iter().enumerate() {
            if let Some(allowed) = row.allowed {
                self.allowed.write(i * allowed.len() * 4, bytemuck::cast_slice(allowed))?;
            }
        }
        Ok(())
    }

    /// `logits: (rows, vocabulary)`, checked by the caller.
    pub(super) fn launch(&mut self, logits: &CudaTensor, launches: usize) -> Result<()> {
        logits.expect_dtype(super::OP, "logits", DType::F32)?;
        let tables = Tables {
            logits: logits.address(),
            biases: self.biases.address(),
            seen: self.seen.address(),
            allowed: self.allowed.address(),
            requests: self.requests.address(),
            states: self.states.address(),
            bins: self.bins.address(),
            sums: self.sums.address(),
            members: self.members.address(),
            chosen: self.chosen.address(),
            vocabulary: self.vocabulary as u32,
            words: self.vocabulary.div_ceil(32) as u32,
            most_rows: self.slots as u32,
            unused: 0,
        };
        let rows = logits.shape().first().copied().unwrap_or(0);
        for (pass, kernel) in KERNELS.into_iter().enumerate().take(launches) {
            logits.gpu().launch(kernel, geometry(self.vocabulary, rows, pass), &[Argument::of(tables)])?;
        }
        Ok(())
    }

    pub(super) fn read(&self, rows: usize) -> Result<Vec<Choice>> {
        let all = self.chosen.to_u32_vec()?;
        let (ids, drawn) = all.split_at(self.slots);
        let choices = ids.iter().zip(drawn).take(rows);
        Ok(choices.map(|(&id, &drawn)| Choice { id, drawn: drawn != 0 }).collect())
    }

    pub(super) fn chosen(&self) -> Result<CudaTensor> {
        self.chosen.narrow(0, 0, 1)?.reshape(&[self.slots])
    }
}

/// One block for each chunk of each row; the second kernel has bins in shared memory.
fn geometry(vocabulary: usize, rows: usize, pass: usize) -> Launch {
    Launch {
        grid: [vocabulary.div_ceil(CHUNK) as u32, rows as u32, 1],
        block: [THREADS, 1, 1],
        shared_bytes: if pass == 1 { TOGETHER + BLOCK_BINS } else { TOGETHER },
    }
}

/// The weights of a row of logits at temperature 1 together; `max` is the largest. `logits: (1, vocabulary)` f32.
pub(super) fn total(logits: &CudaTensor, max: f32) -> Result<u64> {
    let gpu = logits.gpu();
    let vocabulary = logits.len();
    let largest = gpu.tensor_f32(&[max], &[1])?;
    let total = gpu.integers(&[0, 0])?;
    let arguments = [
        Argument::from(logits),
        Argument::from(&largest),
        Argument::from(&total),
        Argument::u32(vocabulary as u32),
    ];
    gpu.launch("sampling_total", geometry(vocabulary, 1, 0), &arguments)?;
    let words = total.to_u32_vec()?;
    Ok(words.iter().rev().fold(0, |total, word| total << 32 | u64::from(*word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::Settings;

    #[test]
    fn a_step_is_launched_for_its_most_demanding_row() {
        let request = |settings: Settings| Request::new(&settings, 0);
        let greedy = request(Settings { top_k: 5, ..Settings::default() });
        let warm = Settings { temperature: 1.0, ..Settings::default() };
        let (drawn, cut) = (request(warm), request(Settings { top_p: 0.9, ..warm }));
        assert_eq!(launches(&[]), 1);
        assert_eq!(launches(&[greedy, greedy]), 1);
        assert_eq!(launches(&[drawn, greedy, request(Settings { min_p: 0.1, ..warm })]), 2);
        assert_eq!(launches(&[greedy, cut, drawn]), 4);
    }

    #[test]
    fn each_chunk_of_each_row_has_a_block() {
        for (vocabulary, blocks) in [(1, 1), (2048, 1), (2049, 2), (151_936, 75)] {
            assert_eq!(geometry(vocabulary, 16, 0).grid, [blocks, 16, 1], "{vocabulary}");
        }
        assert_eq!(geometry(9, 1, 1).shared_bytes, geometry(9, 1, 2).shared_bytes + 12 * 1024);
        // The layouts in sampling.cu.
        assert_eq!((size_of::<Request>(), size_of::<Tables>()), (64, 96));
    }
}
