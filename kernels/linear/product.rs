//! What every packed product takes and gives: `y = x · Wᵀ + b` with something done to each finished row.
//!
//! **Company.** A row of `y` has the same bits whatever other rows are computed with it, and however many threads
//! there are: each element is summed along the features in one fixed order, which the weight's format names.

use crate::{HostElements, HostMatrix, Result};

/// Outputs that lie side by side in a packed weight: two vectors of sixteen.
pub(crate) const PANEL: usize = 32;

/// Rows of each part that an interleaved weight holds together: one vector.
pub(crate) const GROUP_ROWS: usize = 16;

/// One product with a packed weight.
pub(crate) struct Product<'a> {
    /// `(tokens, features)`, row-major.
    pub(crate) x: &'a [f32],
    pub(crate) tokens: usize,
    /// The number of features, which may be filled up to a multiple of sixteen.
    pub(crate) features: usize,
    /// One for each row of the weight, in the order of the packed rows.
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) finish: Finish,
    /// `(tokens, outputs)`, row-major, where `outputs` are the packed rows, or half of them for [`Finish::SwiGlu`].
    pub(crate) y: &'a mut [f32],
}

/// What happens to finished sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// `y = x · Wᵀ + b`.
    Store,
    /// `y += x · Wᵀ + b`: `y` holds the residual.
    Add,
    /// `y = silu(x · Gᵀ + g) · (x · Uᵀ + u)`; the weight's rows are [`Order::Interleaved`].
    SwiGlu,
}

/// In which order a packed weight holds the rows of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// All rows of the first part, then all of the second, and so on.
    Stacked,
    /// Two parts of equal size, sixteen rows of the first (gate), then the same sixteen of the second (up), and so
    /// on: a panel holds what SwiGLU needs together. The last group is padded with zeros to sixteen.
    Interleaved,
}

impl Order {
    /// Numbers that belong to the rows of all parts, one part after the other, in the order of packed rows.
    pub(crate) fn arrange(self, values: Vec<f32>) -> Vec<f32> {
        match self {
            Self::Stacked => values,
            Self::Interleaved => {
                let (gate, up) = values.split_at(values.len() / 2);
                let sixteen = |part: &[f32]| {
                    part.iter().copied().chain(std::iter::repeat(0.0)).take(16).collect::<Vec<_>>()
                };
                gate.chunks(16)
                    .zip(up.chunks(16))
                    .flat_map(|(g, u)| [sixteen(g), sixteen(u)].concat())
                    .collect()
            }
        }
    }
}

/// The rows of a weight before they are packed: stored matrices of equal width, in an order.
pub(crate) struct Source<'a> {
    parts: &'a [HostMatrix],
    order: Order,
}

impl<'a> Source<'a> {
    /// Interleaved sources need two parts of equal size; the caller has checked that, and that widths are equal.
    pub(crate) fn new(parts: &'a [HostMatrix], order: Order) -> Self {
        Self { parts, order }
    }

    /// The number of packed rows, those included that fill up the last group of an interleaved weight.
    pub(crate) fn rows(&self) -> usize {
        match self.order {
            Order::Stacked => self.parts.iter().map(HostMatrix::rows).sum(),
            Order::Interleaved => self.parts.first().map_or(0, |part| part.rows().div_ceil(16) * 32),
        }
    }

    /// The number of features.
    pub(crate) fn cols(&self) -> usize {
        self.parts.first().map_or(0, HostMatrix::cols)
    }

    /// Writes packed row `row`, widened to f32, to `values: (cols)`; zeros where a group is filled up.
    ///
    /// # Errors
    /// When the dtype is not a floating point one.
    pub(crate) fn read(&self, row: usize, values: &mut [f32]) -> Result<()> {
        match self.place(row) {
            Some((part, row)) => part.read_row(row, values),
            None => {
                values.fill(0.0);
                Ok(())
            }
        }
    }

    /// Packed row `row` as it is stored, where it is stored in bf16 and is not one that fills up.
    pub(crate) fn bf16_row(&self, row: usize) -> Option<&'a [half::bf16]> {
        let (part, row) = self.place(row)?;
        match part.elements() {
            Ok(HostElements::Bf16(values)) => values.get(row * part.cols()..(row + 1) * part.cols()),
            _ => None,
        }
    }

    fn place(&self, row: usize) -> Option<(&'a HostMatrix, usize)> {
        match self.order {
            Order::Stacked => {
                let mut row = row;
                for part in self.parts {
                    if row < part.rows() {
                        return Some((part, row));
                    }
                    row -= part.rows();
                }
                None
            }
            Order::Interleaved => {
                let (group, within) = (row / 32, row % 32);
                let part = self.parts.get(within / 16)?;
                let row = group * 16 + within % 16;
                (row < part.rows()).then_some((part, row))
            }
        }
    }
}
