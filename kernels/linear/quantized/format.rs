//! How quantized weights lie in memory.
//!
//! A panel holds 32 rows (outputs); along the features it is cut into groups of 32. One panel and group make a
//! block, and blocks lie panel after panel, group after group, so that a product reads one stream. A block begins
//! with a header of 64 bytes (what each row's group is scaled by) and goes on with its codes. Rows and features that
//! fill up the last panel and group are zeros.
//!
//! Whatever the scheme, a weight is `(code - 128) * scale` with a code of 8 bits that an unsigned times signed dot
//! product takes as it is:
//!
//! | scheme | header: 32 words of 16 bits | codes |
//! |---|---|---|
//! | [`Scheme::Int8`] | scale, bf16 | `[8 quads][32 rows][4 features]` bytes |
//! | [`Scheme::Int4Symmetric`] | scale, bf16 | nibbles `q`: the code is `8 q + 64` |
//! | [`Scheme::Int4Asymmetric`] | 9 bits of scale, 7 bits of zero point `z` | nibbles `q`: the code is `8 q - z + 128` |
//!
//! The 9 bits are 5 of exponent and 4 of mantissa. The zero point is finer than the codes by a factor of eight, which
//! costs nothing, as it disappears in the unpacking. Word `2 i` of a header belongs to row `i`, word `2 i + 1` to row
//! `16 + i`, so that one vector load and a shift give both halves as f32. Byte `i` of the codes of four bits holds
//! code `i` of the eight-bit order in its lower half, and the code four quads further in its upper half.

use super::Scheme;
pub(super) use crate::linear::product::PANEL;

/// Features that share a scale, in weights and in activations.
pub(super) const GROUP: usize = 32;
/// Bytes before the codes of a block.
pub(super) const HEADER: usize = 2 * PANEL;
/// Bytes of a block of eight-bit codes.
pub(super) const WIDE_BLOCK: usize = HEADER + PANEL * GROUP;
/// Bytes of a block of four-bit codes.
pub(super) const NARROW_BLOCK: usize = HEADER + PANEL * GROUP / 2;
/// What a code stands above its value.
pub(super) const OFFSET: i32 = 128;

/// Exponent and mantissa of the 9-bit scale `0`, as the upper 13 bits of an f32: 2^-26.
pub(super) const FIRST_SCALE: u32 = (127 - 26) << 4;
/// The greatest 9-bit scale.
pub(super) const LAST_SCALE: u32 = (1 << 9) - 1;
/// The greatest zero point.
pub(super) const LAST_ZERO: u32 = (1 << 7) - 1;

impl Scheme {
    /// Bytes of one panel's group.
    pub(super) fn block(self) -> usize {
        match self {
            Self::Int8 => WIDE_BLOCK,
            Self::Int4Symmetric | Self::Int4Asymmetric => NARROW_BLOCK,
        }
    }
}

/// The place of row `row`'s word in a header.
pub(super) fn header_word(row: usize) -> usize {
    2 * (row % 16) + row / 16
}

/// The place of a code in the eight-bit order.
pub(super) fn code_place(row: usize, feature: usize) -> usize {
    (feature / 4 * PANEL + row) * 4 + feature % 4
}

/// Header word and codes of one row's group.
pub(super) struct Entry {
    pub(super) scale: f32,
    /// What is added to eight times a four-bit code.
    pub(super) base: u8,
}

/// Reads a header word.
pub(super) fn entry(scheme: Scheme, word: u16) -> Entry {
    match scheme {
        Scheme::Int8 => Entry { scale: bf16_scale(word), base: 0 },
        Scheme::Int4Symmetric => Entry { scale: bf16_scale(word), base: 64 },
        Scheme::Int4Asymmetric => {
            let scale = f32::from_bits((u32::from(word >> 7) + FIRST_SCALE) << 19);
            Entry { scale, base: OFFSET as u8 - (word & 0x7f) as u8 }
        }
    }
}

/// The code at `place` of the eight-bit order.
pub(super) fn code(scheme: Scheme, codes: &[u8], place: usize, base: u8) -> u8 {
    let stored = stored_code(scheme, codes, place);
    match scheme {
        Scheme::Int8 => stored,
        Scheme::Int4Symmetric | Scheme::Int4Asymmetric => 8 * stored + base,
    }
}

/// The byte or nibble that is stored for `place` of the eight-bit order.
pub(super) fn stored_code(scheme: Scheme, codes: &[u8], place: usize) -> u8 {
    const HALF: usize = PANEL * GROUP / 2;
    match scheme {
        Scheme::Int8 => codes[place],
        Scheme::Int4Symmetric | Scheme::Int4Asymmetric => {
            let byte = codes[place % HALF];
            if place < HALF { byte & 15 } else { byte >> 4 }
        }
    }
}

fn bf16_scale(word: u16) -> f32 {
    f32::from_bits(u32::from(word) << 16)
}
