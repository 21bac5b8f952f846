//! Weights in bf16, packed in panels, and their products.
//!
//! **Layout.** `[rows / 32][cols / 2][32][2]`: a panel holds 32 rows; for each pair of features it holds the 32 rows'
//! values of both side by side, as the dot product instruction of bf16 takes them. Rows are filled up to 32 with
//! zeros, features to [`FEATURES`].
//!
//! For a few tokens, [`squeeze`] holds the same numbers in three quarters of the bytes.
//!
//! **Arithmetic.** Activations are rounded to bf16, products are summed in f32: each element of `y` has one
//! accumulator that goes through the pairs of features in order, for any number of tokens. The accumulator may rest
//! in memory between blocks of features, which changes no bit.
//!
//! **The floor.** Up to [`Path::ROWS`] tokens all rows are in registers at once and the weight streams by: its bytes
//! over the memory's bandwidth. Beyond that it is `2 · tokens · rows · cols` operations over the peak of the dot
//! product instruction; the rounding of `x` and the finish of `y` are the only extras.

#![allow(unsafe_code)]
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod pack;
mod portable;
mod product;
mod settling;
mod squeeze;
#[cfg(test)]
mod tests;
mod tile;

use std::sync::Arc;

use crate::{
    Result,
    error::argument,
    linear::product::{Finish, PANEL, Product},
    pages::Frozen,
    processor::Isa,
};

const OP: &str = "linear_bf16";

/// Packed features are a multiple of this: enough for the unrolled loops, and for `x` that is itself the output of
/// an interleaved product, whose rows are filled up to sixteen.
const FEATURES: usize = 32;

/// A weight `(rows, cols)` in bf16, in panels.
#[derive(Clone, Debug)]
pub(crate) struct PackedBf16 {
    rows: usize,
    cols: usize,
    store: Store,
}

/// How the numbers lie in memory.
#[derive(Clone, Debug)]
enum Store {
    /// In the layout of this module.
    Plain(Frozen),
    Squeezed(squeeze::Squeezed),
    /// Plain in a mapped file, until it has been squeezed.
    Settling(Arc<settling::Settling>),
}

/// The numbers as they lie at the moment.
enum Numbers<'a> {
    Plain(&'a [u8]),
    Squeezed(&'a squeeze::Squeezed),
}

impl PackedBf16 {
    /// The size in bytes of a packed weight, `None` when it is beyond counting.
    pub(crate) fn packed_size(rows: usize, cols: usize) -> Option<usize> {
        let rows = rows.checked_next_multiple_of(PANEL)?;
        let cols = cols.checked_next_multiple_of(FEATURES)?;
        rows.checked_mul(cols)?.checked_mul(2)
    }

    /// A weight that was packed before, in the same layout.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when the bytes do not fit the shape or don't begin on a cache line.
    pub(crate) fn from_bytes(rows: usize, cols: usize, bytes: Frozen) -> Result<Self> {
        let slice = bytes.as_slice();
        Self::check_bytes(rows, cols, slice.len())?;
        if slice.as_ptr().align_offset(crate::pages::ALIGNMENT) != 0 {
            return Err(argument(
                OP,
                "address of the bytes",
                slice.as_ptr(),
                "the beginning of a cache line",
            ));
        }
        Ok(Self { rows, cols, store: Store::Plain(bytes) })
    }

    fn check_bytes(rows: usize, cols: usize, len: usize) -> Result<()> {
        if Self::packed_size(rows, cols) == Some(len) {
            return Ok(());
        }
        Err(argument(OP, "bytes", len, format!("the size of a packed weight of {rows} x {cols}")))
    }

    /// The packed bytes, little-endian, as [`Self::from_bytes`] takes them; `None` of a squeezed weight.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match self.numbers() {
            Numbers::Plain(bytes) => Some(bytes),
            Numbers::Squeezed(_) => None,
        }
    }

    fn numbers(&self) -> Numbers<'_> {
        match &self.store {
            Store::Plain(bytes) => Numbers::Plain(bytes.as_slice()),
            Store::Squeezed(squeezed) => Numbers::Squeezed(squeezed),
            Store::Settling(settling) => settling.numbers(),
        }
    }

    /// The number of packed rows, those included that fill up an interleaved weight's last group.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The size in memory.
    pub(crate) fn size_in_bytes(&self) -> usize {
        match self.numbers() {
            Numbers::Plain(bytes) => bytes.len(),
            Numbers::Squeezed(squeezed) => squeezed.size_in_bytes(),
        }
    }

    /// `y = finish(x · Wᵀ + b)`; see [`Product`]. Rows of `x` may be longer than the weight's features by what
    /// fills them up to [`FEATURES`]; what lies there is not read.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when lengths disagree, [`crate::Error::Memory`] when there is none for `x` in bf16.
    pub(crate) fn multiply(&self, p: Product<'_>) -> Result<()> {
        self.multiply_on(Isa::current(), p)
    }

    /// The same with the instruction set named, which the processor must have.
    fn multiply_on(&self, isa: Isa, p: Product<'_>) -> Result<()> {
        self.check(&p)?;
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => product::multiply::<avx512::Avx512>(isa, self, p),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => product::multiply::<avx2::Avx2>(isa, self, p),
            _ => product::multiply::<portable::Portable>(isa, self, p),
        }
    }

    fn check(&self, p: &Product<'_>) -> Result<()> {
        if !(self.cols..=self.padded_cols()).contains(&p.features) {
            return Err(argument(OP, "features", p.features, format!("{}", self.cols)));
        }
        if p.tokens.checked_mul(p.features) != Some(p.x.len()) {
            let expected = format!("{} tokens of {} features", p.tokens, p.features);
            return Err(argument(OP, "elements of x", p.x.len(), expected));
        }
        if p.finish == Finish::SwiGlu && !self.rows.is_multiple_of(PANEL) {
            return Err(argument(OP, "rows of an interleaved weight", self.rows, "a multiple of 32"));
        }
        let outputs = self.outputs(p.finish);
        if p.tokens.checked_mul(outputs) != Some(p.y.len()) {
            let expected = format!("{} tokens of {outputs} outputs", p.tokens);
            return Err(argument(OP, "elements of y", p.y.len(), expected));
        }
        if let Some(bias) = p.bias
            && bias.len() != self.rows
        {
            return Err(argument(OP, "elements of the bias", bias.len(), format!("{}", self.rows)));
        }
        Ok(())
    }

    /// The width of `y`.
    fn outputs(&self, finish: Finish) -> usize {
        if finish == Finish::SwiGlu { self.rows / 2 } else { self.rows }
    }

    fn padded_cols(&self) -> usize {
        self.cols.next_multiple_of(FEATURES)
    }
}
