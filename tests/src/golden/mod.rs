//! Golden numbers: a folder written by an independent implementation comes in, how far ours are from it goes out.
//!
//! A folder holds `golden/` (one file or two for each family), `images/` (the pictures they were made from) and,
//! beside them, a checkpoint `<name>/` for each `golden/model_<name>.*`. `scripts/make-golden.py` writes it and says
//! what is in each file. Every number here is computed by the product's own crates; nothing is computed twice.

pub mod conversation;
pub mod files;
pub mod formats;
pub mod images;
pub mod indices;
mod measure;
pub mod model;
pub mod positions;
pub mod tables;
pub mod text;

pub use files::Folder;
pub use measure::{Gauge, Tolerance};

/// What one family of golden numbers says about us.
#[derive(Debug)]
pub enum Outcome {
    /// The folder has no such numbers.
    Absent,
    /// They were compared.
    Measured(Gauge),
}

/// Compares everything that `folder` holds, family by family, in the order in which a request meets them.
///
/// # Errors
/// When a file of the folder can't be read or is not of the expected form.
pub fn compare_all(folder: &Folder) -> anyhow::Result<Vec<(&'static str, Outcome)>> {
    let mut outcomes = Vec::new();
    let mut add = |family: &'static str, gauge: Option<Gauge>| {
        // A file without a number of the family is as good as no file.
        let gauge = gauge.filter(|gauge| gauge.compared() > 0);
        outcomes.push((family, gauge.map_or(Outcome::Absent, Outcome::Measured)));
    };
    let tables = tables::Tables::read(folder)?;
    add("smart-resize", tables.as_ref().map(tables::Tables::sizes));
    add("frame counts and indices", tables.as_ref().map(tables::Tables::frames));
    let images = images::Images::read(folder)?;
    add("resized pixels", images.as_ref().map(|images| images.resized()).transpose()?);
    add("pixel values", images.as_ref().map(|images| images.pixel_values()).transpose()?);
    add("window and sequence indices", indices::compare(folder)?);
    add("M-RoPE positions and deltas", positions::compare(folder)?);
    let texts = text::Texts::read(folder)?;
    add("template renderings and ids", texts.as_ref().map(|texts| texts.templates()).transpose()?);
    add("tokenizer samples", texts.as_ref().map(|texts| texts.samples()).transpose()?);
    let models = model::compare_all(folder)?;
    for family in model::FAMILIES {
        let gauge =
            models.as_ref().and_then(|gauges| gauges.iter().find(|gauge| gauge.family() == family).cloned());
        add(family, gauge);
    }
    Ok(outcomes)
}
