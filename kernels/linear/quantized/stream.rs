//! Few tokens times panels that lie one behind the other, in one call.
//!
//! A panel is larger than the first-level cache, so that whatever else is written between two panels (sums, what is passed
//! on to the next call) is fetched from further away each time, while the stream of weights waits: a seventh of the time
//! with 2048 features. Here a panel's sums are finished where they were computed, and hardly anything but outputs is
//! written.

#![allow(unsafe_code)]

use std::ops::Range;

use super::{
    Scheme,
    activations::Codes,
    finish::{Bias, Outputs},
};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::{linear::product::Finish, pool::SharedSlice, processor::Isa};

/// What a stream reads and writes.
pub(super) struct Stream<'a> {
    pub(super) scheme: Scheme,
    /// Which panels these are.
    pub(super) panels: Range<usize>,
    /// Their blocks.
    pub(super) blocks: &'a [u8],
    /// Of a few tokens.
    pub(super) activations: Codes<'a>,
    pub(super) bias: &'a Bias<'a>,
    pub(super) finish: Finish,
    pub(super) y: &'a SharedSlice<'a, f32>,
    /// Elements of a row of `y`.
    pub(super) width: usize,
}

impl<'a> Stream<'a> {
    /// Where the outputs of `panel` go.
    #[inline]
    pub(super) fn outputs(&self, panel: usize) -> Outputs<'a> {
        Outputs::new(self.y, self.finish, self.width, panel, 0)
    }
}

/// Whether processors of this kind have a path for streams of so many tokens. With two of them AVX-512 was slower at it (by
/// a quarter) than one panel at a time, with three and four faster (by 6 %).
pub(super) fn streams(isa: Isa, tokens: usize) -> bool {
    match isa {
        Isa::Avx512 => matches!(tokens, 1 | 3..=6),
        Isa::Avx2 => tokens == 1,
        Isa::Portable => false,
    }
}

/// Multiplies and finishes.
///
/// # Safety
/// Nobody else has the outputs of these panels.
///
/// # Panics
/// When lengths disagree, or [`streams`] says that there is no path.
pub(super) unsafe fn run(isa: Isa, stream: &Stream<'_>) {
    let a = &stream.activations;
    assert_eq!(stream.blocks.len(), stream.panels.len() * a.groups * stream.scheme.block(), "blocks");
    let tokens = a.origins.len();
    assert!(streams(isa, tokens) && a.codes.len() == tokens * a.code_stride, "tokens");
    assert!(a.scales.len() == tokens * a.groups && a.starts.len() == tokens * a.groups, "scales");
    assert!(a.words.len() == if a.powers && tokens == 1 { a.groups } else { 0 }, "words");
    assert!(a.powers == (stream.scheme == Scheme::Int4Asymmetric), "scales");
    match isa {
        // SAFETY: the caller's promise; an `Isa` other than the portable one comes from detecting it; lengths were checked
        // above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512::stream(stream) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::stream(stream) },
        _ => panic!("no path for streams on {isa}"),
    }
}
