//! Which patches attend to each other and where each of them lies: functions of grids, without tensors.

use crate::{Error, geometry::Geometry, patches::Grid};

/// The order in which windowed attention reads the merged units, and the lengths of what attends to itself.
///
/// A merged unit is the square of patches that becomes one token; its patches stay together. A window is a square of
/// units; those at the right and lower border are smaller, none is padded, and each time step has its own. Rows are
/// put into this order before the first block and back after the merger. (`get_window_index` of Transformers,
/// `models/qwen2_5_vl/modeling_qwen2_5_vl.py`.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowOrder {
    /// For each place in window order, the unit of patchify order that stands there: `windowed[i] = units[order[i]]`.
    pub order: Vec<u32>,
    /// For each unit of patchify order, its place in window order: `units[i] = windowed[inverse[i]]`.
    pub inverse: Vec<u32>,
    /// Patches of each window, in window order; they sum up to all patches.
    pub window_lengths: Vec<usize>,
    /// Patches of each time step of each picture: what the full layers attend over. Window order keeps the steps apart.
    pub full_lengths: Vec<usize>,
}

impl WindowOrder {
    /// The order for pictures and clips that lie one after another. `window_size` is the side of a window in pixels.
    ///
    /// # Errors
    /// [`Error::Grid`] when a grid is empty, does not divide into units, or all of them together are more than `u32`
    /// counts; [`Error::Geometry`] when the window holds no whole unit.
    pub fn new(grids: &[Grid], geometry: &Geometry, window_size: usize) -> Result<Self, Error> {
        geometry.check()?;
        let units = check(grids, geometry.merge_size)?;
        let side = window_size / geometry.factor();
        if side == 0 {
            let expected = format!("{} (one merged unit) at least", geometry.factor());
            return Err(Error::Geometry { name: "window_size", value: window_size, expected });
        }

        let unit_patches = geometry.merge_size * geometry.merge_size;
        let mut order = Vec::with_capacity(units as usize);
        let mut window_lengths = Vec::new();
        let mut full_lengths = Vec::new();
        let mut first = 0;
        for grid in grids {
            let (height, width) = (grid.h / geometry.merge_size, grid.w / geometry.merge_size);
            for _ in 0..grid.t {
                for top in (0..height).step_by(side) {
                    for left in (0..width).step_by(side) {
                        let bottom = top.saturating_add(side).min(height);
                        let right = left.saturating_add(side).min(width);
                        for row in top..bottom {
                            order.extend((left..right).map(|column| (first + row * width + column) as u32));
                        }
                        window_lengths.push((bottom - top) * (right - left) * unit_patches);
                    }
                }
                full_lengths.push(grid.h * grid.w);
                first += height * width;
            }
        }
        let mut inverse = vec![0; order.len()];
        for (place, &unit) in order.iter().enumerate() {
            inverse[unit as usize] = place as u32;
        }
        Ok(Self { order, inverse, window_lengths, full_lengths })
    }
}

/// `[row, column]` of every patch in patchify order, for the two-dimensional rotary embedding. Every picture, and every
/// time step of a clip, starts at `[0, 0]`. (`rot_pos_emb` of the same file.)
///
/// # Errors
/// [`Error::Grid`] as for [`WindowOrder::new`], [`Error::Geometry`] when `merge_size` is zero.
pub fn patch_positions(grids: &[Grid], merge_size: usize) -> Result<Vec<[u32; 2]>, Error> {
    if merge_size == 0 {
        let expected = "1 at least".to_owned();
        return Err(Error::Geometry { name: "merge_size", value: 0, expected });
    }
    let units = check(grids, merge_size)?;
    let mut positions = Vec::with_capacity(units as usize * merge_size * merge_size);
    for grid in grids {
        for _ in 0..grid.t {
            for top in (0..grid.h).step_by(merge_size) {
                for left in (0..grid.w).step_by(merge_size) {
                    for row in top..top + merge_size {
                        positions.extend((left..left + merge_size).map(|column| [row as u32, column as u32]));
                    }
                }
            }
        }
    }
    Ok(positions)
}

/// The number of merged units of all grids, once every one of them is known to divide and all patches fit `u32`.
fn check(grids: &[Grid], merge_size: usize) -> Result<u32, Error> {
    let mut patches = 0u32;
    let mut units = 0;
    for (index, grid) in grids.iter().enumerate() {
        let refuse = |reason: String| Error::Grid { index, t: grid.t, h: grid.h, w: grid.w, reason };
        if grid.t == 0 || grid.h == 0 || grid.w == 0 {
            return Err(refuse("every side must be 1 at least".to_owned()));
        }
        if grid.h % merge_size != 0 || grid.w % merge_size != 0 {
            return Err(refuse(format!("height and width must be multiples of merge_size {merge_size}")));
        }
        patches = grid
            .patches()
            .and_then(|count| u32::try_from(count).ok())
            .and_then(|count| patches.checked_add(count))
            .ok_or_else(|| refuse(format!("all grids together may have {} patches at most", u32::MAX)))?;
        units += grid.tokens(merge_size) as u32;
    }
    Ok(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFICIAL: Geometry = Geometry { patch_size: 14, merge_size: 2, temporal_patch_size: 2 };

    fn grid((t, h, w): (usize, usize, usize)) -> Grid {
        Grid { t, h, w }
    }

    #[test]
    fn window_orders() {
        let check = |grids: &[(usize, usize, usize)], order: &[u32], windows: &[usize], full: &[usize]| {
            let grids: Vec<_> = grids.iter().copied().map(grid).collect();
            let found = WindowOrder::new(&grids, &OFFICIAL, 112).unwrap();
            assert_eq!(found.order, order, "{grids:?}");
            assert_eq!(found.window_lengths, windows, "{grids:?}");
            assert_eq!(found.full_lengths, full, "{grids:?}");
        };
        check(&[], &[], &[], &[]);
        check(&[(1, 2, 2)], &[0], &[4], &[4]);
        check(&[(1, 4, 4)], &[0, 1, 2, 3], &[16], &[16]);
        // Exactly one window: no empty one beside it.
        check(&[(1, 8, 8)], &(0..16).collect::<Vec<_>>(), &[64], &[64]);
        // Two rows of five units: the second window has two units of four patches.
        check(&[(1, 4, 10)], &[0, 1, 2, 3, 5, 6, 7, 8, 4, 9], &[32, 8], &[40]);
        // Five rows of one unit.
        check(&[(1, 10, 2)], &[0, 1, 2, 3, 4], &[16, 4], &[20]);
        // Time steps and pictures keep their own windows.
        check(&[(2, 2, 4), (1, 2, 2)], &[0, 1, 2, 3, 4], &[8, 8, 4], &[8, 8, 4]);
    }

    #[test]
    fn other_window_sizes() {
        // 100 pixels hold three units of 28; 56 hold two.
        let check = |window_size, windows: &[usize]| {
            let order = WindowOrder::new(&[grid((1, 2, 8))], &OFFICIAL, window_size).unwrap();
            assert_eq!(order.window_lengths, windows, "{window_size}");
        };
        check(28, &[4; 4]);
        check(56, &[8, 8]);
        check(100, &[12, 4]);
        check(usize::MAX, &[16]);
    }

    #[test]
    fn orders_are_permutations_and_lengths_add_up() {
        for grids in
            [vec![(1, 14, 18)], vec![(3, 10, 12), (1, 22, 14)], vec![(1, 2, 64), (2, 6, 8), (1, 16, 24)]]
        {
            let grids: Vec<_> = grids.into_iter().map(grid).collect();
            let patches: usize = grids.iter().map(|grid| grid.t * grid.h * grid.w).sum();
            let found = WindowOrder::new(&grids, &OFFICIAL, 112).unwrap();
            let mut sorted = found.order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..patches as u32 / 4).collect::<Vec<_>>());
            for (place, &unit) in found.order.iter().enumerate() {
                assert_eq!(found.inverse[unit as usize] as usize, place);
            }
            assert_eq!(found.window_lengths.iter().sum::<usize>(), patches);
            assert_eq!(found.full_lengths.iter().sum::<usize>(), patches);
            assert!(found.window_lengths.iter().all(|&length| length > 0 && length <= 64));
        }
    }

    #[test]
    fn rows_and_columns_of_patches() {
        let check = |grids: &[(usize, usize, usize)], merge_size, positions: &[[u32; 2]]| {
            let grids: Vec<_> = grids.iter().copied().map(grid).collect();
            assert_eq!(patch_positions(&grids, merge_size).unwrap(), positions, "{grids:?}");
        };
        check(&[], 2, &[]);
        check(&[(1, 2, 4)], 2, &[[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]]);
        check(&[(1, 2, 3)], 1, &[[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]);
        let square = [[0, 0], [0, 1], [1, 0], [1, 1]];
        check(&[(2, 2, 2), (1, 2, 2)], 2, &[square, square, square].concat());
    }

    #[test]
    fn grids_that_make_no_sense_are_refused() {
        let check = |grids: &[(usize, usize, usize)], words: &str| {
            let grids: Vec<_> = grids.iter().copied().map(grid).collect();
            for error in [
                WindowOrder::new(&grids, &OFFICIAL, 112).unwrap_err(),
                patch_positions(&grids, 2).unwrap_err(),
            ] {
                assert!(error.to_string().contains(words), "{error}");
            }
        };
        check(
            &[(1, 4, 4), (0, 4, 4)],
            "grid 1 is 0x4x4 patches (time x height x width): every side must be 1",
        );
        check(&[(1, 0, 4)], "every side must be 1 at least");
        check(&[(1, 3, 4)], "height and width must be multiples of merge_size 2");
        check(&[(1, 1 << 16, 1 << 16)], "4294967295 patches at most");
        check(&[(usize::MAX, 4, 4)], "4294967295 patches at most");
        check(&[(1, 1 << 16, 1 << 15), (1, 1 << 16, 1 << 15)], "grid 1");

        let error = WindowOrder::new(&[grid((1, 4, 4))], &OFFICIAL, 27).unwrap_err();
        assert_eq!(
            error.to_string(),
            "vision geometry: window_size is 27, expected 28 (one merged unit) at least"
        );
        assert!(patch_positions(&[grid((1, 4, 4))], 0).is_err());
    }
}
