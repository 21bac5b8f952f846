//! Attention within segments on a CUDA device. Segments of at most a window's length go to one kernel, longer ones to
//! another: which one depends on a segment's own length alone.

use std::sync::Arc;

use super::{THREADS, TILE, check_scale, stride, tiled_bytes};
use crate::{
    DType, Result,
    attention::VARLEN_ROTATED as OP,
    cuda::{Argument, CudaTensor, Gpu, Launch},
    error::argument,
    rotary::cuda::{Heads, rotate},
};

/// The longest segment that is computed as a window.
const WINDOW: usize = 64;

/// Segments in a device's memory.
#[derive(Clone, Debug)]
pub(crate) struct DeviceSegments {
    /// First token and length of each window.
    windows: CudaTensor,
    n_windows: usize,
    /// For each tile of queries of a longer segment: the segment's first token, its length, the tile's first query, and 0.
    tiles: CudaTensor,
    n_tiles: usize,
    tokens: usize,
}

impl DeviceSegments {
    /// Segments of `lengths` tokens, one after another.
    pub(crate) fn new(gpu: &Arc<Gpu>, lengths: &[usize]) -> Result<Self> {
        let Lists { windows, tiles, tokens } = Lists::new(lengths)?;
        let (n_windows, n_tiles) = (windows.len(), tiles.len());
        let mut all = tiles.into_flattened();
        all.extend(windows.as_flattened());
        // Nothing is nowhere; one integer is somewhere.
        all.resize(all.len().max(1), 0);
        let all = gpu.integers(&all)?;
        Ok(Self {
            tiles: all.narrow(0, 0, 4 * n_tiles)?,
            windows: all.narrow(0, 4 * n_tiles, 2 * n_windows)?,
            n_windows,
            n_tiles,
            tokens,
        })
    }
}

/// What [`DeviceSegments`] holds.
struct Lists {
    windows: Vec<[u32; 2]>,
    tiles: Vec<[u32; 4]>,
    tokens: usize,
}

impl Lists {
    fn new(lengths: &[usize]) -> Result<Self> {
        let (mut windows, mut tiles, mut start) = (Vec::new(), Vec::new(), 0usize);
        for &length in lengths {
            let end = start.checked_add(length).filter(|&end| end <= i32::MAX as usize);
            let Some(end) = end else {
                return Err(argument(OP, "lengths", length, format!("at most {} in sum", i32::MAX)));
            };
            if length > WINDOW {
                let [queries, _] = TILE;
                let firsts = (0..length).step_by(queries);
                tiles.extend(firsts.map(|first| [start as u32, length as u32, first as u32, 0]));
            } else if length > 0 {
                windows.push([start as u32, length as u32]);
            }
            start = end;
        }
        Ok(Self { windows, tiles, tokens: start })
    }
}

/// A fused projection, not yet rotated.
pub(crate) struct Rotated<'a> {
    /// `(tokens, 3 * heads * head_dim)`: queries, keys and values side by side.
    pub(crate) qkv: &'a CudaTensor,
    /// `(tokens, head_dim)` f32, and so is `sin`.
    pub(crate) cos: &'a CudaTensor,
    pub(crate) sin: &'a CudaTensor,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
}

/// The kernels for windows and for longer segments with heads of this width, if there are any.
pub(crate) fn kernels(head_dim: usize) -> Option<[&'static str; 2]> {
    Some(match head_dim {
        16 => ["attention_windows_16", "attention_frames_16"],
        32 => ["attention_windows_32", "attention_frames_32"],
        64 => ["attention_windows_64", "attention_frames_64"],
        80 => ["attention_windows_80", "attention_frames_80"],
        _ => return None,
    })
}

/// Attention within `segments`; gives `(tokens, heads * head_dim)` bf16. Shapes are as checked in
/// [`crate::attention::varlen_rotated`].
pub(crate) fn forward(
    rotated: &Rotated<'_>,
    segments: &DeviceSegments,
    scale: f32,
    [for_windows, for_frames]: [&'static str; 2],
) -> Result<CudaTensor> {
    let &Rotated { qkv, cos, sin, heads, head_dim } = rotated;
    check_scale(OP, scale)?;
    let qkv = &qkv.to_dtype(DType::BF16)?;
    let tokens = qkv.shape()[0];
    if segments.tokens != tokens {
        return Err(argument(OP, "lengths", segments.tokens, format!("{tokens} in sum")));
    }
    let gpu = qkv.gpu();
    let out = gpu.uninitialised(&[tokens, heads * head_dim], DType::BF16)?;
    if segments.n_windows > 0 {
        let multiprocessors = gpu.driver().facts().multiprocessors as usize;
        let each = heads_per_block(segments.n_windows, heads, multiprocessors);
        let arguments = [
            Argument::from(qkv),
            Argument::from(cos),
            Argument::from(sin),
            Argument::from(&segments.windows),
            Argument::from(&out),
            Argument::u32(heads as u32),
            Argument::u32(each as u32),
            Argument::f32(scale),
        ];
        gpu.launch(for_windows, windows_geometry(segments.n_windows, heads, each, head_dim), &arguments)?;
    }
    if segments.n_tiles > 0 {
        // Every key is read by many tiles of queries, so it is rotated once, beforehand.
        let rotated = rotate(&Heads { x: qkv, heads: 2 * heads, head_dim }, cos, sin)?;
        let arguments = [
            Argument::from(&rotated),
            Argument::from(qkv),
            Argument::from(&segments.tiles),
            Argument::from(&out),
            Argument::u32(heads as u32),
            Argument::f32(scale),
        ];
        gpu.launch(for_frames, frames_geometry(segments.n_tiles, heads, head_dim), &arguments)?;
    }
    Ok(out)
}

/// How many heads of a window one block computes one after another: the more, the less often angles are read, but the
/// device should be full, with four blocks on each multiprocessor.
fn heads_per_block(windows: usize, heads: usize, multiprocessors: usize) -> usize {
    let full = |&each: &usize| windows * heads.div_ceil(each) >= 4 * multiprocessors;
    [4, 2].into_iter().find(full).unwrap_or(1)
}

fn windows_geometry(windows: usize, heads: usize, each: usize, head_dim: usize) -> Launch {
    Launch {
        grid: [windows as u32, heads.div_ceil(each) as u32, 1],
        block: [THREADS, 1, 1],
        shared_bytes: (3 * WINDOW * stride(head_dim)) as u32,
    }
}

fn frames_geometry(tiles: usize, heads: usize, head_dim: usize) -> Launch {
    Launch {
        grid: [tiles as u32, heads as u32, 1],
        block: [THREADS, 1, 1],
        shared_bytes: tiled_bytes(head_dim),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_segment_goes_where_its_length_belongs() {
        let Lists { windows, tiles, tokens } = Lists::new(&[64, 0, 65, 4, 257]).unwrap();
        assert_eq!(windows, [[0, 64], [129, 4]]);
        assert_eq!(tiles, [[64, 65, 0, 0], [133, 257, 0, 0], [133, 257, 128, 0], [133, 257, 256, 0]]);
        assert_eq!(tokens, 390);
        assert!(Lists::new(&[usize::MAX, 2]).is_err());
    }

    #[test]
    fn blocks_fill_the_device() {
        // Windows of a picture of 1,280 tokens, of one of 16,384, and one window.
        for ((windows, heads, multiprocessors), each) in
            [((80, 16, 132), 2), ((1024, 16, 132), 4), ((1, 16, 132), 1), ((1000, 3, 4), 4)]
        {
            assert_eq!(heads_per_block(windows, heads, multiprocessors), each, "{windows}, {heads}");
        }
        let launch = windows_geometry(80, 16, 4, 80);
        assert_eq!((launch.grid, launch.shared_bytes), ([80, 4, 1], 33_792));
        assert_eq!(windows_geometry(5, 3, 2, 16).grid, [5, 2, 1]);
        assert_eq!(frames_geometry(512, 16, 80).grid, [512, 16, 1]);
    }
}
