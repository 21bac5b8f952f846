//! The innermost step: a tile of queries meets a block of keys.

use crate::processor::Isa;

/// Queries in a tile, at most.
pub(crate) const TILE: usize = 12;
/// Keys in a block, at most; the running maximum moves once for each.
pub(crate) const BLOCK: usize = 128;
/// The widest head.
pub(crate) const MOST_HEAD_DIM: usize = 256;
/// Words from one narrowed query to the next: a constant that the compiler folds into addresses, large enough for
/// the widest head, and no power of two, so that the queries of a tile don't compete for the same cache lines.
pub(crate) const QUERY_STRIDE: usize = MOST_HEAD_DIM / 2 + 16;
/// What the maximum begins with: below every score, and finite, so that differences are numbers.
pub(crate) const LEAST: f32 = f32::MIN;

/// One step. Scores are in units of the logarithm to base two: the queries have been scaled so.
pub(crate) struct Step<'a> {
    /// Up to [`TILE`] queries in pairs of bf16: `(rows, QUERY_STRIDE)`.
    pub(crate) queries: &'a [u32],
    pub(crate) head_dim: usize,
    /// The keys of each group, as `kv_cache::group` says.
    pub(crate) keys: &'a [&'a [u32]],
    /// The values of each group.
    pub(crate) values: &'a [&'a [u32]],
    /// The keys of the next block where it is worth asking for them early, as many groups as there are, or none.
    pub(crate) ahead: &'a [&'a [u32]],
    /// How many of the keys each row sees: the first ones. The most of them says how many groups there are.
    pub(crate) visible: &'a [usize],
    /// Whether `out` holds nothing yet.
    pub(crate) fresh: bool,
    /// The largest score of each row so far.
    pub(crate) largest: &'a mut [f32],
    /// The sum of each row's weights so far, in sixteen parts.
    pub(crate) sums: &'a mut [[f32; 16]],
    /// The weighted sum of values so far: `(rows, padded)`.
    pub(crate) out: &'a mut [f32],
    pub(crate) tile: &'a mut Tile,
}

/// Scores and weights of a step.
#[repr(align(64))]
pub(crate) struct Tile {
    /// `(TILE, BLOCK)`.
    pub(crate) scores: [f32; TILE * BLOCK],
    /// `(TILE, BLOCK / 2)`, pairs of bf16.
    pub(crate) weights: [u32; TILE * BLOCK / 2],
    /// What each row's sums so far are multiplied by, because the maximum has moved.
    pub(crate) scales: [f32; TILE],
}

impl Default for Tile {
    fn default() -> Self {
        Self { scores: [0.0; TILE * BLOCK], weights: [0; TILE * BLOCK / 2], scales: [0.0; TILE] }
    }
}

impl Step<'_> {
    /// Rows of the tile.
    pub(crate) fn rows(&self) -> usize {
        self.visible.len()
    }

    /// The most keys that a row sees.
    pub(crate) fn most_visible(&self) -> usize {
        self.visible.iter().copied().max().unwrap_or(0)
    }

    /// Asserts what the paths rely upon: sizes of all slices.
    pub(crate) fn check(&self) {
        let (rows, padded) = (self.rows(), crate::kv_cache::group::padded(self.head_dim));
        let half = crate::kv_cache::group::half(self.head_dim);
        assert!((1..=TILE).contains(&rows) && padded <= MOST_HEAD_DIM, "attention: {rows} rows of {padded}");
        assert!(self.queries.len() >= (rows - 1) * QUERY_STRIDE + padded / 2, "attention: queries");
        assert!(self.largest.len() == rows && self.sums.len() == rows, "attention: state");
        assert_eq!(self.out.len(), rows * padded, "attention: out");
        let groups = self.most_visible().div_ceil(16);
        assert!(groups * 16 <= BLOCK && self.keys.len() == groups, "attention: {groups} groups of keys");
        assert_eq!(self.values.len(), groups, "attention: groups of values");
        assert!(self.keys.iter().chain(self.values).all(|group| group.len() == half), "attention: a group");
    }
}

/// The step for `isa`.
pub(crate) fn for_isa(isa: Isa) -> fn(&mut Step<'_>) {
    match isa.min(Isa::detect()) {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => super::avx512::step,
        isa => super::plain::for_isa(isa),
    }
}
