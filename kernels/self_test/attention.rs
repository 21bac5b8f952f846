//! Attention within segments and over the paged cache, with the rotations and the write that come before.

use super::{BF16, Bench, Tolerance};
use crate::{
    Device, Precision, Result, Tensor,
    attention::{self, Rotated, Segments, Sequence},
    kv_cache::{self, Layer, Shape},
    rotary::{self, Multimodal, Tables},
    step::{Parts, Step},
};

pub(super) const WHY: &str =
    "4e-3 + the rounding: weights of an average of numbers below 1 are rounded to bf16, 2^-8 of each at most";

/// Of a weighted average of numbers below 1.
const AVERAGE: Tolerance = Tolerance { absolute: 1.0 / 250.0, relative: BF16 };
/// Tokens in a block of the cache, as the engine has them.
const BLOCK: usize = 16;

/// Windows that are not full, whole pictures, and segments without a token.
pub(super) fn varlen(bench: &mut Bench) -> Result<()> {
    let ragged = [64, 4, 36, 0, 64, 17, 1];
    for (heads, head_dim, lengths) in [
        (3, 16, &ragged[..]),
        (2, 64, &ragged),
        (16, 80, &ragged),
        (16, 80, &[64, 64, 64, 48, 63, 16, 64]),
        (2, 80, &[1]),
        (2, 80, &[65, 129]),
        (1, 80, &[127, 128, 257]),
        (2, 80, &[700]),
        (1, 32, &[1024, 3]),
        (2, 80, &[]),
    ] {
        let pairs: usize = lengths.iter().map(|n| n * n).sum();
        if !bench.has_time(pairs * heads * head_dim / 4) {
            continue;
        }
        let case = format!("{heads} heads of {head_dim}, {lengths:?}");
        let (tokens, width): (usize, usize) = (lengths.iter().sum(), heads * head_dim);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let qkv = bench.activations(&[tokens, 3 * width], 2.0)?;
        let positions: Vec<[u32; 2]> =
            (0..tokens).map(|_| [bench.numbers.below(300) as u32, bench.numbers.below(300) as u32]).collect();
        let tables = |device: &Device| Tables::spatial(&positions, head_dim, 10_000.0, device);
        let on_host = tables(&bench.host)?;
        let part = |i: usize| qkv.host.narrow(1, i * width, width)?.reshape(&[tokens, heads, head_dim]);
        let rotated = |i| rounded(&rotary::reference(&part(i)?, &on_host)?);
        let expected = attention::varlen_reference(&rotated(0)?, &rotated(1)?, &part(2)?, lengths, scale)?;
        let found = tables(&bench.device).and_then(|tables| {
            let segments = Segments::new(lengths, &bench.device)?;
            let rotated = Rotated { qkv: &qkv.device, tables: &tables, heads };
            attention::varlen_rotated(rotated, &segments, scale, Precision::Bf16)
        });
        // Numbers are below 2. The processor rounds queries when they are scaled already and the reference before, so that
        // scores differ a little too.
        let times = if bench.is_narrow() { 2.0 } else { 3.0 };
        let tolerance = Tolerance { absolute: times * AVERAGE.absolute, ..AVERAGE };
        bench.compare(case, found, &expected.reshape(&[tokens, width])?, tolerance)?;
    }
    Ok(())
}

/// Prompts, steps of one token and both at once, with blocks in disorder, groups of 1 to 8 heads, and keys around tiles
/// and splits.
pub(super) fn causal(bench: &mut Bench) -> Result<()> {
    for (heads, kv_heads, head_dim) in [(7, 1, 128), (16, 2, 128), (28, 4, 128), (3, 3, 32), (8, 1, 64)] {
        for sequences in [
            &[(5, 5), (0, 3), (20, 77)][..],
            &[(65, 65), (16, 64), (17, 128)],
            &[(128, 128), (127, 200), (129, 129)],
            &[(1, 1), (1, 129), (1, 16), (1, 300)],
            &[(4, 4), (2, 130), (3, 17), (1, 15)],
            &[(1, 40), (30, 30), (3, 200), (1, 1), (0, 20), (6, 129)],
            &[(1, 1300), (1, 2049)],
        ] {
            let pairs: usize = sequences.iter().map(|(queries, keys)| queries * keys).sum();
            if !bench.has_time(pairs * heads * head_dim / 4) {
                continue;
            }
            let case = format!("{heads} heads of {kv_heads} x {head_dim}, (queries, keys) {sequences:?}");
            if let Err(error) = attend(bench, (heads, kv_heads, head_dim), sequences, &case) {
                bench.fault(case, error);
            }
        }
    }
    Ok(())
}

fn attend(
    bench: &mut Bench,
    (heads, kv_heads, head_dim): (usize, usize, usize),
    sizes: &[(usize, usize)],
    case: &str,
) -> Result<()> {
    let each: Vec<usize> = sizes.iter().map(|(_, keys)| keys.div_ceil(BLOCK)).collect();
    let all = each.iter().sum::<usize>() + 3;
    let mut free = bench.numbers.shuffled(all);
    let blocks: Vec<Vec<u32>> = each.iter().map(|&n| free.split_off(free.len() - n)).collect();
    let shape = |precision| Shape { blocks: all, block_size: BLOCK, kv_heads, head_dim, precision };
    let mut on_device = Layer::new(shape(Precision::Bf16), &bench.device)?;
    let mut on_host = Layer::new(shape(Precision::Exact), &bench.host)?;

    let sequences: Vec<Sequence<'_>> = sizes
        .iter()
        .zip(&blocks)
        .map(|(&(queries, keys), blocks)| Sequence { queries, keys, blocks })
        .collect();
    let mut slots = Vec::new();
    for s in &sequences {
        // What was computed in earlier steps.
        let before = s.keys - s.queries;
        let keys = bench.activations(&[before, kv_heads, head_dim], 1.0)?;
        let values = bench.activations(&[before, kv_heads, head_dim], 1.0)?;
        let earlier = on_host.slots_of(s.blocks, 0..before)?;
        kv_cache::write(&mut on_host, &keys.host, &values.host, &earlier)?;
        kv_cache::write(&mut on_device, &keys.device, &values.device, &earlier)?;
        on_host.append_slots(s.blocks, before..s.keys, &mut slots)?;
    }

    let tokens = slots.len();
    let positions: Vec<[u32; 3]> =
        (0..tokens).map(|_| [0; 3].map(|_: u32| bench.numbers.below(2000) as u32)).collect();
    // Time has a quarter of the frequencies, height and width three eighths each, as in the published models.
    let [quarter, rest] = [head_dim / 8, head_dim / 2 - head_dim / 8];
    let sections = [quarter, rest / 2, rest - rest / 2];
    let rope = Multimodal { head_dim, theta: 1e6, sections: &sections };
    let parts = Parts { sequences: &sequences, slots: &slots, positions: &positions, rope, heads };
    let step = Step::new(parts, &on_device)?;
    let qkv = bench.activations(&[tokens, (heads + 2 * kv_heads) * head_dim], 1.0)?;
    let tables = step.tables(&on_device)?;
    let q = kv_cache::rotate_and_write(&mut on_device, &qkv.device, &tables, &step)?;

    let host_tables = Tables::multimodal(&positions, rope, &bench.host)?;
    let part = |first: usize, heads: usize| {
        qkv.host.narrow(1, first * head_dim, heads * head_dim)?.reshape(&[tokens, heads, head_dim])
    };
    let expected = rotary::reference(&part(0, heads)?, &host_tables)?;
    // Near zero two products below 1 cancel.
    let rotation = bench.rounded(Tolerance { absolute: 2e-6, relative: 1e-5 });
    bench.compare(format_args!("queries of {case}"), Ok(q.clone()), &expected, rotation)?;
    let keys = rounded(&rotary::reference(&part(heads, kv_heads)?, &host_tables)?)?;
    kv_cache::write(&mut on_host, &keys, &part(heads + kv_heads, kv_heads)?, &slots)?;
    // Those that the device attends with; what they should be was just looked at.
    let queries = Tensor::from_f32(q.to_f32_vec()?, q.shape(), &bench.host)?;
    let scale = 1.0 / (head_dim as f32).sqrt();
    let expected = attention::causal_reference(&queries, &on_host, &sequences, scale)?;
    bench.compare(case, attention::causal(&q, &on_device, &step, scale), &expected, AVERAGE)
}

/// `x` as bf16 holds it.
fn rounded(x: &Tensor) -> Result<Tensor> {
    let values = x.to_f32_vec()?.into_iter().map(|x| half::bf16::from_f32(x).to_f32()).collect();
    Tensor::from_f32(values, x.shape(), &x.device())
}
