//! `indices.json`: window order, window and sequence bounds, and the place of each patch.

use ocellus_vision_encoder::{
    Geometry,
    patches::Grid,
    windows::{WindowOrder, patch_positions},
};
use serde::Deserialize;

use super::{Folder, Gauge, Tolerance};

/// The family's name.
pub const FAMILY: &str = "window and sequence indices";

/// How every published checkpoint cuts pictures.
pub const GEOMETRY: Geometry = Geometry { patch_size: 14, merge_size: 2, temporal_patch_size: 2 };

#[derive(Deserialize)]
struct Indices {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    grids: Vec<[usize; 3]>,
    #[serde(default = "published_window_size")]
    window_size: usize,
    window_index: Vec<u32>,
    cu_window_seqlens: Vec<usize>,
    cu_seqlens: Vec<usize>,
    row: Vec<u32>,
    col: Vec<u32>,
}

fn published_window_size() -> usize {
    112
}

/// Compares every case of the folder.
///
/// # Errors
/// When the file is not of the expected form.
pub fn compare(folder: &Folder) -> anyhow::Result<Option<Gauge>> {
    let Some(Indices { cases }) = folder.json("indices")? else { return Ok(None) };
    let mut gauge = Gauge::new(FAMILY, Tolerance::Equal);
    for case in cases {
        let at = format!("{:?} in windows of {}", case.grids, case.window_size);
        let grids: Vec<Grid> = case.grids.iter().map(|&[t, h, w]| Grid { t, h, w }).collect();
        match WindowOrder::new(&grids, &GEOMETRY, case.window_size) {
            Ok(ours) => {
                gauge.equal(format!("window_index of {at}"), &ours.order, &case.window_index);
                let windows = bounds(&ours.window_lengths);
                gauge.equal(format!("cu_window_seqlens of {at}"), &windows, &case.cu_window_seqlens);
                gauge.equal(format!("cu_seqlens of {at}"), &bounds(&ours.full_lengths), &case.cu_seqlens);
            }
            Err(error) => gauge.refused(&at, error),
        }
        match patch_positions(&grids, GEOMETRY.merge_size) {
            Ok(places) => {
                let (rows, columns): (Vec<u32>, Vec<u32>) =
                    places.iter().map(|&[row, column]| (row, column)).unzip();
                gauge.equal(format!("rows of {at}"), &rows, &case.row);
                gauge.equal(format!("columns of {at}"), &columns, &case.col);
            }
            Err(error) => gauge.refused(&at, error),
        }
    }
    Ok(Some(gauge))
}

/// Running sums from 0: the form in which the goldens give lengths.
fn bounds(lengths: &[usize]) -> Vec<usize> {
    let sums = lengths.iter().scan(0, |sum, length| {
        *sum += length;
        Some(*sum)
    });
    std::iter::once(0).chain(sums).collect()
}
