//! How many tokens pictures and clips take, as functions of their sizes alone: the hosted guide's calculators. Nothing
//! is decoded and no model is needed; all four sizes of Qwen2.5-VL count alike.

use std::sync::Arc;

use ocellus_media::{Budget, FrameCount, Sampling, smart_nframes};
use ocellus_vision_encoder::resize::{
    ClipLimits, PixelLimits, Rule, frame_limits, smart_resize, smart_resize_frame,
};

use crate::prepare::{decode, refused_by_hosted};
use crate::{Error, MediaFault, MediaSize};

/// Side of the square of pixels that one token stands for.
const TOKEN_SIDE: usize = 28;
/// Frames that one token spans.
const FRAMES_PER_STEP: usize = 2;

/// What is known of a clip before it is decoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipNumbers {
    /// Of each frame, in pixels.
    pub height: usize,
    /// Of each frame, in pixels.
    pub width: usize,
    /// Frames in the file, as its container says.
    pub total_frames: usize,
    /// Frames per second of the file.
    pub frame_rate: f64,
    /// Frames per second that the model is shown.
    pub fps: f64,
}

/// How the model would see a picture of `height` x `width` pixels.
///
/// # Errors
/// [`MediaFault::Size`] for sizes that a request with such a picture would be refused for.
pub fn picture_tokens(height: usize, width: usize, limits: &PixelLimits) -> Result<MediaSize, MediaFault> {
    let fault = MediaFault::Size { height, width };
    if refused_by_hosted(limits.rule, height, width) {
        return Err(fault);
    }
    let seen = smart_resize(height, width, TOKEN_SIDE, limits).map_err(|_| fault)?;
    Ok(MediaSize { original: (height, width), seen, frames: 1, tokens: tokens(seen, 1) })
}

/// How the model would see a clip: the hosted guide's `smart_nframes` and its `smart_resize` for clips.
///
/// # Errors
/// [`MediaFault::Size`] for sizes that can't be shown, [`MediaFault::Clip`] for numbers that make no sense.
pub fn clip_tokens(clip: &ClipNumbers) -> Result<MediaSize, MediaFault> {
    let &ClipNumbers { height, width, total_frames, frame_rate, fps } = clip;
    let fault = MediaFault::Size { height, width };
    if refused_by_hosted(Rule::Hosted, height, width) {
        return Err(fault);
    }
    let sampling =
        Sampling { rule: FrameCount::Hosted, fps, min_frames: 4, max_frames: 512, multiple: FRAMES_PER_STEP };
    let frames = smart_nframes(total_frames, frame_rate, &sampling)
        .map_err(|error| MediaFault::Clip(error.to_string()))?;
    let token_pixels = TOKEN_SIDE * TOKEN_SIDE;
    let limits = ClipLimits {
        // Clips alone have sides raised to one token before their area is looked at.
        rule: Rule::Utils,
        min_pixels: 128 * token_pixels,
        frame_max_pixels: 768 * token_pixels,
        total_pixels: 65536 * token_pixels,
        temporal_patch_size: FRAMES_PER_STEP,
    };
    let limits = frame_limits(frames, &limits).map_err(|error| MediaFault::Clip(error.to_string()))?;
    let seen = smart_resize_frame(height, width, TOKEN_SIDE, &limits).map_err(|_| fault)?;
    Ok(MediaSize { original: (height, width), seen, frames, tokens: tokens(seen, frames) })
}

/// The upright size `(height, width)` of a picture file.
///
/// # Errors
/// [`MediaFault`] when a request with this file would be refused for what it is.
pub fn picture_size(file: Arc<[u8]>, budget: &Budget) -> Result<(usize, usize), MediaFault> {
    match decode(&file, budget, 0) {
        Ok(picture) => Ok((picture.height, picture.width)),
        Err(Error::Media { reason, .. }) => Err(reason),
        Err(other) => Err(MediaFault::Broken(other.to_string())),
    }
}

fn tokens((height, width): (usize, usize), frames: usize) -> usize {
    (height / TOKEN_SIDE).saturating_mul(width / TOKEN_SIDE).saturating_mul(frames.div_ceil(FRAMES_PER_STEP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_s_pictures() {
        let check = |height, width, limits, tokens| {
            assert_eq!(
                picture_tokens(height, width, &limits).map(|seen| seen.tokens),
                Ok(tokens),
                "{height}x{width}"
            );
        };
        check(1365, 2048, PixelLimits::HOSTED, 1247);
        check(1280, 1280, PixelLimits::HOSTED, 1225);
        check(1280, 1280, PixelLimits::HOSTED_HIGH_RESOLUTION, 2116);
        check(11, 500, PixelLimits::HOSTED, 14);
        check(13, 13, PixelLimits::HOSTED, 4);
        for (height, width) in [(0, 5), (10, 100), (11, 2201), (usize::MAX, usize::MAX)] {
            let refused = picture_tokens(height, width, &PixelLimits::HOSTED);
            assert_eq!(refused, Err(MediaFault::Size { height, width }));
        }
    }

    #[test]
    fn the_guide_s_clips() {
        let check = |(width, height), total_frames, frame_rate, fps, frames, tokens| {
            let seen = clip_tokens(&ClipNumbers { height, width, total_frames, frame_rate, fps });
            assert_eq!(seen.map(|seen| (seen.frames, seen.tokens)), Ok((frames, tokens)), "{width}x{height}");
        };
        check((320, 240), 40, 10.0, 2.0, 8, 560);
        check((640, 360), 175, 25.0, 1.0, 7, 1196);
        check((320, 240), 26, 10.0, 2.0, 5, 420);
        check((1280, 720), 60, 30.0, 2.0, 4, 1440);
    }

    #[test]
    fn clips_that_make_no_sense() {
        let good = ClipNumbers { height: 240, width: 320, total_frames: 40, frame_rate: 10.0, fps: 2.0 };
        for clip in [
            ClipNumbers { total_frames: 0, ..good },
            ClipNumbers { total_frames: usize::MAX, ..good },
            ClipNumbers { frame_rate: 0.0, ..good },
            ClipNumbers { frame_rate: f64::NAN, ..good },
            ClipNumbers { fps: f64::INFINITY, ..good },
        ] {
            assert!(matches!(clip_tokens(&clip), Err(MediaFault::Clip(_))), "{clip:?}");
        }
        for clip in [ClipNumbers { height: 0, ..good }, ClipNumbers { width: usize::MAX, ..good }] {
            assert!(matches!(clip_tokens(&clip), Err(MediaFault::Size { .. })), "{clip:?}");
        }
    }
}
