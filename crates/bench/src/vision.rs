//! The vision tower: patches of one picture in, embeddings out, by the size of the picture.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use ocellus_kernels::peak::Limit;
use ocellus_vision_encoder::{
    Config,
    patches::{Frames, Grid, Normalization, Patches, patchify},
    windows::WindowOrder,
};
use serde_json::json;

use crate::{
    Column, Limits, Progress, Report, Spread, Table,
    format::{self, WeightFormat},
    model, picture,
    spread::timed_on,
};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to compute: `auto`, or a device's name.
    pub device: String,
    /// How weights are held in the decoder: the tower keeps bf16 where those are integers.
    pub weights: WeightFormat,
    /// Heights and widths of the pictures, in pixels: multiples of a token's side.
    pub sizes: Vec<(usize, usize)>,
    /// How often each is encoded, after one time that does not count.
    pub repetitions: usize,
}

const COLUMNS: &[Column] = &[
    Column::new("picture", "picture"),
    Column::new("tokens", "tokens"),
    Column::new("time_ms", "ms"),
    Column::new("p10_ms", "p10"),
    Column::new("p90_ms", "p90"),
    Column::new("tokens_per_s", "tokens/s"),
    Column::new("gflop_per_s", "GFLOP/s"),
    Column::new("percent_of_limit", "% of limit"),
    Column::new("repetitions", "n"),
];

/// Encodes pictures of each size with the tower in `folder`. Each picture is a new one.
///
/// # Errors
/// When the model can't be loaded, or a size is none that the tower takes.
pub fn run(folder: &Path, options: &Options, limits: &Limits, progress: &Progress<'_>) -> Result<Report> {
    progress("loading the vision tower");
    let model::Loaded { part: tower, weights, device } =
        model::tower(folder, &options.device, options.weights)?;
    let config = tower.config();
    let limit = format::limit(weights);
    let mut table = Table::new("vision tower, one picture at a time", COLUMNS);
    for &(height, width) in &options.sizes {
        let factor = config.geometry.factor();
        ensure!(
            height > 0 && width > 0 && height.is_multiple_of(factor) && width.is_multiple_of(factor),
            "the picture is {width}x{height} pixels, expected multiples of {factor}"
        );
        let mut seconds = Vec::new();
        let mut grid = None;
        for repetition in 0..=options.repetitions {
            progress(&format!("encoding {width}x{height}, {repetition} of {}", options.repetitions));
            let patches = draw(height, width, config)?;
            grid = Some(patches.grid);
            let (time, _) = timed_on(&device, || Ok(tower.forward(&[&patches])?))?;
            // The first one takes memory that the others find.
            if repetition > 0 {
                seconds.push(time);
            }
        }
        let grid = grid.context("one picture is drawn at least")?;
        let tokens = grid.tokens(config.geometry.merge_size);
        let spread = Spread::of(seconds);
        let per_second = spread.rate(operations(config, grid)?).median;
        let [time, p10, p90] = spread.scaled(1e3).cells();
        table.push([
            json!(format!("{width}x{height}")),
            json!(tokens),
            time,
            p10,
            p90,
            json!(spread.rate(tokens as f64).median),
            json!(per_second / 1e9),
            limits.percent(limit, per_second),
            json!(spread.n),
        ]);
    }
    Ok(Report {
        bench: "vision",
        conditions: conditions(weights, limit),
        limits: Some(limits.clone()),
        tables: vec![table],
    })
}

fn conditions(weights: WeightFormat, limit: Limit) -> Vec<(&'static str, serde_json::Value)> {
    vec![
        ("weights", json!(weights.to_string())),
        ("pictures", json!("each one new; cutting into patches is not counted")),
        ("caches", json!("as the picture before has left them; weights are larger than any")),
        (
            "operations",
            json!(format!("the least: linear layers and attention within windows; limit {limit}")),
        ),
    ]
}

/// The patches of a picture that was never there before.
///
/// # Errors
/// When the size is no multiple of a token's side.
pub fn draw(height: usize, width: usize, config: &Config) -> Result<Patches> {
    let rgb = picture::rgb(height, width);
    let frames = Frames { count: 1, height, width, rgb: &rgb };
    let normalization = Normalization { mean: [0.5; 3], std: [0.25; 3] };
    Ok(patchify(&frames, &config.geometry, &normalization)?)
}

/// Operations of the linear layers, and of attention within windows and, in a few blocks, within the whole picture.
///
/// # Errors
/// When the grid does not divide into tokens.
pub fn operations(config: &Config, grid: Grid) -> Result<f64> {
    let order = WindowOrder::new(&[grid], &config.geometry, config.window_size)?;
    let patches = order.full_lengths.iter().sum::<usize>() as f64;
    let (hidden, inner) = (config.hidden_size as f64, config.intermediate_size as f64);
    let merged = hidden * config.geometry.merge_size.pow(2) as f64;
    let tokens = grid.tokens(config.geometry.merge_size) as f64;
    let block = 2.0 * patches * (4.0 * hidden * hidden + 3.0 * hidden * inner);
    let embed = 2.0 * patches * config.geometry.patch_values() as f64 * hidden;
    let merger = 2.0 * tokens * (merged * merged + merged * config.out_hidden_size as f64);
    // Two products of `length * length * hidden` for each segment.
    let attention = |lengths: &[usize]| lengths.iter().map(|&n| 4.0 * (n * n) as f64 * hidden).sum::<f64>();
    let full = (0..config.depth).filter(|block| config.full_attention_blocks.contains(block)).count() as f64;
    let depth = config.depth as f64;
    let attended = full * attention(&order.full_lengths) + (depth - full) * attention(&order.window_lengths);
    Ok(depth * block + embed + merger + attended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RandomModel, Sizes};

    /// The published tower needs 1.34 TFLOP for 448x448 and 7.14 for 1120x896.
    #[test]
    fn operations_are_those_of_the_least_work() {
        let config = Sizes::preset("3b").unwrap().vision;
        for (h, w, expected) in [(32, 32, 1.34), (64, 80, 7.14)] {
            let found = operations(&config, Grid { t: 1, h, w }).unwrap() / 1e12;
            assert!((found - expected).abs() < 0.01, "{h}x{w}: {found}");
        }
    }

    #[test]
    fn every_size_gets_its_row() {
        let cache = tempfile::tempdir().unwrap();
        let model = RandomModel { preset: "tiny".into(), layers: Some(1), blocks: Some(1) };
        let folder = model.write(cache.path(), &|_| {}).unwrap();
        let mut options = Options {
            device: "auto".into(),
            weights: WeightFormat::F32,
            sizes: vec![(56, 56), (28, 84)],
            repetitions: 2,
        };
        let report = run(&folder, &options, &Limits::unknown(), &|_| {}).unwrap();
        let tokens: Vec<_> = (0..2).map(|row| report.tables[0].number(row, "tokens")).collect();
        assert_eq!(tokens, [Some(4.0), Some(3.0)]);
        assert!(report.tables[0].number(0, "time_ms") > Some(0.0));
        options.sizes = vec![(30, 28)];
        let error = run(&folder, &options, &Limits::unknown(), &|_| {}).unwrap_err();
        assert_eq!(error.to_string(), "the picture is 28x30 pixels, expected multiples of 28");
    }
}
