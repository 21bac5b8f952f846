//! `tables.json`: sizes of pictures, numbers and places of frames, pixel limits of clips.

use ocellus_media::{FrameCount, IndexRule, Sampling, frame_indices, smart_nframes};
use ocellus_vision_encoder::resize::{ClipLimits, PixelLimits, Rule, frame_limits, smart_resize};
use serde::Deserialize;

use super::{Folder, Gauge, Tolerance, indices::GEOMETRY};

/// The families' names.
pub const SIZES: &str = "smart-resize";
/// See [`SIZES`].
pub const FRAMES: &str = "frame counts and indices";

/// Pixels of one token.
const TOKEN: usize = 28 * 28;

/// The rows of all tables.
#[derive(Deserialize)]
pub struct Tables {
    smart_resize: Vec<SizeRow>,
    hosted: Vec<HostedRow>,
    nframes: Vec<CountRow>,
    frame_index: Vec<IndexRow>,
    video_limit: Vec<LimitRow>,
}

/// Height, width, least and most pixels; size by Transformers, by qwen-vl-utils.
type SizeRow = (usize, usize, usize, usize, Answer<Size>, Answer<Size>);
/// Height, width; size of the hosted guide for at most 1280 tokens, for at most 16384.
type HostedRow = (usize, usize, Answer<Size>, Answer<Size>);
/// Frames, their rate, wanted rate; count by qwen-vl-utils, by the hosted guide.
type CountRow = (usize, f64, f64, Answer<usize>, Answer<usize>);
/// Frames, count; places by qwen-vl-utils, by Transformers.
type IndexRow = (usize, usize, Vec<usize>, Vec<usize>);
/// Frames, pixels of the clip; least and most pixels of a frame.
type LimitRow = (usize, usize, (usize, f64));

/// Height and width.
type Size = (usize, usize);

/// What the reference answers; it spells a refusal as `"error"`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
enum Answer<T> {
    Value(T),
    Refused(String),
}

impl<T> Answer<T> {
    fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Refused(_) => None,
        }
    }
}

impl Tables {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// When it is not of the expected form.
    pub fn read(folder: &Folder) -> anyhow::Result<Option<Self>> {
        folder.json("tables")
    }

    /// Compares the sizes by all three rules.
    pub fn sizes(&self) -> Gauge {
        let mut gauge = Gauge::new(SIZES, Tolerance::Equal);
        let mut check = |rule, (height, width), (min_pixels, max_pixels), golden: &Answer<Size>| {
            let ours =
                smart_resize(height, width, GEOMETRY.factor(), &PixelLimits { rule, min_pixels, max_pixels });
            // A side of no pixels is a size to the reference; to us it is a refusal.
            let golden = golden.value().filter(|&&(height, width)| height > 0 && width > 0);
            let at = format!("{height}x{width} within {min_pixels}..{max_pixels} by {rule:?}");
            gauge.equal(at, &ours.as_ref().ok(), &golden);
        };
        for (height, width, least, most, transformers, utils) in &self.smart_resize {
            check(Rule::Transformers, (*height, *width), (*least, *most), transformers);
            check(Rule::Utils, (*height, *width), (*least, *most), utils);
        }
        for (height, width, usual, high_resolution) in &self.hosted {
            check(Rule::Hosted, (*height, *width), (4 * TOKEN, 1280 * TOKEN), usual);
            check(Rule::Hosted, (*height, *width), (4 * TOKEN, 16384 * TOKEN), high_resolution);
        }
        gauge
    }

    /// Compares counts and places of frames, and how large each may be.
    pub fn frames(&self) -> Gauge {
        let mut gauge = Gauge::new(FRAMES, Tolerance::Equal);
        for (total, video_fps, fps, utils, hosted) in &self.nframes {
            for (rule, max_frames, golden) in
                [(FrameCount::Utils, 768, utils), (FrameCount::Hosted, 512, hosted)]
            {
                if rule == FrameCount::Hosted && golden.value().is_none() {
                    gauge.note("clips too short for the hosted rule are sampled by us and not compared");
                    continue;
                }
                let sampling = Sampling {
                    rule,
                    fps: *fps,
                    min_frames: 4,
                    max_frames,
                    multiple: GEOMETRY.temporal_patch_size,
                };
                let ours = smart_nframes(*total, *video_fps, &sampling);
                let at = format!("{total} frames at {video_fps}/s sampled at {fps}/s by {rule:?}");
                gauge.equal(at, &ours.as_ref().ok(), &golden.value());
            }
        }
        for (total, count, utils, transformers) in &self.frame_index {
            for (rule, golden) in [(IndexRule::Utils, utils), (IndexRule::Transformers, transformers)] {
                let at = format!("{count} of {total} frames by {rule:?}");
                match frame_indices(*total, *count, rule) {
                    Ok(ours) => gauge.equal(at, &ours, golden),
                    Err(error) => gauge.refused(at, error),
                }
            }
        }
        for (count, total_pixels, golden) in &self.video_limit {
            let clip = ClipLimits {
                rule: Rule::Utils,
                min_pixels: 128 * TOKEN,
                frame_max_pixels: 768 * TOKEN,
                total_pixels: *total_pixels,
                temporal_patch_size: GEOMETRY.temporal_patch_size,
            };
            let at = format!("pixels of {count} frames that share {total_pixels}");
            match frame_limits(*count, &clip) {
                // To a thousandth of a pixel: reading a fraction from JSON is not exact to its last bit.
                Ok(ours) => gauge.equal(
                    at,
                    &(ours.min_pixels, (ours.max_pixels * 1e3).round()),
                    &(golden.0, (golden.1 * 1e3).round()),
                ),
                Err(error) => gauge.refused(at, error),
            }
        }
        gauge
    }
}
