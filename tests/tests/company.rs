//! In packed formats a token's numbers have the same bits alone or among others, at once or in chunks. (As stored, in
//! f32, products of few and of many rows are summed in different orders; `equalities` bounds what that does.)
#![allow(clippy::unwrap_used)]

use ocellus_decoder::{Batch, Decoder, Sequence};
use ocellus_engine::{Formats, WeightFormat};
use ocellus_tests::house::{BLOCK_SIZE, nano_as};
use ocellus_vision_encoder::patches::{Grid, Patches};

/// Blocks of the cache that each mixture shares.
const BLOCKS: usize = 160;
/// Mixtures of one format; the three formats together make 200 and more.
const MIXTURES: u64 = 68;

/// A fixed stream of numbers (splitmix64).
struct Numbers(u64);

impl Numbers {
    /// The next one, from 0 to below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// A sequence on its way through a mixture.
struct Active {
    ids: Vec<u32>,
    done: usize,
    blocks: Vec<u32>,
    /// Those that were wanted, with the positions of their tokens.
    logits: Vec<(usize, Vec<u32>)>,
}

fn bits(values: &[f32]) -> impl Iterator<Item = u32> {
    values.iter().map(|value| value.to_bits())
}

/// Logits of all tokens, computed at once and alone.
fn alone(decoder: &Decoder, ids: &[u32]) -> Vec<u32> {
    let n_blocks = ids.len().div_ceil(BLOCK_SIZE);
    let mut cache = decoder.new_cache(n_blocks, BLOCK_SIZE).unwrap();
    let blocks: Vec<u32> = (0..n_blocks as u32).collect();
    let positions: Vec<[u32; 3]> = (0..ids.len() as u32).map(|i| [i; 3]).collect();
    let batch = Batch {
        embeddings: decoder.embed(ids).unwrap(),
        positions: &positions,
        sequences: &[Sequence { queries: ids.len(), keys: ids.len(), blocks: &blocks }],
        logits_for: &(0..ids.len() as u32).collect::<Vec<_>>(),
    };
    bits(&decoder.forward(&batch, &mut cache).unwrap().to_f32_vec().unwrap()).collect()
}

/// Sequences of random lengths, in random chunks beside each other, in blocks that lie anywhere.
fn check_mixture(decoder: &Decoder, seed: u64) {
    let vocabulary = decoder.config().vocab_size;
    let mut numbers = Numbers(seed);
    let mut cache = decoder.new_cache(BLOCKS, BLOCK_SIZE).unwrap();
    let mut free: Vec<u32> = (0..BLOCKS as u32).collect();
    let mut sequences: Vec<Active> = (0..1 + numbers.below(5))
        .map(|_| {
            let ids: Vec<u32> =
                (0..1 + numbers.below(90)).map(|_| numbers.below(vocabulary) as u32).collect();
            let blocks = (0..ids.len().div_ceil(BLOCK_SIZE))
                .map(|_| free.swap_remove(numbers.below(free.len())))
                .collect();
            Active { ids, done: 0, blocks, logits: Vec::new() }
        })
        .collect();
    while sequences.iter().any(|s| s.done < s.ids.len()) {
        let mut chosen: Vec<(usize, usize)> = Vec::new();
        for (index, s) in sequences.iter().enumerate() {
            let left = s.ids.len() - s.done;
            if left > 0 && numbers.below(3) > 0 {
                // Often a single token, as when it decodes.
                let most = if numbers.below(2) == 0 { 1 } else { left.min(40) };
                chosen.insert(numbers.below(chosen.len() + 1), (index, 1 + numbers.below(most)));
            }
        }
        if chosen.is_empty() {
            continue;
        }
        let (mut ids, mut positions) = (Vec::new(), Vec::new());
        for &(index, n) in &chosen {
            let s = &sequences[index];
            ids.extend_from_slice(&s.ids[s.done..s.done + n]);
            positions.extend((s.done as u32..(s.done + n) as u32).map(|i| [i; 3]));
        }
        let parts: Vec<Sequence<'_>> = chosen
            .iter()
            .map(|&(index, n)| {
                let s = &sequences[index];
                Sequence { queries: n, keys: s.done + n, blocks: &s.blocks }
            })
            .collect();
        // The logits of all tokens, of some, or of none.
        let of_all = numbers.below(3);
        let wanted: Vec<u32> =
            (0..ids.len() as u32).filter(|_| of_all == 0 || of_all == 1 && numbers.below(2) == 0).collect();
        let batch = Batch {
            embeddings: decoder.embed(&ids).unwrap(),
            positions: &positions,
            sequences: &parts,
            logits_for: &wanted,
        };
        let logits = decoder.forward(&batch, &mut cache).unwrap().to_f32_vec().unwrap();
        assert_eq!(logits.len(), wanted.len() * vocabulary);
        let mut rows = wanted.iter().zip(logits.chunks_exact(vocabulary)).peekable();
        let mut first = 0;
        for &(index, n) in &chosen {
            let s = &mut sequences[index];
            while let Some((&row, logits)) = rows.next_if(|(row, _)| (**row as usize) < first + n) {
                s.logits.push((s.done + row as usize - first, bits(logits).collect()));
            }
            first += n;
            s.done += n;
        }
    }
    for (index, s) in sequences.iter().enumerate() {
        let alone = alone(decoder, &s.ids);
        for (position, logits) in &s.logits {
            assert!(
                *logits == alone[position * vocabulary..][..vocabulary],
                "seed {seed}, sequence {index} of {} tokens, token {position}",
                s.ids.len()
            );
        }
    }
}

fn check(format: WeightFormat) {
    let model = nano_as(Formats { decoder: format, tower: Some(format) }).unwrap();
    for seed in 0..MIXTURES {
        check_mixture(&model.decoder, seed);
    }
    // Pictures beside each other, and each alone.
    let tower = &model.tower;
    let geometry = tower.config().geometry;
    let pictures: Vec<Patches> = [(1, 14, 18), (1, 2, 2), (3, 6, 8), (1, 16, 8)]
        .into_iter()
        .zip(0..)
        .map(|((t, h, w), seed)| {
            let grid = Grid { t, h, w };
            let mut numbers = Numbers(seed);
            let n = grid.patches().unwrap() * geometry.patch_values();
            Patches { grid, values: (0..n).map(|_| numbers.below(2001) as f32 / 1000.0 - 1.0).collect() }
        })
        .collect();
    let together = tower.forward(&pictures.iter().collect::<Vec<_>>()).unwrap().to_f32_vec().unwrap();
    let each: Vec<u32> = pictures
        .iter()
        .flat_map(|picture| {
            bits(&tower.forward(&[picture]).unwrap().to_f32_vec().unwrap()).collect::<Vec<_>>()
        })
        .collect();
    assert!(bits(&together).eq(each), "pictures together and alone");
}

#[test]
fn bf16() {
    check(WeightFormat::Bf16);
}

#[test]
fn int8() {
    check(WeightFormat::Int8);
}

#[test]
fn int4() {
    check(WeightFormat::Int4);
}
