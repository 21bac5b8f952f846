//! Weights as they lie in the device's memory; `codes.cuh` has the other side of it.
//!
//! bf16: rows one after the other, each filled up with zeros to a multiple of 64 features. Quantized: cells of 16 rows and
//! 32 features. The rows of a gate and an up projection alternate eight by eight, so that both parts of an output lie in
//! one thread's sums; the last group is filled up with zeros.

use std::sync::{Mutex, PoisonError};

use half::{bf16, slice::HalfFloatSliceExt};

use super::{
    Kind,
    select::{BLOCK, cell},
};
use crate::{
    HostElements, HostMatrix, Result,
    error::argument,
    linear::{Order, quantized::PackedInt},
    pool::{self, SharedSlice},
};

/// Rows of each part that alternate.
const TOGETHER: usize = 8;
/// Rows of a cell.
const ROWS: usize = 16;
/// Features of a cell.
const GROUP: usize = 32;
/// Bytes of a cell's scales.
const SCALES: usize = 2 * ROWS;

/// The number of a weight's rows, those that fill up the last group of an alternating one included; `rows` is that of all
/// parts together.
pub(super) fn arranged_rows(order: Order, rows: usize) -> usize {
    match order {
        Order::Stacked => rows,
        Order::Interleaved => (rows / 2).next_multiple_of(TOGETHER) * 2,
    }
}

/// Where row `row` of an alternating weight comes from: the part, and the row within it.
fn alternating(row: usize) -> (usize, usize) {
    let (group, within) = (row / (2 * TOGETHER), row % (2 * TOGETHER));
    (within / TOGETHER, group * TOGETHER + within % TOGETHER)
}

/// `values`, given for the rows of all parts one after the other, in the order of the device's rows.
pub(super) fn arrange(order: Order, values: Vec<f32>) -> Vec<f32> {
    match order {
        Order::Stacked => values,
        Order::Interleaved => {
            let inner = values.len() / 2;
            let value = |row| match alternating(row) {
                (part, row) if row < inner => values.get(part * inner + row).copied().unwrap_or(0.0),
                _ => 0.0,
            };
            (0..arranged_rows(order, values.len())).map(value).collect()
        }
    }
}

/// Row `row` of a weight in bf16, out of its parts; zeros where it fills up the last group. Numbers that are not stored in
/// bf16 are rounded to the nearest.
///
/// # Errors
/// When a part's type is not a floating point one.
pub(super) fn read_row(
    parts: &[HostMatrix],
    order: Order,
    row: usize,
    wide: &mut Vec<f32>,
    to: &mut [bf16],
) -> Result<()> {
    let (part, row) = match order {
        Order::Interleaved => alternating(row),
        Order::Stacked => {
            let mut row = row;
            let found = parts.iter().position(|part| {
                let found = row < part.rows();
                row -= if found { 0 } else { part.rows() };
                found
            });
            (found.unwrap_or(parts.len()), row)
        }
    };
    let cols = to.len();
    match parts.get(part).filter(|part| row < part.rows()) {
        None => to.fill(bf16::ZERO),
        Some(part) => match part.elements()? {
            HostElements::Bf16(all) => to.copy_from_slice(&all[row * cols..(row + 1) * cols]),
            _ => {
                wide.resize(cols, 0.0);
                part.read_row(row, wide)?;
                to.convert_from_f32_slice(wide);
            }
        },
    }
    Ok(())
}

/// Fills `to` with rows of `pitch` numbers, those from row `first` on, on all threads: `read` writes the `cols` numbers of
/// one, for which it has room in f32, and zeros fill it up.
///
/// # Errors
/// As `read`; [`crate::Error::Argument`] when `to` is no memory for such rows.
pub(super) fn fill_rows(
    first: usize,
    pitch: usize,
    cols: usize,
    to: &mut [u8],
    read: &(impl Fn(usize, &mut Vec<f32>, &mut [bf16]) -> Result<()> + Sync),
) -> Result<()> {
    /// What one thread writes at a time.
    const PART: usize = 1 << 20;
    let length = to.len();
    let to = bytemuck::try_cast_slice_mut::<u8, bf16>(to);
    let to = to.map_err(|_| argument("linear", "bytes", length, "an even number, aligned to 2"))?;
    let rows = to.len() / pitch.max(1);
    let at_once = (PART / (2 * pitch).max(1)).max(1);
    let failure = Mutex::new(None);
    let shared = SharedSlice::new(to);
    pool::run(rows.div_ceil(at_once), |task| {
        let part = task * at_once..((task + 1) * at_once).min(rows);
        let mut wide = Vec::new();
        for row in part {
            // SAFETY: each row is written by one task.
            #[allow(unsafe_code)]
            let to = unsafe { shared.part(row * pitch, pitch) };
            let (to, rest) = to.split_at_mut(cols);
            rest.fill(bf16::ZERO);
            if let Err(error) = read(first + row, &mut wide, to) {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                return;
            }
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// The processor's packed row for row `row` of the device.
pub(super) fn packed_row(order: Order, row: usize) -> usize {
    match order {
        Order::Stacked => row,
        Order::Interleaved => {
            // The processor alternates sixteen by sixteen.
            let (part, row) = alternating(row);
            row / 16 * 32 + part * 16 + row % 16
        }
    }
}

/// Writes cells of `sixteen` bytes for each 16 rows, those of rows `16 * first` on, as many as `to` has room for, on all
/// threads. `packed` is the processor's form of the same weight. `to` holds zeros.
pub(super) fn write_all_cells(
    packed: &PackedInt,
    order: Order,
    kind: Kind,
    first: usize,
    sixteen: usize,
    to: &mut [u8],
) {
    let count = to.len() / sixteen;
    let shared = SharedSlice::new(to);
    pool::run(count, |i| {
        // SAFETY: each task has cells of its own.
        #[allow(unsafe_code)]
        let cells = unsafe { shared.part(i * sixteen, sixteen) };
        write_cells(packed, order, kind, first + i, cells);
    });
}

/// Writes the cells of rows `16 * index` to `16 * index + 15`.
fn write_cells(packed: &PackedInt, order: Order, kind: Kind, index: usize, to: &mut [u8]) {
    let size = cell(kind);
    for (group, cell) in to.chunks_exact_mut(size).enumerate() {
        let (codes, scales) = cell.split_at_mut(size - SCALES);
        for within in 0..ROWS {
            let row = packed_row(order, index * ROWS + within);
            let Some((word, stored)) = packed.group(row, group) else { continue };
            let place = scale_place(within);
            scales[place..place + 2].copy_from_slice(&word.to_le_bytes());
            for (feature, &code) in stored.iter().enumerate() {
                put_code(kind, codes, within, feature, code);
            }
        }
    }
}

/// The place of row `row`'s scale among a cell's scales.
fn scale_place(row: usize) -> usize {
    (row % 8 * 2 + row / 8) * 2
}

/// Writes the code of one row and feature where the lane looks for it that multiplies with it.
fn put_code(kind: Kind, codes: &mut [u8], row: usize, feature: usize, code: u8) {
    let step = feature / 16;
    let within = feature % 16;
    let lane = row % 8 * 4 + within % 8 / 2;
    // Which of the four registers of `mma`: the lower rows, the farther features.
    let register = row / 8 + within / 8 * 2;
    match kind {
        Kind::Int8 => codes[lane * 16 + step * 8 + register * 2 + within % 2] = code,
        Kind::Int4 | Kind::Int4Zero => {
            // A word holds the first codes of four pairs in its lower half, the second ones in its upper half.
            codes[lane * 8 + step * 4 + within % 2 * 2 + register / 2] |= code << (register % 2 * 4);
        }
        Kind::Bf16 => {}
    }
}

/// Numbers of a row in the device's memory.
pub(super) fn pitch(cols: usize) -> usize {
    cols.next_multiple_of(BLOCK)
}

/// Bytes of sixteen rows in cells, which lie side by side.
pub(super) fn sixteen_rows(cols: usize, kind: Kind) -> usize {
    // A weight without features has no cells, and a step of none.
    (pitch(cols) / GROUP * cell(kind)).max(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_and_ups_alternate_eight_by_eight() {
        let values: Vec<f32> = (0..20).map(|i| i as f32).collect();
        let arranged = arrange(Order::Interleaved, values);
        assert_eq!(arranged.len(), 32);
        assert_eq!(arranged[..9], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 10.0]);
        assert_eq!(arranged[15..20], [17.0, 8.0, 9.0, 0.0, 0.0]);
        assert_eq!(arranged[24..27], [18.0, 19.0, 0.0]);
    }

    #[test]
    fn each_code_has_a_place_of_its_own() {
        for (kind, size) in [(Kind::Int8, 512), (Kind::Int4, 256)] {
            let mut sums = vec![0u32; size];
            for row in 0..ROWS {
                for feature in 0..GROUP {
                    let mut codes = vec![0; size];
                    put_code(kind, &mut codes, row, feature, 15);
                    sums.iter_mut().zip(&codes).for_each(|(sum, &code)| *sum += u32::from(code));
                }
            }
            let full = if kind == Kind::Int8 { 15 } else { 255 };
            assert!(sums.iter().all(|&sum| sum == full), "{kind:?}");
        }
        let mut places: Vec<usize> = (0..ROWS).map(scale_place).collect();
        places.sort_unstable();
        assert_eq!(places, (0..ROWS).map(|i| 2 * i).collect::<Vec<_>>());
    }
}
