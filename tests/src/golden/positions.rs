//! `mrope.json`: the positions of prompts on three axes, and the delta to go on with.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use ocellus_decoder::positions::{Positions, Span};
use serde::Deserialize;

use super::{Folder, Gauge, Tolerance, indices::GEOMETRY};

/// The family's name.
pub const FAMILY: &str = "M-RoPE positions and deltas";

/// The placeholders' ids in this file, which are those of the official vocabulary.
const IMAGE_TOKEN: u32 = 151_655;
const VIDEO_TOKEN: u32 = 151_656;

#[derive(Deserialize)]
struct Layouts {
    cases: BTreeMap<String, Layout>,
}

/// A prompt as the file spells it.
#[derive(Clone, Debug, Deserialize)]
pub struct Layout {
    input_ids: Vec<u32>,
    image_grids: Vec<[usize; 3]>,
    video_grids: Vec<[usize; 3]>,
    second_per_grid_ts: Vec<f64>,
    tokens_per_second: usize,
    positions: [Vec<u32>; 3],
    delta: i64,
}

/// Compares every layout of the folder.
///
/// # Errors
/// When the file is not of the expected form.
pub fn compare(folder: &Folder) -> anyhow::Result<Option<Gauge>> {
    compare_with(folder, &|spans, tokens_per_second| Positions::new(spans, tokens_per_second))
}

/// [`compare`] with another rule of positions in place of ours.
///
/// # Errors
/// As [`compare`].
pub fn compare_with(
    folder: &Folder,
    rule: &dyn Fn(&[Span], usize) -> Positions,
) -> anyhow::Result<Option<Gauge>> {
    let Some(Layouts { cases }) = folder.json("mrope")? else { return Ok(None) };
    let mut gauge = Gauge::new(FAMILY, Tolerance::Equal);
    for (name, layout) in &cases {
        let ours =
            rule(&layout.spans().with_context(|| format!("mrope.json, {name}"))?, layout.tokens_per_second);
        for (axis, golden) in layout.positions.iter().enumerate() {
            let ours: Vec<u32> = ours.tokens.iter().map(|position| position[axis]).collect();
            gauge.equal(format!("{} of {name}", ["time", "height", "width"][axis]), &ours, golden);
        }
        gauge.equal(format!("delta of {name}"), &ours.delta(), &layout.delta);
    }
    Ok(Some(gauge))
}

impl Layout {
    /// The prompt as stretches of text and vision.
    fn spans(&self) -> anyhow::Result<Vec<Span>> {
        let (mut images, mut videos) = (self.image_grids.iter(), self.video_grids.iter());
        let mut seconds = self.second_per_grid_ts.iter();
        let mut spans = Vec::new();
        let mut at = 0;
        while let Some(&id) = self.input_ids.get(at) {
            let (grid, step) = match id {
                IMAGE_TOKEN => (images.next().context("fewer grids than pictures")?, 0.0),
                // The reference takes one second a step where nothing is said.
                VIDEO_TOKEN => (
                    videos.next().context("fewer grids than clips")?,
                    seconds.next().map_or(1.0, |&s| s as f32),
                ),
                _ => {
                    spans.push(Span::Text(1));
                    at += 1;
                    continue;
                }
            };
            let &[t, h, w] = grid;
            let (h, w) = (h / GEOMETRY.merge_size, w / GEOMETRY.merge_size);
            ensure!(t * h * w > 0, "an empty grid");
            spans.push(Span::Vision { t, h, w, seconds_per_step: step });
            at += t * h * w;
        }
        Ok(spans)
    }
}
