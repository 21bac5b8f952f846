//! Resized frames in, rows of normalised patch values out, in the order in which the tower reads them.

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
/// This is the definition. [`crate::preprocess`] does the same together with resizing.
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
    for (token, rows) in values.chunks_exact_mut(row_values * token_rows).enumerate() {
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
    }
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
    /// Levels of eight bits lie between zero and one after this.
    pub(crate) const SCALE: f32 = 1.0 / 255.0;

    /// The normalised value of each of the 256 levels of each channel.
    ///
    /// Three roundings to f32, as NumPy does them for Transformers' Pillow path: `level * (1/255)`, minus the mean,
    /// divided by the deviation. A table makes the result independent of how a processor fuses or vectorises.
    fn levels(&self) -> Result<[[f32; 256]; CHANNELS], Error> {
        self.check()?;
        let mut levels = [[0.0; 256]; CHANNELS];
        for (levels, (mean, std)) in levels.iter_mut().zip(self.mean.into_iter().zip(self.std)) {
            for (level, value) in levels.iter_mut().enumerate() {
                *value = (level as f32 * Self::SCALE - mean) / std;
            }
        }
        Ok(levels)
    }

    /// Checks that all values will be numbers.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |name, channel, value, expected| Error::Normalization { name, channel, value, expected };
        for (channel, (mean, std)) in self.mean.into_iter().zip(self.std).enumerate() {
            if !mean.is_finite() {
                return Err(refuse("mean", channel, mean, "a finite number"));
            }
            if !std.is_normal() || std < 0.0 {
                return Err(refuse("std", channel, std, "a positive number"));
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    const OFFICIAL: Geometry = Geometry { patch_size: 14, merge_size: 2, temporal_patch_size: 2 };
    const SMALL: Geometry = Geometry { patch_size: 2, merge_size: 2, temporal_patch_size: 2 };
    /// Levels stay whole numbers, less the rounding of 1/255.
    const PLAIN: Normalization = Normalization { mean: [0.0; 3], std: [1.0 / 255.0; 3] };

    /// Two frames of 4 x 8 pixels whose values count up: the patch rows and columns are their places.
    #[test]
    fn order_of_rows_and_columns() {
        let rgb: Vec<u8> = (0..192).collect();
        let frames = Frames { count: 2, height: 4, width: 8, rgb: &rgb };
        let patches = patchify(&frames, &SMALL, &PLAIN).unwrap();
        assert_eq!(patches.grid, Grid { t: 1, h: 2, w: 4 });
        let levels: Vec<_> = patches.values.iter().map(|value| value.round() as u8).collect();
        let rows: Vec<_> = levels.chunks(24).collect();
        // The two tokens one after another, each with its four patches in raster order.
        let firsts: Vec<_> = rows.iter().map(|row| row[0]).collect();
        assert_eq!(firsts, [0, 6, 48, 54, 12, 18, 60, 66]);
        // Channel, time, row, column.
        #[rustfmt::skip]
        assert_eq!(rows[0], [
            0, 3, 24, 27, 96, 99, 120, 123,
            1, 4, 25, 28, 97, 100, 121, 124,
            2, 5, 26, 29, 98, 101, 122, 125,
        ]);
    }

    #[test]
    fn frames_of_time_steps() {
        // One value per frame; three frames fill one step and a half.
        let rgb: Vec<u8> = [10, 20, 30].iter().flat_map(|&level| [level; 4 * 4 * 3]).collect();
        let check = |count: usize, steps: &[[u8; 2]]| {
            let frames = Frames { count, height: 4, width: 4, rgb: &rgb[..count * 48] };
            let patches = patchify(&frames, &SMALL, &PLAIN).unwrap();
            assert_eq!(patches.grid, Grid { t: steps.len(), h: 2, w: 2 });
            let found: Vec<_> = patches
                .values
                .chunks(4 * 24)
                .map(|step| [step[0].round() as u8, step[4].round() as u8])
                .collect();
            assert_eq!(found, steps, "{count} frames");
        };
        check(1, &[[10, 10]]);
        check(2, &[[10, 20]]);
        check(3, &[[10, 20], [30, 30]]);
    }

    /// Values that NumPy gives in f32 for `(x * (1 / 255) - mean) / std` with the official numbers, by their bits.
    #[test]
    fn normalized_values() {
        let normalization = Normalization {
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73_f64].map(|x| x as f32),
            std: [0.268_629_54, 0.261_302_58, 0.275_777_11_f64].map(|x| x as f32),
        };
        let levels = normalization.levels().unwrap();
        assert_eq!(levels[0][0].to_bits(), 0xbfe568dc);
        assert_eq!(levels[0][255].to_bits(), 0x3ff71541);
        assert_eq!(levels[0][123].to_bits(), 0x3b5b2749);
        assert_eq!(levels[1][1].to_bits(), 0xbfde58f1);
        assert_eq!(levels[1][200].to_bits(), 0x3f9fee33);
        assert_eq!(levels[2][77].to_bits(), 0xbec542b8);
        assert_eq!(levels[2][254].to_bits(), 0x40086d66);
    }

    #[test]
    fn token_counts() {
        let grid = Grid { t: 2, h: 4, w: 6 };
        assert_eq!((grid.patches(), grid.tokens(2), grid.tokens(0)), (Some(48), 12, 48));
        assert_eq!(Grid { t: usize::MAX, h: 2, w: 2 }.patches(), None);
    }

    #[test]
    fn frames_that_do_not_fit_are_refused() {
        let check = |(count, height, width): (usize, usize, usize), geometry: &Geometry, words: &str| {
            let frames = Frames { count, height, width, rgb: &[0; 28 * 28 * 3] };
            let message = patchify(&frames, geometry, &PLAIN).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        };
        check((0, 28, 28), &OFFICIAL, "0 frames of 28x28 pixels");
        check((1, 28, 29), &OFFICIAL, "both sides must be positive multiples of 28");
        check((1, 14, 28), &OFFICIAL, "both sides must be positive multiples of 28");
        check((1, 0, 28), &OFFICIAL, "both sides must be positive multiples of 28");
        check(
            (2, 28, 28),
            &OFFICIAL,
            "frames: the buffer has 2352 bytes, expected 4704 for 28x28 RGB pixels",
        );
        check((usize::MAX, 28, 28), &OFFICIAL, "expected more than memory holds");
        check((1, 28, 28), &Geometry { patch_size: 0, ..OFFICIAL }, "vision geometry: patch_size is 0");
        check((1, 28, 28), &Geometry { merge_size: usize::MAX, ..OFFICIAL }, "merge_size is");
    }

    #[test]
    fn normalizations_that_give_no_numbers_are_refused() {
        let frames = Frames { count: 1, height: 4, width: 4, rgb: &[0; 48] };
        let check = |mean, std, words: &str| {
            let normalization = Normalization { mean: [0.0, 0.0, mean], std: [1.0, std, 1.0] };
            let message = patchify(&frames, &SMALL, &normalization).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        };
        check(0.5, 0.0, "image_std[1] is 0, expected a positive number");
        check(0.5, -1.0, "image_std[1] is -1");
        check(0.5, f32::NAN, "image_std[1] is NaN");
        check(f32::INFINITY, 1.0, "image_mean[2] is inf, expected a finite number");
    }
}
