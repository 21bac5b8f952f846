//! From stored rows to panels and back.

use half::{bf16, slice::HalfFloatSliceExt};

use super::{
    FEATURES, Numbers, OP, PackedBf16, Store,
    settling::{self, Settling},
    squeeze::Squeezed,
};
use crate::{
    Error, HostBytes, Result,
    error::argument,
    linear::product::{PANEL, Source},
    pages::{Block, Frozen},
    pool::{self, SharedSlice},
    processor::Isa,
};

/// Pairs of features that are turned at a time: one cache line of each row.
const PAIRS: usize = 16;

impl PackedBf16 {
    /// Packs `source`, panel by panel on all threads. Rows that are stored in bf16 keep their bits, others are
    /// rounded to the nearest.
    ///
    /// # Errors
    /// [`Error::Memory`] when there is no room, [`Error::Argument`] when the source is not in floating point.
    pub(crate) fn pack(source: &Source<'_>, what: &'static str) -> Result<Self> {
        let (rows, cols) = (source.rows(), source.cols());
        let size = Self::packed_size(rows, cols).ok_or(Error::Memory { what, bytes: usize::MAX })?;
        let mut block = Block::zeros(size, what)?;
        let pairs = bytemuck::cast_slice_mut(block.as_mut_slice());
        let panel_pairs = cols.next_multiple_of(FEATURES) / 2 * PANEL;
        let shared = SharedSlice::new(pairs);
        let failure = std::sync::Mutex::new(None);
        pool::run(rows.div_ceil(PANEL), |panel| {
            // SAFETY: each task has a panel of its own.
            let pairs = unsafe { shared.part(panel * panel_pairs, panel_pairs) };
            if let Err(error) = pack_panel(source, panel, pairs) {
                *failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
            }
        });
        match failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Self::from_bytes(rows, cols, block.freeze()),
        }
    }

    /// The same in twelve bits where that saves a quarter, as it does for weights that were trained, and where this processor
    /// multiplies such weights: see [`super::squeeze`].
    ///
    /// # Errors
    /// As [`PackedBf16::pack`].
    pub(crate) fn pack_squeezed(source: &Source<'_>, what: &'static str) -> Result<Self> {
        let (rows, cols) = (source.rows(), source.cols());
        if Isa::current() == Isa::Avx512 {
            let fill = |panel: usize, pairs: &mut [u32]| pack_panel(source, panel, pairs);
            if let Some(squeezed) = Squeezed::new(rows, cols, what, &fill)? {
                return Ok(Self { rows, cols, store: Store::Squeezed(squeezed) });
            }
        }
        Self::pack(source, what)
    }

    /// [`PackedBf16::pack_squeezed`] of what was packed before, in the layout that is not squeezed. Bytes of a mapped file
    /// that lie in memory are multiplied there until they have been squeezed.
    ///
    /// # Errors
    /// As [`PackedBf16::from_bytes`], and when there is no memory.
    pub(crate) fn squeeze_bytes(
        rows: usize,
        cols: usize,
        bytes: &HostBytes,
        what: &'static str,
    ) -> Result<Self> {
        Self::check_bytes(rows, cols, bytes.as_ref().len())?;
        if Isa::current() == Isa::Avx512 {
            if Frozen::can_settle(bytes) {
                let store = Store::Settling(Settling::new(rows, cols, bytes, what));
                return Ok(Self { rows, cols, store });
            }
            if let Some(squeezed) = settling::squeezed(rows, cols, bytes, what)? {
                bytes.release();
                return Ok(Self { rows, cols, store: Store::Squeezed(squeezed) });
            }
        }
        Self::from_bytes(rows, cols, Frozen::copy_of(bytes, what)?)
    }

    /// Writes packed row `row`, widened to f32, to `values: (cols)`.
    ///
    /// # Errors
    /// [`Error::Index`] when there is no such row, [`Error::Argument`] when `values` has another length.
    pub(crate) fn read_row(&self, row: usize, values: &mut [f32]) -> Result<()> {
        if row >= self.rows {
            return Err(Error::Index { op: OP, index: row, len: self.rows });
        }
        if values.len() != self.cols {
            return Err(argument(OP, "values", values.len(), format!("{} elements", self.cols)));
        }
        let panel = self.padded_cols() * PANEL;
        let all: &[u16] = match self.numbers() {
            Numbers::Plain(bytes) => bytemuck::cast_slice(bytes),
            Numbers::Squeezed(squeezed) => {
                for (feature, value) in values.iter_mut().enumerate() {
                    *value = bf16::from_bits(squeezed.bits(row, feature)).to_f32();
                }
                return Ok(());
            }
        };
        let pairs = &all[row / PANEL * panel..][row % PANEL * 2..];
        for (values, pair) in values.chunks_mut(2).zip(pairs.chunks(2 * PANEL)) {
            for (value, &bits) in values.iter_mut().zip(pair) {
                *value = f32::from_bits(u32::from(bits) << 16);
            }
        }
        Ok(())
    }
}

/// Writes the 32 rows of panel number `panel` to `pairs: (padded features / 2, 32)`, which holds zeros.
fn pack_panel(source: &Source<'_>, panel: usize, pairs: &mut [u32]) -> Result<()> {
    let (rows, cols) = (source.rows(), source.cols());
    let first = panel * PANEL;
    let count = PANEL.min(rows - first);
    let mut wide = Vec::new();
    let mut rounded = Vec::new();
    let stored: Vec<Option<&[bf16]>> = (first..first + count).map(|row| source.bf16_row(row)).collect();
    if stored.iter().any(Option::is_none) {
        wide.resize(cols, 0.0f32);
        rounded.resize(count * cols, bf16::ZERO);
        for (i, values) in (0..count).zip(rounded.chunks_exact_mut(cols.max(1))) {
            source.read(first + i, &mut wide)?;
            values.convert_from_f32_slice(&wide);
        }
    }
    // A line of every row at a time: rows lie so far apart that their lines would displace each other.
    for (block, out) in pairs.chunks_mut(PAIRS * PANEL).enumerate() {
        let start = (block * PAIRS * 2).min(cols);
        let end = (start + PAIRS * 2).min(cols);
        for (i, stored) in stored.iter().enumerate() {
            let row =
                stored.map_or_else(|| &rounded[i * cols + start..i * cols + end], |row| &row[start..end]);
            let (whole, rest) = row.as_chunks::<2>();
            for (pair, out) in whole.iter().zip(out.chunks_exact_mut(PANEL)) {
                out[i] = u32::from(pair[0].to_bits()) | u32::from(pair[1].to_bits()) << 16;
            }
            if let [last] = rest {
                out[whole.len() * PANEL + i] = u32::from(last.to_bits());
            }
        }
    }
    Ok(())
}
