//! `images.json` and `.safetensors`: pictures decoded, resized, normalised and cut into patches.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use ocellus_media::{Budget, Picture, decode_image};
use ocellus_vision_encoder::{
    bicubic,
    patches::{Frames, Normalization, Patches},
    preprocess::Preprocessor,
    resize::{PixelLimits, smart_resize},
};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Folder, Gauge, Tolerance, files::Tensors, indices::GEOMETRY};

/// The families' names.
pub const RESIZED: &str = "resized pixels";
/// See [`RESIZED`].
pub const PIXEL_VALUES: &str = "pixel values";

/// One rounding of f32 more or less on values up to 3, with a decimal of room.
const PIXEL_VALUE_TOLERANCE: f64 = 1e-5;

/// The constants of every published checkpoint.
pub const NORMALIZATION: Normalization = Normalization {
    mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
    std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
};

/// The steps from decoded pixels to patches, so that a test can put a wrong one in place of ours.
pub struct Steps {
    /// Resizes `(height, width, 3)` pixels from one size to another.
    pub resize: ResizeStep,
    /// Cuts resized frames into patches.
    pub patchify: PatchifyStep,
}

/// See [`Steps::resize`].
pub type ResizeStep = fn(&[u8], (usize, usize), (usize, usize)) -> anyhow::Result<Vec<u8>>;
/// See [`Steps::patchify`].
pub type PatchifyStep = fn(&Frames<'_>) -> anyhow::Result<Patches>;

impl Default for Steps {
    /// The product's own: resized pixels by the definition that its single pass equals, patches by the single pass.
    fn default() -> Self {
        Self {
            resize: |rgb, from, to| Ok(bicubic::resize(rgb, from, to)?),
            patchify: |frames| {
                let size = (frames.height, frames.width);
                let mut preprocessor = Preprocessor::new(frames.count, size, &GEOMETRY, &NORMALIZATION)?;
                for rgb in frames.rgb.chunks(frames.height * frames.width * 3) {
                    preprocessor.push(rgb, size)?;
                }
                Ok(preprocessor.finish()?)
            },
        }
    }
}

/// The pictures and clips of a folder with everything that is known of them.
pub struct Images {
    folder: Folder,
    entries: BTreeMap<String, Entry>,
    layout: Option<Layout>,
    tensors: Tensors,
}

/// A picture, or a clip when it has no mode.
#[derive(Clone, Deserialize)]
struct Entry {
    file: Option<String>,
    mode: Option<Mode>,
    max_pixels: Option<usize>,
    decoded_hw: Option<(usize, usize)>,
    decoded_sha256: Option<String>,
    resized_hw: Option<(usize, usize)>,
    resized_sha256: Option<String>,
    /// Of a clip: how many frames, and words.
    frames: Option<String>,
    grid_thw: [usize; 3],
    sample_flat_index: Vec<usize>,
    sample_value: Vec<f32>,
}

/// What is done beside reading the stored pixels.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Nothing: alpha is dropped, and the orientation ignored. We do that for no file that has one of them.
    Rgb,
    /// Alpha is laid on white.
    White,
    /// The orientation is applied.
    Exif,
}

/// Where the patch order puts each value of a ramp: `frames[t, y, x, c]` is its own index in `(2, 56, 84, 3)`.
#[derive(Deserialize)]
struct Layout {
    grid_thw: [usize; 3],
    column_0_of_each_row: Vec<usize>,
    row_0_columns: BTreeMap<usize, usize>,
}

impl Images {
    /// Reads both files, if there are any.
    ///
    /// # Errors
    /// When they are not of the expected form.
    pub fn read(folder: &Folder) -> anyhow::Result<Option<Self>> {
        let Some(json) = folder.json::<BTreeMap<String, Value>>("images")? else { return Ok(None) };
        let mut entries = BTreeMap::new();
        let mut layout = None;
        for (key, value) in json {
            if key == "patch_layout" {
                layout = Some(serde_json::from_value(value).context("images.json, patch_layout")?);
            } else {
                let entry = serde_json::from_value(value).with_context(|| format!("images.json, {key}"))?;
                entries.insert(key, entry);
            }
        }
        Ok(Some(Self { folder: folder.clone(), entries, layout, tensors: folder.tensors("images")? }))
    }

    /// Compares sizes and pixels after the resize, from our own decoded pixels on.
    ///
    /// # Errors
    /// When a picture can't be read.
    pub fn resized(&self) -> anyhow::Result<Gauge> {
        self.resized_with(&Steps::default())
    }

    /// [`Images::resized`] by other steps than ours.
    ///
    /// # Errors
    /// As [`Images::resized`].
    pub fn resized_with(&self, steps: &Steps) -> anyhow::Result<Gauge> {
        let mut gauge = Gauge::new(RESIZED, Tolerance::Equal);
        for (key, entry) in self.entries.iter().filter(|(_, entry)| entry.mode.is_some()) {
            let decoded = match self.decode(entry) {
                Ok(decoded) => decoded,
                Err(error) => {
                    gauge.refused(key, format!("{error:#}"));
                    continue;
                }
            };
            let (picture, is_exact) = match decoded {
                Decoded::Same(picture) => (picture, true),
                Decoded::OfAnotherDecoder(picture) => (picture, false),
                Decoded::NotOurs => {
                    gauge
                        .note("not compared where alpha is dropped or an orientation ignored: we do neither");
                    continue;
                }
                Decoded::Wrong => {
                    gauge.refused(key, "decoded to other pixels");
                    continue;
                }
            };
            let from = (picture.height, picture.width);
            gauge.equal(format!("decoded size of {key}"), &Some(from), &entry.decoded_hw);
            let to = match entry.resized_size(from) {
                Ok(to) => to,
                Err(error) => {
                    gauge.refused(key, error);
                    continue;
                }
            };
            gauge.equal(format!("size of {key}"), &Some(to), &entry.resized_hw);
            if !is_exact {
                gauge.note("of JPEGs only the sizes: their decoders differ by a few levels");
                continue;
            }
            let resized = (steps.resize)(&picture.rgb, from, to)?;
            if let Some((_, golden)) = self.tensors.bytes(&format!("{key}.resized")) {
                let differing = resized.iter().zip(golden).filter(|(ours, golden)| ours != golden).count();
                gauge.equal(format!("differing bytes of {key}"), &differing, &0);
            }
            gauge.equal(format!("SHA-256 of {key}"), &Some(sha256(&resized)), &entry.resized_sha256);
        }
        Ok(gauge)
    }

    /// Compares grids, normalised values and their order.
    ///
    /// # Errors
    /// When a picture can't be read.
    pub fn pixel_values(&self) -> anyhow::Result<Gauge> {
        self.pixel_values_with(&Steps::default())
    }

    /// [`Images::pixel_values`] by other steps than ours.
    ///
    /// # Errors
    /// As [`Images::pixel_values`].
    pub fn pixel_values_with(&self, steps: &Steps) -> anyhow::Result<Gauge> {
        let mut gauge = Gauge::new(PIXEL_VALUES, Tolerance::Within(PIXEL_VALUE_TOLERANCE));
        for (key, entry) in &self.entries {
            let patches = match self.patches(key, steps) {
                Ok(Some(patches)) => patches,
                Ok(None) => {
                    gauge.note(format!("{key} is not compared: its exact pixels are not at hand"));
                    continue;
                }
                Err(error) => {
                    gauge.refused(key, format!("{error:#}"));
                    continue;
                }
            };
            let grid = [patches.grid.t, patches.grid.h, patches.grid.w];
            if grid != entry.grid_thw {
                gauge.refused(key, format!("grid {grid:?}, golden {:?}", entry.grid_thw));
                continue;
            }
            if let Some(golden) = self.tensors.f32(&format!("{key}.pixel_values")) {
                gauge.close(key, &patches.values, golden);
            }
            let sampled: Option<Vec<f32>> =
                entry.sample_flat_index.iter().map(|&index| patches.values.get(index).copied()).collect();
            match sampled {
                Some(sampled) => gauge.close(format!("samples of {key}"), &sampled, &entry.sample_value),
                None => gauge.refused(key, "a sample lies outside"),
            }
        }
        if let Some(layout) = &self.layout {
            layout.compare(steps, &mut gauge)?;
        }
        Ok(gauge)
    }

    /// The patches of a picture or clip by its key; `None` when the reference's pixels are not ours and not in the
    /// folder either.
    ///
    /// # Errors
    /// When there is no such key, or its file can't be read.
    pub fn patches(&self, key: &str, steps: &Steps) -> anyhow::Result<Option<Patches>> {
        let entry = self.entries.get(key).with_context(|| format!("images.json has no {key}"))?;
        if entry.mode.is_none() {
            return self.clip(entry, steps).map(Some);
        }
        let (rgb, (height, width)) = match self.decode(entry)? {
            Decoded::Same(picture) => {
                let from = (picture.height, picture.width);
                let to = entry.resized_size(from)?;
                ((steps.resize)(&picture.rgb, from, to)?, to)
            }
            Decoded::Wrong => bail!("{key} decodes to other pixels"),
            Decoded::OfAnotherDecoder(_) | Decoded::NotOurs => {
                match self.tensors.bytes(&format!("{key}.resized")) {
                    Some((&[height, width, 3], golden)) => (golden.to_vec(), (height, width)),
                    _ => return Ok(None),
                }
            }
        };
        (steps.patchify)(&Frames { count: 1, height, width, rgb: &rgb }).map(Some)
    }

    /// The patches of the folder's clip, all of its frames.
    ///
    /// # Errors
    /// As [`Images::patches`].
    pub fn clip_patches(&self, steps: &Steps) -> anyhow::Result<Patches> {
        self.patches("video", steps)?.context("images.json has no clip")
    }

    /// Frames of a strip in which they lie under each other; they keep their size.
    fn clip(&self, entry: &Entry, steps: &Steps) -> anyhow::Result<Patches> {
        let file = entry.file.as_ref().or_else(|| self.entries.get("video")?.file.as_ref());
        let strip =
            decode_image(&self.folder.picture(file.context("a clip without file")?)?, &Budget::default())?;
        let height = entry.grid_thw[1] * GEOMETRY.patch_size;
        let words = entry.frames.as_deref().unwrap_or_default();
        let count = words.split_whitespace().find_map(|word| word.parse::<usize>().ok());
        let count = count.context("a clip that does not say how many frames it has")?;
        let bytes = count * height * strip.width * 3;
        ensure!(bytes <= strip.rgb.len(), "a strip of {} rows is too short", strip.height);
        (steps.patchify)(&Frames { count, height, width: strip.width, rgb: &strip.rgb[..bytes] })
    }

    fn decode(&self, entry: &Entry) -> anyhow::Result<Decoded> {
        let file = entry.file.as_deref().context("a picture without file")?;
        let picture = decode_image(&self.folder.picture(file)?, &Budget::default())?;
        if Some(sha256(&picture.rgb)) == entry.decoded_sha256 {
            return Ok(Decoded::Same(picture));
        }
        let bytes = self.folder.picture(file)?;
        let is_jpeg = bytes.starts_with(&[0xFF, 0xD8]);
        if entry.mode == Some(Mode::Rgb) {
            // A file that needs treatment is listed in another mode as well, shows its alpha, or has been turned.
            let treated =
                |other: &Entry| other.file == entry.file && other.mode.is_some_and(|mode| mode != Mode::Rgb);
            let turned =
                entry.decoded_hw == Some((picture.width, picture.height)) && picture.width != picture.height;
            if self.entries.values().any(treated) || has_alpha(&bytes) || turned {
                return Ok(Decoded::NotOurs);
            }
        }
        Ok(if is_jpeg { Decoded::OfAnotherDecoder(picture) } else { Decoded::Wrong })
    }
}

/// Whether a PNG has an alpha channel or a transparent colour.
fn has_alpha(png: &[u8]) -> bool {
    /// The place of the colour type in a PNG, whose header comes first; its third bit stands for alpha.
    const COLOR_TYPE: usize = 25;
    let is_png = png.starts_with(b"\x89PNG");
    is_png
        && (png.get(COLOR_TYPE).is_some_and(|kind| kind & 4 != 0)
            || png.windows(4).any(|name| name == b"tRNS"))
}

/// What our decoder made of a picture.
enum Decoded {
    /// The reference's pixels.
    Same(Picture),
    /// A JPEG's pixels, in which decoders differ by rounding.
    OfAnotherDecoder(Picture),
    /// The reference left out a step that we never leave out.
    NotOurs,
    /// Other pixels without an excuse.
    Wrong,
}

impl Entry {
    fn resized_size(&self, (height, width): (usize, usize)) -> anyhow::Result<(usize, usize)> {
        let mut limits = PixelLimits::TRANSFORMERS;
        limits.max_pixels = self.max_pixels.unwrap_or(limits.max_pixels);
        Ok(smart_resize(height, width, GEOMETRY.factor(), &limits)?)
    }
}

impl Layout {
    /// Our patches are cut from bytes, so the ramp's indices go through in two halves and come together again.
    fn compare(&self, steps: &Steps, gauge: &mut Gauge) -> anyhow::Result<()> {
        const SIZE: (usize, usize, usize) = (2, 56, 84);
        let (count, height, width) = SIZE;
        let half = |shift: usize| -> anyhow::Result<Patches> {
            let rgb: Vec<u8> = (0..count * height * width * 3).map(|index| (index >> shift) as u8).collect();
            (steps.patchify)(&Frames { count, height, width, rgb: &rgb })
        };
        let (low, high) = (half(0)?, half(8)?);
        let grid = [low.grid.t, low.grid.h, low.grid.w];
        if grid != self.grid_thw {
            gauge.refused("patch_layout", format!("grid {grid:?}, golden {:?}", self.grid_thw));
            return Ok(());
        }
        let columns = GEOMETRY.patch_values();
        let per_channel = columns / 3;
        let level = |value: f32, column: usize| {
            let channel = column / per_channel;
            ((value * NORMALIZATION.std[channel] + NORMALIZATION.mean[channel]) * 255.0).round()
        };
        let index = |row: usize, column: usize| {
            let at = row * columns + column;
            level(low.values[at], column) + 256.0 * level(high.values[at], column)
        };
        let rows = self.column_0_of_each_row.iter().enumerate().map(|(row, &golden)| (row, 0, golden));
        let first = self.row_0_columns.iter().map(|(&column, &golden)| (0, column, golden));
        for (row, column, golden) in rows.chain(first) {
            ensure!(
                row < low.values.len() / columns && column < columns,
                "patch_layout names a place outside"
            );
            gauge.close(
                format!("patch_layout, row {row}, column {column}"),
                &[index(row, column)],
                &[golden as f32],
            );
        }
        Ok(())
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
