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
    /// One for each token, at most [`tokens`]; what the groups before have left.
    pub(super) sums: &'a mut [Sums],
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

/// Whether [`add`] takes blocks of four bits as they are, in one tile or several, or else unpacked.
pub(super) fn takes_narrow(isa: Isa, tiles: usize) -> bool {
    match isa {
        // Unpacking once serves all tiles.
        Isa::Avx512 => tiles <= 1,
        // Nibbles are cheaper to multiply than bytes.
        Isa::Avx2 => true,
        Isa::Portable => false,
    }
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
    assert!(tile.sums.len() <= tokens(isa), "tokens");
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
