//! Pictures: from the bytes of a file to patches, stage by stage.

use std::path::PathBuf;

use anyhow::{Context, Result};
use ocellus_media::{Budget, decode_image};
use ocellus_vision_encoder::{
    Geometry,
    patches::Normalization,
    preprocess::Preprocessor,
    resize::{PixelLimits, smart_resize},
};
use serde_json::json;

use crate::{Column, Progress, Report, Spread, Table, picture, spread::timed};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files of pictures; without any, bitmaps of `sizes` are drawn, a new one for each time.
    pub files: Vec<PathBuf>,
    /// Heights and widths of drawn pictures, in pixels.
    pub sizes: Vec<(usize, usize)>,
    /// The largest area that the model may see, in pixels.
    pub max_pixels: usize,
    /// How often each is prepared, after one time that does not count.
    pub repetitions: usize,
}

const COLUMNS: &[Column] = &[
    Column::new("picture", "picture"),
    Column::new("megapixels", "MP"),
    Column::new("seen", "seen as"),
    Column::new("decode_ms", "decode ms"),
    Column::new("patches_ms", "resize and cut ms"),
    Column::new("time_ms", "all ms"),
    Column::new("p10_ms", "p10"),
    Column::new("p90_ms", "p90"),
    Column::new("megapixels_per_s", "MP/s"),
    Column::new("repetitions", "n"),
];

/// The published checkpoints' patches.
const GEOMETRY: Geometry = Geometry { patch_size: 14, merge_size: 2, temporal_patch_size: 2 };

/// Prepares pictures as the engine does.
///
/// # Errors
/// When a file can't be read or is no picture.
pub fn run(options: &Options, progress: &Progress<'_>) -> Result<Report> {
    let mut table = Table::new("pictures to patches", COLUMNS);
    for path in &options.files {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        measure(&mut table, name, options, progress, || bytes.clone())
            .with_context(|| path.display().to_string())?;
    }
    if options.files.is_empty() {
        for &(height, width) in &options.sizes {
            measure(&mut table, format!("{width}x{height} bmp"), options, progress, || {
                picture::bmp(height, width)
            })?;
        }
    }
    let pictures = if options.files.is_empty() { "drawn, each one new" } else { "the same file each time" };
    let conditions = vec![
        ("pictures", json!(pictures)),
        ("max_pixels", json!(options.max_pixels)),
        ("caches", json!("as the picture before has left them; the file's bytes are in memory")),
    ];
    Ok(Report { bench: "preprocess", conditions, limits: None, tables: vec![table] })
}

fn measure(
    table: &mut Table,
    name: String,
    options: &Options,
    progress: &Progress<'_>,
    mut bytes: impl FnMut() -> Vec<u8>,
) -> Result<()> {
    let limits = PixelLimits { max_pixels: options.max_pixels, ..PixelLimits::TRANSFORMERS };
    let normalization = Normalization { mean: [0.48, 0.46, 0.41], std: [0.27, 0.26, 0.28] };
    let mut stages: [Vec<f64>; 3] = Default::default();
    let (mut area, mut shown) = (0, (0, 0));
    for repetition in 0..=options.repetitions {
        progress(&format!("preparing {name}, {repetition} of {}", options.repetitions));
        let bytes = bytes();
        let (decoding, picture) = timed(|| Ok(decode_image(&bytes, &Budget::default())?))?;
        let size = (picture.height, picture.width);
        let seen = smart_resize(size.0, size.1, GEOMETRY.factor(), &limits)?;
        let (cutting, _) = timed(|| {
            let mut preprocessor = Preprocessor::new(1, seen, &GEOMETRY, &normalization)?;
            preprocessor.push(&picture.rgb, size)?;
            Ok(preprocessor.finish()?)
        })?;
        (area, shown) = (size.0 * size.1, seen);
        if repetition > 0 {
            let times = [decoding, cutting, decoding + cutting];
            stages.iter_mut().zip(times).for_each(|(stage, time)| stage.push(time));
        }
    }
    let [decoding, cutting, all] = stages.map(|seconds| Spread::of(seconds).scaled(1e3));
    let megapixels = area as f64 / 1e6;
    table.push([
        json!(name),
        json!(megapixels),
        json!(format!("{}x{}", shown.1, shown.0)),
        json!(decoding.median),
        json!(cutting.median),
        json!(all.median),
        json!(all.p10),
        json!(all.p90),
        json!(all.rate(1e3 * megapixels).median),
        json!(all.n),
    ]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_pictures_and_files_are_prepared() {
        let mut options =
            Options { files: Vec::new(), sizes: vec![(60, 90)], max_pixels: 28 * 28 * 4, repetitions: 2 };
        let table = &run(&options, &|_| {}).unwrap().tables[0];
        assert_eq!(table.number(0, "megapixels"), Some(0.0054));
        assert!(table.number(0, "time_ms") > table.number(0, "patches_ms"));
        let folder = tempfile::tempdir().unwrap();
        options.files = vec![folder.path().join("a.bmp")];
        assert!(run(&options, &|_| {}).is_err());
        std::fs::write(&options.files[0], picture::bmp(30, 40)).unwrap();
        assert_eq!(run(&options, &|_| {}).unwrap().tables[0].number(0, "megapixels"), Some(0.0012));
    }
}
