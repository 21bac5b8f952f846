//! Which kernel computes a product, and in what shape: functions of integers alone, none of which changes from step to
//! step of a generation.

use super::{Finish, Kind};
use crate::cuda::{Facts, Launch};

/// Weights are filled up with zeros to a multiple of this many features.
pub(super) const BLOCK: usize = 64;

/// The most tokens that are computed at the speed of the memory rather than of the tensor cores.
const MOST_SKINNY: usize = 64;

/// Blocks of features from which on a sum into the residual is cut in two.
const LONG: usize = 128;

/// What is to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) kind: Kind,
    pub(super) finish: Finish,
    pub(super) tokens: usize,
    /// Rows of the weight.
    pub(super) rows: usize,
    /// Blocks of [`BLOCK`] features.
    pub(super) blocks: usize,
}

/// How it is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) kernel: &'static str,
    pub(super) launch: Launch,
    /// Into how many parts the features are cut.
    pub(super) slices: u32,
    /// The weight's rows of a tile that the hardware copies, where it does.
    pub(super) copied_rows: Option<u32>,
}

/// Tokens of a tile that the hardware copies.
pub(super) const COPIED_TOKENS: u32 = 128;

/// Bytes of a weight's 16 rows and 32 features, or of as many numbers of bf16.
pub(super) fn cell(kind: Kind) -> usize {
    match kind {
        Kind::Bf16 => 16 * 32 * 2,
        Kind::Int8 => 544,
        Kind::Int4 | Kind::Int4Zero => 288,
    }
}

/// Into how many parts features are cut; the same for any number of tokens, so that all sums are made in one order. Long
/// rows are those of a feed-forward's last product, which is too narrow to give each multiprocessor enough to do.
pub(super) fn slices(finish: Finish, blocks: usize) -> u32 {
    if finish == Finish::Add && blocks >= LONG { 2 } else { 1 }
}

/// Chooses a kernel.
pub(super) fn plan(problem: Problem, device: &Facts) -> Plan {
    if problem.tokens <= MOST_SKINNY {
        return skinny(problem, device);
    }
    let (tiles, work) = tiles(problem, device);
    let hopper = device.capability == (9, 0) && problem.kind == Kind::Bf16 && problem.blocks > 0;
    match wgmma(problem, device) {
        (faster, less) if hopper && less < work => faster,
        _ => tiles,
    }
}

/// Chooses among the kernels that need no copies of tiles by the hardware.
pub(super) fn plan_without_copies(problem: Problem, device: &Facts) -> Plan {
    if problem.tokens <= MOST_SKINNY { skinny(problem, device) } else { tiles(problem, device).0 }
}

/// A kernel for few tokens.
struct Skinny {
    name: &'static str,
    /// The most tokens.
    tokens: usize,
    /// Features of a step.
    step: usize,
    stages: usize,
}

/// The kernels of skinny.cu and skinny_quantized.cu.
const SKINNY: [[Skinny; 4]; 4] = [
    [
        Skinny { name: "linear_skinny_8_bf16", tokens: 8, step: 128, stages: 6 },
        Skinny { name: "linear_skinny_16_bf16", tokens: 16, step: 128, stages: 5 },
        Skinny { name: "linear_skinny_32_bf16", tokens: 32, step: 64, stages: 6 },
        Skinny { name: "linear_skinny_64_bf16", tokens: 64, step: 64, stages: 4 },
    ],
    [
        Skinny { name: "linear_skinny_8_int8", tokens: 8, step: 256, stages: 5 },
        Skinny { name: "linear_skinny_16_int8", tokens: 16, step: 128, stages: 6 },
        Skinny { name: "linear_skinny_32_int8", tokens: 32, step: 64, stages: 6 },
        Skinny { name: "linear_skinny_64_int8", tokens: 64, step: 64, stages: 4 },
    ],
    [
        Skinny { name: "linear_skinny_8_int4", tokens: 8, step: 256, stages: 6 },
        Skinny { name: "linear_skinny_16_int4", tokens: 16, step: 128, stages: 6 },
        Skinny { name: "linear_skinny_32_int4", tokens: 32, step: 64, stages: 6 },
        Skinny { name: "linear_skinny_64_int4", tokens: 64, step: 64, stages: 4 },
    ],
    [
        Skinny { name: "linear_skinny_8_int4_zero", tokens: 8, step: 256, stages: 6 },
        Skinny { name: "linear_skinny_16_int4_zero", tokens: 16, step: 128, stages: 6 },
        Skinny { name: "linear_skinny_32_int4_zero", tokens: 32, step: 64, stages: 6 },
        Skinny { name: "linear_skinny_64_int4_zero", tokens: 64, step: 64, stages: 4 },
    ],
];

/// Bytes of shared memory that the driver keeps for itself in each block.
const RESERVED: usize = 1024;

/// Warps that a multiprocessor is not asked to hold more of, so that registers are never what is short.
const MOST_WARPS: usize = 16;

fn skinny(problem: Problem, device: &Facts) -> Plan {
    let Problem { kind, finish, tokens, rows, blocks } = problem;
    let [most @ .., largest] = &SKINNY[kind as usize];
    let kernel = most.iter().find(|kernel| tokens <= kernel.tokens).unwrap_or(largest);
    let slices = slices(finish, blocks) as usize;
    let shared = |together: usize| {
        let stage = together * slices * (kernel.step / 32 * cell(kind)) + slices * tokens * kernel.step * 2;
        let exchanged = if slices == 2 { together * kernel.tokens / 8 * 512 } else { 0 };
        kernel.stages * stage + exchanged
    };
    let multiprocessors = multiprocessors(device);
    let units = |together: usize| rows.div_ceil(16 * together);

    // Warps that share tokens: the more tokens, the more, as long as each multiprocessor has something to do.
    let mut together = match tokens {
        0..=2 => 1,
        3..=8 => 2,
        _ => 4,
    };
    let block = device.shared_bytes_per_block as usize;
    while together > 1 && (units(together) < multiprocessors || shared(together) > block) {
        together /= 2;
    }
    let warps = together * slices;
    let room = device.shared_bytes_per_multiprocessor as usize / (shared(together) + RESERVED);
    let resident = room.min(MOST_WARPS / warps).max(1) * multiprocessors;
    // As many rounds as it takes, and all blocks with as many of them.
    let rounds = units(together).div_ceil(resident).max(1);
    Plan {
        kernel: kernel.name,
        launch: Launch {
            grid: [to_u32(units(together).div_ceil(rounds)), 1, 1],
            block: [to_u32(warps * 32), 1, 1],
            shared_bytes: to_u32(shared(together)),
        },
        slices: slices as u32,
        copied_rows: None,
    }
}

/// Names of the large and the small tile for each kind.
const TILES: [[&str; 2]; 4] = [
    ["linear_large_bf16", "linear_small_bf16"],
    ["linear_large_int8", "linear_small_int8"],
    ["linear_large_int4", "linear_small_int4"],
    ["linear_large_int4_zero", "linear_small_int4_zero"],
];

/// The kernels of tiles.cu and tiles_quantized.cu, and what the busiest multiprocessor has to do: products of one token,
/// row and feature, in tenths of what one takes in the large tile.
fn tiles(problem: Problem, device: &Facts) -> (Plan, usize) {
    let Problem { kind, finish, tokens, rows, blocks } = problem;
    let count = |side: usize| tokens.div_ceil(side).saturating_mul(rows.div_ceil(side));
    // Small tiles read twice as much for each product, and take some 1.4 times as long for it.
    let work = |side: usize, tenths: usize| {
        count(side).div_ceil(multiprocessors(device)).saturating_mul(side * side * tenths)
    };
    let (large, small) = (work(128, 10), work(64, 14));
    let [name_large, name_small] = TILES[kind as usize];
    let (kernel, side, threads, stages) =
        if large <= small { (name_large, 128, 256, 3) } else { (name_small, 64, 128, 4) };
    // A stage's tokens and rows.
    let stage = side * 64 + side / 16 * cell(kind);
    let plan = Plan {
        kernel,
        launch: Launch {
            grid: [to_u32(count(side)), 1, 1],
            block: [to_u32(threads), 1, 1],
            shared_bytes: to_u32((stages * stage).max(threads / 32 * STAGED)),
        },
        slices: slices(finish, blocks),
        copied_rows: None,
    };
    (plan, large.min(small))
}

/// Bytes in which a warp stages its finished sums: 16 tokens, 40 numbers apart.
const STAGED: usize = 16 * 40 * 4;

/// Name, rows and stages of each kernel of wgmma.cu, and what a product takes, in tenths as in [`tiles`]: narrow tiles read
/// more for each.
const WGMMA: [(&str, usize, usize, usize); 3] =
    [("linear_wgmma_256", 256, 4, 6), ("linear_wgmma_192", 192, 5, 6), ("linear_wgmma_128", 128, 6, 7)];

/// The kernels of wgmma.cu, and what the busiest multiprocessor has to do, as in [`tiles`].
fn wgmma(problem: Problem, device: &Facts) -> (Plan, usize) {
    let Problem { finish, tokens, rows, blocks, .. } = problem;
    let height = COPIED_TOKENS as usize;
    let choice = |(kernel, width, stages, tenths): (&'static str, usize, usize, usize)| {
        let count = tokens.div_ceil(height).saturating_mul(rows.div_ceil(width));
        let rounds = count.div_ceil(multiprocessors(device)).max(1);
        // What is not hidden behind other tiles' products, finishing the sums above all, is worth some 16 rows.
        let work = rounds.saturating_mul(height * (width + 16) * tenths);
        let shared = stages * (height + width) * 128 + 8 * STAGED + stages * 16;
        let plan = Plan {
            kernel,
            launch: Launch {
                grid: [to_u32(count.div_ceil(rounds)), 1, 1],
                block: [384, 1, 1],
                shared_bytes: to_u32(shared),
            },
            slices: slices(finish, blocks),
            copied_rows: Some(to_u32(width)),
        };
        (plan, work)
    };
    let [first, rest @ ..] = WGMMA;
    rest.into_iter()
        .map(choice)
        .fold(choice(first), |best, other| if other.1 < best.1 { other } else { best })
}

fn multiprocessors(device: &Facts) -> usize {
    (device.multiprocessors as usize).max(1)
}

/// What does not fit is far beyond any limit of a launch, which is then refused by name.
fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(capability: (u32, u32), multiprocessors: u32, shared_kib: u32) -> Facts {
        Facts {
            name: String::new(),
            index: 0,
            capability,
            driver: (12, 4),
            multiprocessors,
            shared_bytes_per_block: (shared_kib - 1) * 1024,
            shared_bytes_per_multiprocessor: shared_kib * 1024,
            cache_bytes: 0,
            exact_allocations: false,
        }
    }

    fn h200() -> Facts {
        device((9, 0), 132, 228)
    }

    fn rtx_4090() -> Facts {
        device((8, 9), 128, 100)
    }

    fn a100() -> Facts {
        device((8, 0), 108, 164)
    }

    fn of(kind: Kind, finish: Finish, tokens: usize, rows: usize, features: usize) -> Problem {
        Problem { kind, finish, tokens, rows, blocks: features.div_ceil(BLOCK) }
    }

    #[test]
    fn one_token_of_7b() {
        let check = |finish, rows, features, grid, threads, shared| {
            let plan = skinny(of(Kind::Bf16, finish, 1, rows, features), &h200());
            assert_eq!(plan.kernel, "linear_skinny_8_bf16");
            assert_eq!(plan.launch.grid, [grid, 1, 1], "{rows} x {features}");
            assert_eq!((plan.launch.block[0], plan.launch.shared_bytes), (threads, shared));
        };
        // Queries, keys and values; the output; the two up projections; the last one; the vocabulary.
        check(Finish::Store, 4608, 3584, 288, 32, 26_112);
        check(Finish::Add, 3584, 3584, 224, 32, 26_112);
        check(Finish::SwiGlu, 37_888, 3584, 790, 32, 26_112);
        check(Finish::Add, 3584, 18_944, 224, 64, 52_736);
        check(Finish::StoreF32, 152_064, 3584, 1056, 32, 26_112);
    }

    #[test]
    fn slices_do_not_depend_on_tokens() {
        for tokens in [1, 2, 9, 33, 64, 65, 1000] {
            let long = of(Kind::Bf16, Finish::Add, tokens, 2048, 11_008);
            assert_eq!(plan(long, &h200()).slices, 2, "{tokens} tokens");
            assert_eq!(plan(Problem { finish: Finish::Store, ..long }, &a100()).slices, 1);
            assert_eq!(plan(Problem { blocks: 56, ..long }, &rtx_4090()).slices, 1);
        }
    }

    #[test]
    fn every_shape_fits_every_device() {
        for device in [h200(), a100(), rtx_4090(), device((8, 6), 1, 100)] {
            for kind in [Kind::Bf16, Kind::Int8, Kind::Int4, Kind::Int4Zero] {
                for finish in [Finish::Store, Finish::Add, Finish::SwiGlu] {
                    for tokens in (1..=65).chain([127, 128, 129, 5000]) {
                        for (rows, features) in [(16, 64), (2048, 11_008), (3584, 18_944), (152_064, 8192)] {
                            let problem = of(kind, finish, tokens, rows, features);
                            let Plan { launch, kernel, slices, .. } = plan(problem, &device);
                            let what = format!("{problem:?} {launch:?} {kernel}");
                            assert!(launch.shared_bytes <= device.shared_bytes_per_block, "{what}");
                            assert!(launch.grid[0] > 0 && launch.block[0] <= 384, "{what}");
                            assert!((launch.block[0] / 32).is_multiple_of(slices), "{what}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn sixteen_tokens_share_what_they_load() {
        let plan = plan(of(Kind::Bf16, Finish::SwiGlu, 16, 37_888, 3584), &h200());
        assert_eq!((plan.launch.block[0], plan.launch.grid[0]), (128, 198));
        assert_eq!(plan.launch.shared_bytes, 5 * (4 * 4096 + 16 * 256));
    }

    #[test]
    fn small_tiles_where_large_ones_are_too_few() {
        let check = |tokens, rows, kernel, grid| {
            let plan = plan(of(Kind::Bf16, Finish::Store, tokens, rows, 3584), &a100());
            assert_eq!((plan.kernel, plan.launch.grid[0]), (kernel, grid), "{tokens} x {rows}");
        };
        check(65, 3584, "linear_small_bf16", 2 * 56);
        check(100, 512, "linear_small_bf16", 2 * 8);
        check(1276, 3584, "linear_large_bf16", 10 * 28);
        check(8192, 37_888, "linear_large_bf16", 64 * 296);
    }

    #[test]
    fn hopper_multiplies_wide_tiles_where_there_are_enough() {
        let check = |tokens, rows, features, kernel, grid| {
            let plan = plan(of(Kind::Bf16, Finish::Store, tokens, rows, features), &h200());
            assert_eq!((plan.kernel, plan.launch.grid[0]), (kernel, grid), "{tokens} x {rows}");
        };
        check(100, 3584, 3584, "linear_small_bf16", 2 * 56);
        check(512, 3584, 3584, "linear_wgmma_128", 4 * 28);
        // 280 tiles would be three rounds, 140 of the widest two; 190 are two as well, of less.
        check(1276, 3584, 18_944, "linear_wgmma_192", 95);
        check(8192, 37_888, 3584, "linear_wgmma_256", 132);
        check(16_384, 3840, 1280, "linear_wgmma_256", 128);
        let quantized = plan(of(Kind::Int4, Finish::Store, 8192, 3584, 3584), &h200());
        assert_eq!(quantized.kernel, "linear_large_int4");
        let older = plan(of(Kind::Bf16, Finish::Store, 8192, 3584, 3584), &device((10, 0), 148, 228));
        assert_eq!((older.kernel, older.copied_rows), ("linear_large_bf16", None));
    }

    #[test]
    fn what_is_beyond_counting_is_no_panic() {
        let plan = plan(of(Kind::Bf16, Finish::Store, 1 << 40, 1 << 40, 64), &a100());
        assert_eq!(plan.launch.grid[0], u32::MAX);
    }
}
