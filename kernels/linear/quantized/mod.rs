//! Linear layers whose weights are quantized to eight or four bits: `y = x · Wᵀ + b`, as in [`super::product`].
//!
//! Weights are cut into groups of 32 features, each row's group with a scale of its own (see [`format`] for the bytes).
//! Activations are quantized to eight bits on the way in, by token and group, whatever the number of tokens, so that
//! products are those of whole numbers; beside asymmetric weights of four bits in steps that are powers of two, see
//! [`activations::Steps`]. The floor: one token reads each byte once, 8.5 or 4.5 bits per weight; many tokens cost
//! `2 * tokens * in * out` operations at the rate of the processor's eight-bit dot product.
//!
//! **Company.** Groups are summed exactly, in integers, then in the order of the features in one f32 for each element.

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod finish;
mod format;
mod multiply;
mod portable;
mod quantize;
#[cfg(test)]
mod rivals;
mod stream;
mod sums;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    sync::{Mutex, PoisonError},
};

use self::format::{GROUP, HEADER, PANEL};
use super::product::{Finish, Product, Source};
use crate::{
    Result,
    error::argument,
    pages::{Block, Frozen},
    pool::{self, SharedSlice},
    processor::Isa,
};

const OP: &str = "quantize";
/// The greatest magnitude a weight may have: what the scales of four bits reach.
const GREATEST: f32 = 3600.0;

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Eight bits around zero, a scale for each 32: 8.5 bits per weight.
    Int8,
    /// Four bits around zero, a scale for each 32: 4.5 bits per weight.
    Int4Symmetric,
    /// Four bits, a scale and a zero point for each 32: 4.5 bits per weight.
    Int4Asymmetric,
}

impl Scheme {
    /// What a weight takes in memory, scales included.
    pub fn bits_per_weight(self) -> f64 {
        (self.block() * 8) as f64 / (PANEL * GROUP) as f64
    }
}

/// A quantized weight, `(rows, cols)`, packed in panels. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct PackedInt {
    scheme: Scheme,
    rows: usize,
    cols: usize,
    bytes: Frozen,
}

impl PackedInt {
    /// Quantizes and packs the rows of `source`, on all threads.
    ///
    /// # Errors
    /// When there is no memory for it, a dtype is not a floating point one, or a weight is not a number up to 3600 in
    /// magnitude.
    pub(crate) fn pack(source: &Source<'_>, scheme: Scheme, what: &'static str) -> Result<Self> {
        Self::pack_on(Isa::current(), source, scheme, what)
    }

    fn pack_on(isa: Isa, source: &Source<'_>, scheme: Scheme, what: &'static str) -> Result<Self> {
        let (rows, cols) = (source.rows(), source.cols());
        let size = size(scheme, rows, cols)?;
        let mut block = Block::zeros(size, what)?;
        let panels = rows.div_ceil(PANEL);
        let failure = Mutex::new(None);
        let bytes = SharedSlice::new(block.as_mut_slice());
        pool::run(panels, |panel| {
            let length = size / panels;
            // SAFETY: each panel is packed by one task.
            #[allow(unsafe_code)]
            let bytes = unsafe { bytes.part(panel * length, length) };
            if let Err(error) = pack_panel(isa, source, scheme, panel, bytes) {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(Self { scheme, rows, cols, bytes: block.freeze() }),
        }
    }

    /// Takes what [`Self::bytes`] gave for the same scheme and shape.
    ///
    /// # Errors
    /// When the number of bytes does not fit.
    pub(crate) fn from_bytes(scheme: Scheme, rows: usize, cols: usize, bytes: Frozen) -> Result<Self> {
        let size = size(scheme, rows, cols)?;
        if bytes.as_slice().len() != size {
            let expected = format!("{size} for {rows} x {cols} weights of {scheme:?}");
            return Err(argument(OP, "packed bytes", bytes.as_slice().len(), expected));
        }
        Ok(Self { scheme, rows, cols, bytes })
    }

    /// The packed bytes, the same on every processor.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// The number of packed bytes, `None` where it overflows.
    pub(crate) fn packed_size(scheme: Scheme, rows: usize, cols: usize) -> Option<usize> {
        rows.div_ceil(PANEL).checked_mul(cols.div_ceil(GROUP))?.checked_mul(scheme.block())
    }

    /// How it is stored.
    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The number of packed rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// What it takes in memory.
    pub(crate) fn size_in_bytes(&self) -> usize {
        self.bytes().len()
    }

    /// Writes packed row `row` to `values: (cols)`.
    ///
    /// # Panics
    /// When there is no such row, or `values` has another length.
    pub(crate) fn read_row(&self, row: usize, values: &mut [f32]) {
        assert!(row < self.rows && values.len() == self.cols, "row {row}, {} values", values.len());
        let lane = row % PANEL;
        let blocks = self.panel(row / PANEL).chunks_exact(self.scheme.block());
        for (values, block) in values.chunks_mut(GROUP).zip(blocks) {
            let entry = format::entry(self.scheme, portable::word(block, lane));
            for (feature, value) in values.iter_mut().enumerate() {
                let place = format::code_place(lane, feature);
                let code = format::code(self.scheme, &block[HEADER..], place, entry.base);
                *value = (i32::from(code) - format::OFFSET) as f32 * entry.scale;
            }
        }
    }

    /// The header word and the codes, as they are stored, of one packed row's group of 32 features, for devices that have
    /// a layout of their own; none when there is no such row or group.
    pub(crate) fn group(&self, row: usize, group: usize) -> Option<(u16, [u8; GROUP])> {
        if row >= self.rows || group >= self.cols.div_ceil(GROUP) {
            return None;
        }
        let lane = row % PANEL;
        let block = self.panel(row / PANEL).chunks_exact(self.scheme.block()).nth(group)?;
        let codes = std::array::from_fn(|feature| {
            format::stored_code(self.scheme, &block[HEADER..], format::code_place(lane, feature))
        });
        Some((portable::word(block, lane), codes))
    }

    /// Carries out a product.
    ///
    /// # Panics
    /// When lengths disagree.
    pub(crate) fn multiply(&self, p: Product<'_>) {
        self.multiply_on(Isa::current(), p);
    }

    fn multiply_on(&self, isa: Isa, p: Product<'_>) {
        let outputs = match p.finish {
            Finish::Store | Finish::Add => self.rows,
            Finish::SwiGlu => {
                assert!(self.rows.is_multiple_of(PANEL), "interleaved rows come in groups of {PANEL}");
                self.rows / 2
            }
        };
        // What fills features up lies within the last group, whose codes are filled up with zeros.
        assert!((self.cols..=self.cols.next_multiple_of(GROUP)).contains(&p.features), "features");
        assert_eq!(p.x.len(), p.tokens * p.features, "elements of x");
        assert_eq!(p.y.len(), p.tokens * outputs, "elements of y");
        assert!(p.bias.is_none_or(|bias| bias.len() == self.rows), "elements of the bias");
        multiply::multiply(isa, self, p);
    }

    /// The blocks of one panel.
    fn panel(&self, panel: usize) -> &[u8] {
        &self.bytes()[self.panel_start(panel)..self.panel_start(panel + 1)]
    }

    /// Where the blocks of one panel begin.
    fn panel_start(&self, panel: usize) -> usize {
        panel * self.cols.div_ceil(GROUP) * self.scheme.block()
    }
}

fn size(scheme: Scheme, rows: usize, cols: usize) -> Result<usize> {
    PackedInt::packed_size(scheme, rows, cols)
        .ok_or_else(|| argument(OP, "weight", (rows, cols), "a shape that fits in memory"))
}

thread_local! {
    /// The 32 rows that this thread is about to pack.
    static ROWS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

fn pack_panel(isa: Isa, source: &Source<'_>, scheme: Scheme, panel: usize, bytes: &mut [u8]) -> Result<()> {
    let cols = source.cols();
    ROWS.with_borrow_mut(|rows| {
        rows.clear();
        rows.resize(PANEL * cols, 0.0);
        let first = panel * PANEL;
        for (i, values) in rows.chunks_exact_mut(cols.max(1)).enumerate() {
            if first + i < source.rows() {
                source.read(first + i, values)?;
                if let Some(wrong) = values.iter().find(|w| w.is_nan() || w.abs() > GREATEST) {
                    let expected = format!("numbers of magnitude up to {GREATEST}");
                    return Err(argument(OP, "a weight of row", (first + i, wrong), expected));
                }
            }
        }
        for (group, block) in bytes.chunks_exact_mut(scheme.block()).enumerate() {
            let mut weights = [[0.0; PANEL]; GROUP];
            let start = group * GROUP;
            for (lane, row) in rows.chunks_exact(cols).enumerate() {
                for (feature, &w) in row[start..cols.min(start + GROUP)].iter().enumerate() {
                    weights[feature][lane] = w;
                }
            }
            quantize::quantize(isa, scheme, &weights, block);
        }
        Ok(())
    })
}
