//! Decoded frames of any size in, rows of patch values out: [`bicubic::resize`] and [`patchify`] in one pass that
//! never writes the resized frames down. Those two stay as the definition, which this equals to the bit.
//!
//! [`patchify`]: crate::patches::patchify

use ocellus_kernels::resample::{self, Cut, Resample, Scaling};

use crate::{
    Error, Geometry,
    bicubic::{self, Weights},
    geometry::CHANNELS,
    patches::{Grid, Normalization, Patches},
};

/// The patches of one picture or clip, while its frames come in one after another.
#[derive(Debug)]
pub struct Preprocessor {
    size: (usize, usize),
    frames: usize,
    /// How many frames came in so far.
    seen: usize,
    cut: Cut,
    scaling: Scaling,
    patches: Patches,
    /// What the last frame was resized with, and from which size: the next one is likely to have it too.
    weights: Option<((usize, usize), Weights, Weights)>,
}

impl Preprocessor {
    /// Room for `frames` frames that will all be resized to `size`, `(height, width)`.
    ///
    /// # Errors
    /// [`Error::Frames`] when there are none or the sides are no multiples of [`Geometry::factor`],
    /// [`Error::Geometry`], [`Error::Normalization`], and [`Error::Kernel`] when there is no memory for the values.
    pub fn new(
        frames: usize,
        size: (usize, usize),
        geometry: &Geometry,
        normalization: &Normalization,
    ) -> Result<Self, Error> {
        geometry.check()?;
        normalization.check()?;
        let (height, width) = size;
        let refuse = |reason: String| Error::Frames { count: frames, height, width, reason };
        let factor = geometry.factor();
        if frames == 0 {
            return Err(refuse("there must be one at least".to_owned()));
        }
        if height == 0 || width == 0 || height % factor != 0 || width % factor != 0 {
            return Err(refuse(format!("both sides must be positive multiples of {factor}")));
        }
        let &Geometry { patch_size, merge_size, temporal_patch_size } = geometry;
        let grid =
            Grid { t: frames.div_ceil(temporal_patch_size), h: height / patch_size, w: width / patch_size };
        let count = grid.patches().and_then(|patches| patches.checked_mul(geometry.patch_values()));
        Ok(Self {
            size,
            frames,
            seen: 0,
            cut: Cut { patch: patch_size, merge: merge_size, temporal: temporal_patch_size },
            scaling: Scaling {
                scale: Normalization::SCALE,
                mean: normalization.mean,
                std: normalization.std,
            },
            patches: Patches { values: resample::unfilled(count.unwrap_or(usize::MAX))?, grid },
            weights: None,
        })
    }

    /// Takes the next frame, `rgb: (height, width, 3)` u8 of `from`, `(height, width)`.
    ///
    /// # Errors
    /// [`Error::Pixels`] when the buffer is not as long as `from` says, [`Error::Size`] when a side is zero or too
    /// long, [`Error::Frames`] when all frames have come already, and [`Error::Memory`] or [`Error::Kernel`] when
    /// tables do not fit into memory.
    pub fn push(&mut self, rgb: &[u8], from: (usize, usize)) -> Result<(), Error> {
        bicubic::check(rgb, from, self.size)?;
        let temporal = self.cut.temporal;
        if self.seen == self.frames {
            let (count, (height, width)) = (self.frames, self.size);
            return Err(Error::Frames { count, height, width, reason: "another one came".to_owned() });
        }
        let weights = match self.weights.take() {
            Some(weights) if weights.0 == from => weights,
            _ => (from, Weights::new(from.0, self.size.0)?, Weights::new(from.1, self.size.1)?),
        };
        let (_, down, across) = &*self.weights.insert(weights);
        // The last frame is repeated until its time step is full.
        let first = self.seen % temporal;
        let last = self.seen + 1 == self.frames;
        let frame = Resample {
            rgb,
            down: down.axis(from.0),
            across: across.axis(from.1),
            scaling: self.scaling,
            cut: self.cut,
            times: first..if last { temporal } else { first + 1 },
        };
        let step_values = CHANNELS * temporal * self.size.0 * self.size.1;
        let step = self.seen / temporal;
        resample::resample(&frame, &mut self.patches.values[step * step_values..][..step_values])?;
        self.seen += 1;
        Ok(())
    }

    /// The patches, when all frames have come.
    ///
    /// # Errors
    /// [`Error::Frames`] when some are missing.
    pub fn finish(self) -> Result<Patches, Error> {
        if self.seen == self.frames {
            return Ok(self.patches);
        }
        let (height, width) = self.size;
        let reason = format!("only {} came", self.seen);
        Err(Error::Frames { count: self.frames, height, width, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patches::{Frames, patchify};

    const OFFICIAL: Geometry = Geometry { patch_size: 14, merge_size: 2, temporal_patch_size: 2 };
    const NORMALIZATION: Normalization = Normalization {
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
    };

    /// Noise with black and white half of the time: edges where rounding and cutting off show.
    fn picture(seed: u32, (height, width): (usize, usize)) -> Vec<u8> {
        let mut state = seed;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = (state >> 24) as u8;
            if state >> 20 & 1 == 0 { value } else { 255 * (value & 1) }
        };
        (0..height * width * CHANNELS).map(|_| random()).collect()
    }

    fn check(frames: &[(usize, usize)], to: (usize, usize), geometry: &Geometry) {
        let mut preprocessor = Preprocessor::new(frames.len(), to, geometry, &NORMALIZATION).unwrap();
        let mut resized = Vec::new();
        for (seed, &from) in (1..).zip(frames) {
            let rgb = picture(seed, from);
            preprocessor.push(&rgb, from).unwrap();
            resized.extend(bicubic::resize(&rgb, from, to).unwrap());
        }
        let all = Frames { count: frames.len(), height: to.0, width: to.1, rgb: &resized };
        let expected = patchify(&all, geometry, &NORMALIZATION).unwrap();
        let found = preprocessor.finish().unwrap();
        assert_eq!(found.grid, expected.grid);
        let bits = |patches: &Patches| patches.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert!(bits(&found) == bits(&expected), "{frames:?} to {to:?}, {geometry:?}");
    }

    #[test]
    fn pictures_equal_the_two_steps() {
        let sides = [1, 2, 3, 13, 27, 28, 29, 56, 61, 101, 300];
        for (index, from) in sides.iter().flat_map(|&h| sides.iter().map(move |&w| (h, w))).enumerate() {
            let to = (28 * (1 + index % 4), 28 * (1 + index / 4 % 5));
            check(&[from], to, &OFFICIAL);
        }
        // Sides that stay as they are, one or both.
        for (from, to) in [((56, 84), (56, 84)), ((56, 90), (56, 84)), ((50, 84), (56, 84))] {
            check(&[from], to, &OFFICIAL);
        }
    }

    #[test]
    fn clips_equal_the_two_steps() {
        check(&[(30, 50); 4], (28, 56), &OFFICIAL);
        check(&[(30, 50); 3], (28, 56), &OFFICIAL);
        check(&[(30, 50), (90, 31), (90, 31), (28, 56), (1, 1)], (28, 56), &OFFICIAL);
        let geometry = Geometry { patch_size: 3, merge_size: 3, temporal_patch_size: 4 };
        check(&[(30, 50); 6], (27, 18), &geometry);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let message = |outcome: Result<_, Error>| outcome.map(|_: Patches| ()).unwrap_err().to_string();
        let new = |frames, size, normalization: &Normalization| {
            Preprocessor::new(frames, size, &OFFICIAL, normalization).and_then(Preprocessor::finish)
        };
        assert!(message(new(0, (28, 28), &NORMALIZATION)).contains("0 frames of 28x28"));
        assert!(message(new(1, (28, 0), &NORMALIZATION)).contains("positive multiples of 28"));
        assert!(message(new(1, (42, 28), &NORMALIZATION)).contains("positive multiples of 28"));
        assert!(message(new(2, (28, 28), &NORMALIZATION)).contains("only 0 came"));
        assert!(message(new(usize::MAX, (28, 28), &NORMALIZATION)).contains("patch values"));
        let flat = Normalization { std: [1.0, 0.0, 1.0], ..NORMALIZATION };
        assert!(message(new(1, (28, 28), &flat)).contains("image_std[1] is 0"));

        let mut one = Preprocessor::new(1, (28, 28), &OFFICIAL, &NORMALIZATION).unwrap();
        let mut push = |rgb: &[u8], from| one.push(rgb, from).unwrap_err().to_string();
        assert!(push(&[0; 12], (2, 3)).contains("the buffer has 12 bytes, expected 18"));
        assert!(push(&[], (0, 3)).contains("0x3 pixels"));
        one.push(&[0; 12], (2, 2)).unwrap();
        assert!(one.push(&[0; 12], (2, 2)).unwrap_err().to_string().contains("another one came"));
    }
}
