//! Resized frames in, rows of normalised patch values out, in the order in which the tower reads them.

use rayon::prelude::*;

use crate::{
    Error,
    geometry::{CHANNELS, Geometry},
};

/// Cuts `frames` into patches and normalises their values.
///
/// Rows run over time steps, then over the squares of `merge_size` x `merge_size` patches that become one token, in
/// raster order, then over the patches of a square, in raster order. Columns run over channel, time, row, column. When
/// the frames do not fill the last time step the last one is repeated: a still picture is one frame seen
/// `temporal_patch_size` times. (`_preprocess` of Transformers, `models/qwen2_vl/image_processing_qwen2_vl.py`.)
///
/// # Errors
/// [`Error::Frames`] when there are none or their sides are no multiples of [`Geometry::factor`], [`Error::Pixels`]
/// when the buffer has another length than the frames say, [`Error::Geometry`], [`Error::Normalization`], and
/// [`Error::Memory`] when the values do not fit into memory.
pub fn patchify(
    frames: &Frames<'_>,
    geometry: &Geometry,
    normalization: &Normalization,
) -> Result<Patches, Error> {
    geometry.check()?;
    frames.check(geometry.factor())?;
    let levels = normalization.levels()?;
    let &Geometry { patch_size, merge_size, temporal_patch_size } = geometry;

    let grid = Grid {
        t: frames.count.div_ceil(temporal_patch_size),
        h: frames.height / patch_size,
        w: frames.width / patch_size,
    };
    let row_values = geometry.patch_values();
    let token_rows = merge_size * merge_size;
    let count = grid.patches().and_then(|patches| patches.checked_mul(row_values)).unwrap_or(usize::MAX);
    let bytes = count.saturating_mul(size_of::<f32>());
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| Error::Memory { what: "patch values", bytes })?;
    values.resize(count, 0.0);

    let tokens_across = grid.w / merge_size;
    let tokens_per_step = grid.h / merge_size * tokens_across;
    values.par_chunks_exact_mut(row_values * token_rows).enumerate().for_each(|(token, rows)| {
        let (step, token) = (token / tokens_per_step, token % tokens_per_step);
        let (token_row, token_column) = (token / tokens_across, token % tokens_across);
        for (index, row) in rows.chunks_exact_mut(row_values).enumerate() {
            let top = (token_row * merge_size + index / merge_size) * patch_size;
            let left = (token_column * merge_size + index % merge_size) * patch_size;
            // Columns: channel, then time, then the patch's own rows.
            for (line, target) in row.chunks_exact_mut(patch_size).enumerate() {
                let y = line % patch_size;
                let time = line / patch_size % temporal_patch_size;
                let channel = line / patch_size / temporal_patch_size;
                let frame = (step * temporal_patch_size + time).min(frames.count - 1);
                let start = ((frame * frames.height + top + y) * frames.width + left) * CHANNELS;
                let source = frames.rgb[start..start + patch_size * CHANNELS].chunks_exact(CHANNELS);
                for (value, pixel) in target.iter_mut().zip(source) {
                    *value = levels[channel][usize::from(pixel[channel])];
                }
            }
        }
    });
    Ok(Patches { values, grid })
}

/// Frames of one size, all of them resized.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a> {
    /// How many there are; one for a still picture.
    pub count: usize,
    /// Height of each in pixels.
    pub height: usize,
    /// Width of each in pixels.
    pub width: usize,
    /// `(count, height, width, 3)`, red first.
    pub rgb: &'a [u8],
}

impl Frames<'_> {
    fn check(&self, factor: usize) -> Result<(), Error> {
        let &Self { count, height, width, rgb } = self;
        let reason = if count == 0 {
            "there must be one at least".to_owned()
        } else if height == 0 || width == 0 || height % factor != 0 || width % factor != 0 {
            format!("both sides must be positive multiples of {factor}")
        } else {
            let expected = [height, width, CHANNELS].iter().try_fold(count, |n, &side| n.checked_mul(side));
            if expected == Some(rgb.len()) {
                return Ok(());
            }
            let expected = expected.map_or("more than memory holds".to_owned(), |bytes| bytes.to_string());
            return Err(Error::Pixels { what: "frames", found: rgb.len(), expected, height, width });
        };
        Err(Error::Frames { count, height, width, reason })
    }
}

/// What is subtracted from, and divides, every channel once it lies between zero and one. Red first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// `image_mean` of `preprocessor_config.json`.
    pub mean: [f32; CHANNELS],
    /// `image_std` of `preprocessor_config.json`.
    pub std: [f32; CHANNELS],
}

impl Normalization {
    /// The normalised value of each of the 256 levels of each channel.
    ///
    /// Three roundings to f32, as NumPy does them for Transformers' Pillow path: `level * (1/255)`, minus the mean,
    /// divided by the deviation. A table makes the result independent of how a processor fuses or vectorises.
    fn levels(&self) -> Result<[[f32; 256]; CHANNELS], Error> {
        let mut levels = [[0.0; 256]; CHANNELS];
        for (channel, levels) in levels.iter_mut().enumerate() {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            if !mean.is_finite() {
                return Err(Error::Normalization {
                    name: "mean",
                    channel,
                    value: mean,
                    expected: "a finite number",
                });
            }
            if !std.is_normal() || std < 0.0 {
                return Err(Error::Normalization {
                    name: "std",
                    channel,
                    value: std,
                    expected: "a positive number",
                });
            }
            for (level, value) in levels.iter_mut().enumerate() {
                *value = (level as f32 * (1.0 / 255.0) - mean) / std;
            }
        }
        Ok(levels)
    }
}

/// The patches of one picture or clip.
#[derive(Clone, Debug, PartialEq)]
pub struct Patches {
    /// `(t * h * w, channels * temporal_patch_size * patch_size * patch_size)`.
    pub values: Vec<f32>,
    /// How the rows lie in time and space.
    pub grid: Grid,
}

/// The shape of one picture or clip in patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Time steps, each of `temporal_patch_size` frames; one for a still picture.
    pub t: usize,
    /// Patches down.
    pub h: usize,
    /// Patches across.
    pub w: usize,
}

impl Grid {
    /// How many patches there are, or nothing when the number does not fit.
    pub fn patches(&self) -> Option<usize> {
        self.t.checked_mul(self.h)?.checked_mul(self.w)
    }

    /// How many tokens the merger makes of them, with squares of `merge_size` x `merge_size` patches.
    pub fn tokens(&self, merge_size: usize) -> usize {
        let merge_size = merge_size.max(1);
        self.t.saturating_mul(self.h / merge_size).saturating_mul(self.w / merge_size)
    }
}
