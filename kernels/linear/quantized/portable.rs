//! Plain Rust: the definition that the other paths are tested against.

use super::{
    Scheme,
    format::{self, GROUP, HEADER, NARROW_BLOCK, PANEL, WIDE_BLOCK},
    sums::Tile,
};

/// See [`super::sums::add`], which has checked the lengths.
pub(super) fn add(tile: &mut Tile<'_>) {
    let codes = &tile.activations;
    for (i, sums) in tile.sums.iter_mut().enumerate() {
        let token = tile.first_token + i;
        if !tile.resumes {
            sums.0.fill(codes.origins[token]);
        }
        for (j, block) in tile.blocks.chunks_exact(tile.scheme.block()).enumerate() {
            let group = tile.first_group + j;
            let x = &codes.codes[token * codes.code_stride + group * GROUP..][..GROUP];
            let mut dots = [codes.starts[token * codes.groups + group]; PANEL];
            dot(tile.scheme, block, x, &mut dots);
            let x_scale = codes.scales[token * codes.groups + group];
            for (row, sum) in sums.0.iter_mut().enumerate() {
                let scale = format::entry(tile.scheme, word(block, row)).scale;
                *sum += dots[row] as f32 * (scale * x_scale);
            }
        }
    }
}

/// Adds a block's codes times `x: (GROUP)` to `dots`.
fn dot(scheme: Scheme, block: &[u8], x: &[i8], dots: &mut [i32; PANEL]) {
    let codes = &block[HEADER..];
    if scheme == Scheme::Int8 {
        let (quads, _) = codes.as_chunks::<{ 4 * PANEL }>();
        for (quad, x) in quads.iter().zip(x.as_chunks::<4>().0) {
            for (row, dot) in dots.iter_mut().enumerate() {
                for k in 0..4 {
                    *dot += i32::from(quad[4 * row + k]) * i32::from(x[k]);
                }
            }
        }
        return;
    }
    for (row, dot) in dots.iter_mut().enumerate() {
        let base = format::entry(scheme, word(block, row)).base;
        for (feature, &x) in x.iter().enumerate() {
            let code = format::code(scheme, codes, format::code_place(row, feature), base);
            *dot += i32::from(code) * i32::from(x);
        }
    }
}

/// See [`super::sums::unpack`], which has checked the lengths.
pub(super) fn unpack(scheme: Scheme, narrow: &[u8], wide: &mut [u8]) {
    for (narrow, wide) in narrow.chunks_exact(NARROW_BLOCK).zip(wide.chunks_exact_mut(WIDE_BLOCK)) {
        for row in 0..PANEL {
            let entry = format::entry(scheme, word(narrow, row));
            let scale = (entry.scale.to_bits() >> 16) as u16;
            wide[2 * format::header_word(row)..][..2].copy_from_slice(&scale.to_le_bytes());
            for feature in 0..GROUP {
                let place = format::code_place(row, feature);
                wide[HEADER + place] = format::code(scheme, &narrow[HEADER..], place, entry.base);
            }
        }
    }
}

/// The header word of a row.
pub(super) fn word(block: &[u8], row: usize) -> u16 {
    let at = 2 * format::header_word(row);
    u16::from_le_bytes([block[at], block[at + 1]])
}
