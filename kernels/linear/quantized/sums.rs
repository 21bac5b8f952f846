//! The inner product of a panel with a few tokens: what it takes, and which path computes it.
//!
//! Within a group the dot product is exact in integers. Then, group after group, each element of the result is
//! `sum = fma(float(dot), weight_scale * activation_scale, sum)`, whatever else is computed beside it. (The portable
//! path rounds the product once more.)

#![allow(unsafe_code)]

use super::{Scheme, activations::Codes, format::PANEL};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use super::{format, portable};
use crate::processor::Isa;

/// One token's sums for one panel.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Sums(pub(super) [f32; PANEL]);

/// A few tokens times some groups of one panel.
pub(super) struct Tile<'a> {
    pub(super) scheme: Scheme,
    /// One block for each group.
    pub(super) blocks: &'a [u8],
    pub(super) activations: Codes<'a>,
    pub(super) first_token: usize,
    /// The group that the first block belongs to.
    pub(super) first_group: usize,
    /// Whether groups were added before these. If not, sums begin at their tokens' origins, whatever they are.
    pub(super) resumes: bool,
    /// One for each token, at most [`tokens`].
    pub(super) sums: &'a mut [Sums],
    /// What will be needed soon, asked for along the way; a path may ask by itself instead.
    pub(super) ahead: &'a [u8],
}

impl Tile<'_> {
    pub(super) fn groups(&self) -> usize {
        self.blocks.len() / self.scheme.block()
    }
}

/// How many tokens a tile may have.
pub(super) fn tokens(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 6,
        Isa::Avx2 => 4,
        Isa::Portable => 4,
    }
}

/// How a panel's product with some tokens is cut.
pub(super) struct Cut {
    /// Tokens of a tile; the last may have fewer.
    pub(super) tokens: usize,
    /// Groups that all tiles go through before the next ones.
    pub(super) groups: usize,
    /// Whether blocks of four bits are unpacked before the first tile.
    pub(super) unpacks: bool,
    /// Whether tiles ask for what is needed next. Otherwise the processor is left to guess.
    pub(super) asks: bool,
}

/// The most tokens whose tiles of four bits unpack for themselves.
const NARROW_TOKENS: usize = 40;
/// Up to so many tiles memory may be slower than arithmetic.
const FEW_TILES: usize = 6;

/// The cut that was measured to be fastest on processors of each kind, for `groups` groups.
pub(super) fn cut(isa: Isa, scheme: Scheme, tokens: usize, groups: usize) -> Cut {
    let most = self::tokens(isa);
    let wide = scheme == Scheme::Int8;
    match isa {
        // One stream. Where there is much to compute for each byte, the processor reads ahead too little by itself.
        Isa::Avx512 if tokens <= most => {
            Cut { tokens: most, groups, unpacks: false, asks: !wide && tokens > 1 }
        }
        // Beside six tokens unpacking finds no registers. All groups at a time lie in the first-level cache.
        Isa::Avx512 if !wide && tokens <= NARROW_TOKENS => {
            Cut { tokens: even(tokens, most - 1), groups: 16, unpacks: false, asks: true }
        }
        Isa::Avx512 => {
            let tiles = tokens.div_ceil(most);
            Cut {
                tokens: even(tokens, most),
                groups: if tiles <= FEW_TILES { 8 } else { 64 },
                unpacks: !wide,
                asks: true,
            }
        }
        // Nibbles are cheaper to multiply than bytes, and the kernel asks for what it needs.
        Isa::Avx2 => {
            let groups = if tokens <= most { groups } else { 32 };
            Cut { tokens: most, groups, unpacks: false, asks: false }
        }
        Isa::Portable => Cut { tokens: most, groups: 32, unpacks: !wide, asks: false },
    }
}

/// The size of as few tiles as can be, nearly equal ones.
fn even(tokens: usize, most: usize) -> usize {
    tokens.div_ceil(tokens.div_ceil(most).max(1)).max(1)
}

/// Adds a tile's products to its sums.
pub(super) fn add(isa: Isa, tile: &mut Tile<'_>) {
    let (codes, groups) = (&tile.activations, tile.groups());
    let last = tile.first_token + tile.sums.len();
    assert!(tile.blocks.len() == groups * tile.scheme.block(), "blocks");
    assert!(tile.first_group + groups <= codes.groups, "groups");
    assert!(codes.code_stride >= codes.groups * format::GROUP, "stride");
    assert!(last * codes.code_stride <= codes.codes.len(), "codes");
    assert!(last * codes.groups <= codes.scales.len().min(codes.starts.len()), "scales");
    assert!(last <= codes.origins.len() && tile.sums.len() <= tokens(isa), "tokens");
    assert!(codes.powers || tile.scheme != Scheme::Int4Asymmetric, "scales");
    match isa {
        // SAFETY: an `Isa` other than the portable one comes from detecting it; lengths were checked above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512::add(tile) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::add(tile) },
        _ => portable::add(tile),
    }
}

/// Widens blocks of four bits to blocks of eight.
pub(super) fn unpack(isa: Isa, scheme: Scheme, narrow: &[u8], wide: &mut [u8]) {
    assert_eq!(scheme.block(), format::NARROW_BLOCK);
    assert_eq!(narrow.len() / format::NARROW_BLOCK * format::WIDE_BLOCK, wide.len());
    match isa {
        // SAFETY: an `Isa` other than the portable one comes from detecting it; lengths were checked above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512::unpack(scheme, narrow, wide) },
        _ => portable::unpack(scheme, narrow, wide),
    }
}
