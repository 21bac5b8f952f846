//! To which size a picture or a frame is resized before it is cut into patches: functions of numbers alone.

use crate::Error;

/// The size `(height, width)` that a picture of `height` x `width` pixels is resized to: multiples of `factor`, near
/// the original shape, with an area between the limits.
///
/// Both sides are rounded to the nearest multiple, halves to the even one; when the area is then outside of the
/// limits, both are scaled by the same amount and rounded down (when shrinking) or up (when growing). The area is not
/// checked again. [`Rule`] says where the three known versions part. Everything is f64 in the order of the originals,
/// so that the results are theirs to the pixel.
///
/// # Errors
/// [`Error::Size`] for a side of zero or beyond `u32::MAX`, [`Error::AspectRatio`] where the rule has such a limit,
/// [`Error::Vanishes`] when a side would become zero, [`Error::PixelLimits`] and [`Error::Geometry`] for arguments
/// that make no sense.
pub fn smart_resize(
    height: usize,
    width: usize,
    factor: usize,
    limits: &PixelLimits,
) -> Result<(usize, usize), Error> {
    let area = Area { min_pixels: limits.min_pixels, max_pixels: limits.max_pixels as f64 };
    resize_within(limits.rule, (height, width), factor, &area)
}

/// The size `(height, width)` that every frame of a clip is resized to: [`smart_resize`] with the limits of
/// [`frame_limits`], of which the upper one may be a fraction.
///
/// # Errors
/// As [`smart_resize`].
pub fn smart_resize_frame(
    height: usize,
    width: usize,
    factor: usize,
    limits: &FrameLimits,
) -> Result<(usize, usize), Error> {
    let area = Area { min_pixels: limits.min_pixels, max_pixels: limits.max_pixels };
    resize_within(limits.rule, (height, width), factor, &area)
}

/// The limits of each frame when `n_frames` of them share the clip's total.
///
/// `max = max(min(frame_max, total / n_frames * temporal_patch_size), trunc(1.05 * min))`, from `fetch_video` of
/// qwen-vl-utils 0.0.14 and the hosted guide's `smart_resize` for clips.
///
/// # Errors
/// [`Error::Frames`] when there are no frames.
pub fn frame_limits(n_frames: usize, clip: &ClipLimits) -> Result<FrameLimits, Error> {
    if n_frames == 0 {
        return Err(Error::Frames {
            count: 0,
            height: 0,
            width: 0,
            reason: "a clip has one frame at least".to_owned(),
        });
    }
    let share = clip.total_pixels as f64 / n_frames as f64 * clip.temporal_patch_size as f64;
    let least = (clip.min_pixels as f64 * 1.05).trunc();
    let max_pixels = (clip.frame_max_pixels as f64).min(share).max(least);
    Ok(FrameLimits { rule: clip.rule, min_pixels: clip.min_pixels, max_pixels })
}

/// Which version of the rule is followed. They differ for thin pictures only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// `smart_resize` of Transformers (`models/qwen2_vl/image_processing_qwen2_vl.py`): a side that *shrinking* made
    /// zero becomes one factor; sides may differ 200 times at most.
    Transformers,
    /// `smart_resize` of qwen-vl-utils (`vision_process.py`): sides are raised to one factor *before* the area is
    /// looked at; they may differ 200 times at most.
    Utils,
    /// The hosted guide's calculator: neither of the two, and no limit on thinness.
    Hosted,
}

/// Between which areas a picture is brought, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PixelLimits {
    /// The version of the rule.
    pub rule: Rule,
    /// Smaller pictures grow to at least about this area, in pixels.
    pub min_pixels: usize,
    /// Larger pictures shrink to at most this area, in pixels.
    pub max_pixels: usize,
}

impl PixelLimits {
    /// The hosted service's default for the official tokens of 28x28 pixels: 4 to 1280 of them.
    pub const HOSTED: Self =
        Self { rule: Rule::Hosted, min_pixels: 4 * TOKEN_PIXELS, max_pixels: 1280 * TOKEN_PIXELS };
    /// The hosted service with `vl_high_resolution_images`: 4 to 16384 tokens.
    pub const HOSTED_HIGH_RESOLUTION: Self =
        Self { rule: Rule::Hosted, min_pixels: 4 * TOKEN_PIXELS, max_pixels: 16384 * TOKEN_PIXELS };
    /// Transformers with the official checkpoints' `preprocessor_config.json`.
    pub const TRANSFORMERS: Self =
        Self { rule: Rule::Transformers, min_pixels: 4 * TOKEN_PIXELS, max_pixels: 16384 * TOKEN_PIXELS };
}

/// How much a clip may occupy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClipLimits {
    /// The version of the rule.
    pub rule: Rule,
    /// Lower limit of one frame, in pixels.
    pub min_pixels: usize,
    /// Upper limit of one frame, in pixels.
    pub frame_max_pixels: usize,
    /// What all frames share, in pixels, each counted once per `temporal_patch_size` frames.
    pub total_pixels: usize,
    /// Frames that one patch spans.
    pub temporal_patch_size: usize,
}

/// Between which areas one frame of a clip is brought.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameLimits {
    /// The version of the rule.
    pub rule: Rule,
    /// Lower limit, in pixels.
    pub min_pixels: usize,
    /// Upper limit, in pixels; a quotient, which the originals do not round.
    pub max_pixels: f64,
}

/// Pixels of one token of the official checkpoints. Only the named limits use it: they are published in tokens.
const TOKEN_PIXELS: usize = 28 * 28;

/// Transformers and qwen-vl-utils refuse pictures thinner than one to this.
const ASPECT_RATIO_LIMIT: usize = 200;

/// Products of two sides up to this are exact enough in f64 and fit `u64`.
const LARGEST_SIDE: usize = u32::MAX as usize;

/// Upper limits beyond this serve nobody, and their square roots would lose whole pixels.
const LARGEST_AREA: f64 = (1u64 << 48) as f64;

/// The two limits as the formulas need them.
struct Area {
    min_pixels: usize,
    max_pixels: f64,
}

fn resize_within(
    rule: Rule,
    (height, width): (usize, usize),
    factor: usize,
    area: &Area,
) -> Result<(usize, usize), Error> {
    let &Area { min_pixels, max_pixels } = area;
    let short = height.min(width);
    let long = height.max(width);
    if short == 0 || long > LARGEST_SIDE {
        return Err(Error::Size { height, width, largest: LARGEST_SIDE });
    }
    if factor == 0 || factor > LARGEST_SIDE {
        let expected = format!("1 to {LARGEST_SIDE}");
        return Err(Error::Geometry { name: "factor", value: factor, expected });
    }
    if !(1.0..=LARGEST_AREA).contains(&max_pixels) || min_pixels as f64 > max_pixels {
        return Err(Error::PixelLimits { min_pixels, max_pixels });
    }
    if rule != Rule::Hosted && long as f64 / short as f64 > ASPECT_RATIO_LIMIT as f64 {
        return Err(Error::AspectRatio { height, width, limit: ASPECT_RATIO_LIMIT });
    }

    let nearest = |side: usize| (side as f64 / factor as f64).round_ties_even() as u64 * factor as u64;
    // Python computes this product as an integer and rounds it once, in the division below; so do we.
    let original_area = (height as u64 * width as u64) as f64;
    let (mut new_height, mut new_width) = (nearest(height), nearest(width));
    if rule == Rule::Utils {
        new_height = new_height.max(factor as u64);
        new_width = new_width.max(factor as u64);
    }
    let new_area = u128::from(new_height) * u128::from(new_width);
    if new_area as f64 > max_pixels {
        let beta = (original_area / max_pixels).sqrt();
        let shrunk = |side: usize| (side as f64 / beta / factor as f64).floor() as u64 * factor as u64;
        (new_height, new_width) = (shrunk(height), shrunk(width));
        if rule == Rule::Transformers {
            new_height = new_height.max(factor as u64);
            new_width = new_width.max(factor as u64);
        }
    } else if new_area < min_pixels as u128 {
        let beta = (min_pixels as f64 / original_area).sqrt();
        let grown = |side: usize| (side as f64 * beta / factor as f64).ceil() as u64 * factor as u64;
        (new_height, new_width) = (grown(height), grown(width));
    }
    let sides = (usize::try_from(new_height), usize::try_from(new_width));
    match sides {
        (Ok(new_height), Ok(new_width)) if new_height > 0 && new_width > 0 => Ok((new_height, new_width)),
        (new_height, new_width) => Err(Error::Vanishes {
            height,
            width,
            new_height: new_height.unwrap_or(usize::MAX),
            new_width: new_width.unwrap_or(usize::MAX),
            max_pixels,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UTILS: PixelLimits = PixelLimits { rule: Rule::Utils, ..PixelLimits::TRANSFORMERS };

    /// `(height, width)` and what Transformers, qwen-vl-utils, and the hosted calculator's two limits make of it.
    #[test]
    fn sizes_under_every_rule() {
        let check = |(height, width), sizes: [Option<(usize, usize)>; 4]| {
            let limits =
                [PixelLimits::TRANSFORMERS, UTILS, PixelLimits::HOSTED, PixelLimits::HOSTED_HIGH_RESOLUTION];
            let found = limits.map(|limits| smart_resize(height, width, 28, &limits).ok());
            assert_eq!(found, sizes, "{height}x{width}");
        };
        check((1365, 2048), [Some((1372, 2044)), Some((1372, 2044)), Some((812, 1204)), Some((1372, 2044))]);
        check((28, 28), [Some((56, 56)), Some((56, 56)), Some((56, 56)), Some((56, 56))]);
        check((1, 1), [Some((56, 56)), Some((56, 56)), Some((56, 56)), Some((56, 56))]);
        check((42, 70), [Some((56, 56)), Some((56, 56)), Some((56, 56)), Some((56, 56))]);
        check((14, 14), [Some((56, 56)), Some((56, 56)), Some((56, 56)), Some((56, 56))]);
        check((1, 200), [Some((28, 812)), Some((28, 196)), Some((28, 812)), Some((28, 812))]);
        check((1, 201), [None, None, Some((28, 812)), Some((28, 812))]);
        check((200, 1), [Some((812, 28)), Some((196, 28)), Some((812, 28)), Some((812, 28))]);
        check((10, 246), [Some((28, 280)), Some((28, 252)), Some((28, 280)), Some((28, 280))]);
        check((14, 1430), [Some((28, 588)), Some((28, 1428)), Some((28, 588)), Some((28, 588))]);
        check((126, 14), [Some((168, 28)), Some((112, 28)), Some((168, 28)), Some((168, 28))]);
        check((8, 1964), [None, None, Some((28, 896)), Some((28, 896))]);
        check((980, 980), [Some((980, 980)), Some((980, 980)), Some((980, 980)), Some((980, 980))]);
        check((3024, 4032), [Some((3024, 4032)), Some((3024, 4032)), Some((840, 1148)), Some((3024, 4032))]);
        check((65535, 65535), [Some((3584, 3584)), Some((3584, 3584)), Some((980, 980)), Some((3584, 3584))]);
        check((5, 901), [Some((28, 756)), Some((28, 896)), Some((28, 756)), Some((28, 756))]);
        check((4500, 30), [Some((4508, 28)), Some((4508, 28)), Some((4508, 28)), Some((4508, 28))]);
    }

    #[test]
    fn other_factors() {
        let limits = PixelLimits { rule: Rule::Utils, min_pixels: 1, max_pixels: 1 << 20 };
        // Halves go to the even multiple.
        assert_eq!(smart_resize(48, 80, 32, &limits).unwrap(), (64, 64));
        assert_eq!(smart_resize(112, 176, 32, &limits).unwrap(), (128, 192));
        assert_eq!(smart_resize(7, 9, 1, &limits).unwrap(), (7, 9));
    }

    #[test]
    fn limits_of_frames() {
        let check = |n_frames, total_pixels, max_pixels| {
            let clip = ClipLimits {
                rule: Rule::Utils,
                min_pixels: 128 * 784,
                frame_max_pixels: 768 * 784,
                total_pixels,
                temporal_patch_size: 2,
            };
            let limits = frame_limits(n_frames, &clip).unwrap();
            assert_eq!(limits, FrameLimits { rule: Rule::Utils, min_pixels: 100_352, max_pixels });
            limits
        };
        check(2, 65536 * 784, 602_112.0);
        check(300, 65536 * 784, 342_534.826_666_666_66);
        check(512, 24576 * 784, 105_369.0);
        check(768, 90_316_800, 235_200.0);
        let limits = check(171, 65536 * 784, 600_938.292_397_660_8);
        assert_eq!(smart_resize_frame(1080, 1920, 28, &limits).unwrap(), (560, 1008));
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        let check = |(height, width), factor, limits: PixelLimits, words: &str| {
            let message = smart_resize(height, width, factor, &limits).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        };
        let hosted = PixelLimits::HOSTED;
        check((0, 5), 28, hosted, "a picture of 0x5 pixels (height x width) can't be resized");
        check((5, 0), 28, hosted, "5x0");
        check((usize::MAX, 1), 28, hosted, "can't be resized");
        check(
            (1, 201),
            28,
            UTILS,
            "1x201 pixels (height x width) is too thin: the sides may differ 200 times",
        );
        check((28, 28), 0, hosted, "factor is 0");
        check((28, 28), usize::MAX, hosted, "factor is");
        check((28, 28), 28, PixelLimits { max_pixels: 0, min_pixels: 0, ..hosted }, "pixel limits 0 to 0");
        check((28, 28), 28, PixelLimits { min_pixels: 9, max_pixels: 8, ..hosted }, "pixel limits 9 to 8");
        check((28, 28), 28, PixelLimits { max_pixels: usize::MAX, ..hosted }, "pixel limits");
        // 20 x 70000 rounds to 28 x 70000, which is too large; halving it leaves no row.
        check((20, 70_000), 28, hosted, "would shrink to 0x");
        let limits = FrameLimits { rule: Rule::Utils, min_pixels: 1, max_pixels: f64::NAN };
        assert!(smart_resize_frame(28, 28, 28, &limits).is_err());
        let clip = ClipLimits {
            rule: Rule::Utils,
            min_pixels: usize::MAX,
            frame_max_pixels: usize::MAX,
            total_pixels: usize::MAX,
            temporal_patch_size: usize::MAX,
        };
        assert!(frame_limits(0, &clip).is_err());
        assert!(smart_resize_frame(28, 28, 28, &frame_limits(1, &clip).unwrap()).is_err());
    }

    #[test]
    fn every_size_is_positive_and_divides() {
        let sides = [1, 2, 13, 14, 15, 27, 28, 29, 42, 300, 5000, 70_000, 1 << 20, LARGEST_SIDE];
        for (height, width) in sides.iter().flat_map(|&h| sides.iter().map(move |&w| (h, w))) {
            for limits in [PixelLimits::TRANSFORMERS, UTILS, PixelLimits::HOSTED] {
                if let Ok((new_height, new_width)) = smart_resize(height, width, 28, &limits) {
                    assert!(new_height > 0 && new_height % 28 == 0, "{height}x{width}");
                    assert!(new_width > 0 && new_width % 28 == 0, "{height}x{width}");
                }
            }
        }
    }
}
