//! bf16 in twelve bits, without loss: a weight's lower byte as it is, and in place of its upper byte, which is its sign
//! and most of its exponent, four bits that choose one of sixteen.
//!
//! Trained weights lie within a few powers of two of each other, so that sixteen upper bytes are nearly all that a panel
//! has. (That exponents hold little is used by DFloat11 too, arXiv:2504.11651, with codes of variable length.) Where one
//! of 128 weights has another upper byte, these 128 are kept as they were. A token then reads three quarters of the
//! bytes, and computes the same bits.
//!
//! **Layout.** Panels of 32 rows, as in [`super`]. A panel begins with a cache line, of which the first sixteen bytes are
//! its upper bytes. Then come units of four features, 192 bytes each: 64 bytes of codes, those of the first pair of
//! features in the lower halves and those of the second in the upper ones, and 64 lower bytes for each of the pairs. The
//! bytes are in such an order that interleaving lower and upper ones within 128 bits gives the two vectors of sixteen
//! rows.

use std::{
    cell::RefCell,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use super::FEATURES;
#[cfg(target_arch = "x86_64")]
use super::avx512;
use crate::{
    Error, Result,
    linear::product::PANEL,
    pages::{Block, Frozen},
    pool::{self, SharedSlice},
    processor::Isa,
};

/// Features of a unit.
pub(super) const UNIT: usize = 4;
/// Bytes of a unit.
pub(super) const UNIT_BYTES: usize = 192;
/// Words of a unit that is kept as it was: `(2 pairs, 32 rows)`.
pub(super) const WHOLE_WORDS: usize = 2 * PANEL;
/// What comes before a panel's units.
pub(super) const HEADER: usize = 64;
/// Upper bytes of a panel.
pub(super) const BYTES: usize = 16;
/// When more than one of so many units is kept as it was, nothing is gained.
const FEW: usize = 6;

/// A weight in twelve bits. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Squeezed {
    panels: Frozen,
    /// Padded features.
    features: usize,
    wholes: Arc<Vec<Wholes>>,
}

/// The units of one panel that are kept as they were.
#[derive(Debug, Default)]
struct Wholes {
    /// Their places in the panel, in order.
    places: Vec<u32>,
    /// `(units, 2, 32)`, as [`super::PackedBf16`] holds pairs.
    words: Vec<u32>,
}

/// One panel.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    /// Which upper byte a code stands for.
    pub(super) bytes: [u8; BYTES],
    /// `(features / 4, 192)`.
    pub(super) units: &'a [u8],
    /// The units that are not here but in `words`, in order.
    pub(super) places: &'a [u32],
    /// `(places, 2, 32)`.
    pub(super) words: &'a [u32],
}

thread_local! {
    /// The panel that this thread is about to squeeze.
    static PAIRS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

impl Squeezed {
    /// Squeezes a weight of `rows` packed rows and `cols` features, whose panels `fill` writes: `(padded / 2, 32)` pairs,
    /// given as zeros. `None` when this would save little.
    ///
    /// # Errors
    /// Those of `fill`, and when there is no memory.
    pub(super) fn new(
        rows: usize,
        cols: usize,
        what: &'static str,
        fill: &(dyn Fn(usize, &mut [u32]) -> Result<()> + Sync),
    ) -> Result<Option<Self>> {
        let features = cols.next_multiple_of(FEATURES);
        let count = rows.div_ceil(PANEL);
        let length = HEADER + features / UNIT * UNIT_BYTES;
        let size = count.checked_mul(length).ok_or(Error::Memory { what, bytes: usize::MAX })?;
        let mut block = Block::zeros(size, what)?;
        let shared = SharedSlice::new(block.as_mut_slice());
        let made: Vec<Mutex<Wholes>> = (0..count).map(|_| Mutex::default()).collect();
        let failure = Mutex::new(None);
        pool::run(count, |panel| {
            PAIRS.with_borrow_mut(|pairs| {
                pairs.clear();
                pairs.resize(features / 2 * PANEL, 0);
                // SAFETY: each task has a panel of its own.
                let bytes = unsafe { shared.part(panel * length, length) };
                match fill(panel, pairs) {
                    Ok(()) => *lock(&made[panel]) = squeeze(pairs, bytes),
                    Err(error) => *lock(&failure) = Some(error),
                }
            });
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let wholes: Vec<Wholes> =
            made.into_iter().map(|made| made.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
        let kept: usize = wholes.iter().map(|wholes| wholes.places.len()).sum();
        if kept > count * features / UNIT / FEW {
            return Ok(None);
        }
        Ok(Some(Self { panels: block.freeze(), features, wholes: Arc::new(wholes) }))
    }

    /// What it takes in memory.
    pub(super) fn size_in_bytes(&self) -> usize {
        let words: usize = self.wholes.iter().map(|wholes| wholes.words.len() + wholes.places.len()).sum();
        self.panels.as_slice().len() + words * size_of::<u32>()
    }

    pub(super) fn panel(&self, panel: usize) -> Panel<'_> {
        let length = HEADER + self.features / UNIT * UNIT_BYTES;
        let (header, units) = self.panels.as_slice()[panel * length..(panel + 1) * length].split_at(HEADER);
        let mut bytes = [0; BYTES];
        bytes.copy_from_slice(&header[..BYTES]);
        let wholes = &self.wholes[panel];
        Panel { bytes, units, places: &wholes.places, words: &wholes.words }
    }

    /// The bits of one weight.
    pub(super) fn bits(&self, row: usize, feature: usize) -> u16 {
        let (panel, lane) = (self.panel(row / PANEL), row % PANEL);
        let (unit, pair, half) = (feature / UNIT, feature / 2 % 2, feature % 2);
        if let Ok(whole) = panel.places.binary_search(&(unit as u32)) {
            return (panel.words[whole * WHOLE_WORDS + pair * PANEL + lane] >> (16 * half)) as u16;
        }
        let place = place(lane, half);
        let unit = &panel.units[unit * UNIT_BYTES..][..UNIT_BYTES];
        let code = unit[place] >> (4 * pair) & 15;
        u16::from(panel.bytes[usize::from(code)]) << 8 | u16::from(unit[64 + 64 * pair + place])
    }
}

impl Panel<'_> {
    /// Writes features `features`, multiples of four, as [`super::PackedBf16`] holds them: `(features / 2, 32)` pairs.
    pub(super) fn expand(&self, isa: Isa, features: Range<usize>, pairs: &mut [u32]) {
        let units = features.start / UNIT..features.end / UNIT;
        let packed = &self.units[units.start * UNIT_BYTES..units.end * UNIT_BYTES];
        let pairs = &mut pairs[..units.len() * WHOLE_WORDS];
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` other than the portable one comes from detecting it; there are as many units on both
            // sides.
            Isa::Avx512 => unsafe { avx512::expand(&self.bytes, packed, pairs) },
            _ => expand(&self.bytes, packed, pairs),
        }
        let first = self.places.partition_point(|&place| (place as usize) < units.start);
        for (i, &unit) in self.places.iter().enumerate().skip(first) {
            if unit as usize >= units.end {
                break;
            }
            let words = &self.words[i * WHOLE_WORDS..][..WHOLE_WORDS];
            pairs[(unit as usize - units.start) * WHOLE_WORDS..][..WHOLE_WORDS].copy_from_slice(words);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the byte of a row's first or second feature of a pair lies.
fn place(row: usize, half: usize) -> usize {
    row % 16 / 4 * 16 + row / 16 * 8 + row % 4 * 2 + half
}

/// Squeezes one panel of pairs into `bytes`, a header and units.
fn squeeze(pairs: &[u32], bytes: &mut [u8]) -> Wholes {
    let (header, units) = bytes.split_at_mut(HEADER);
    let chosen = most_frequent(pairs);
    header[..BYTES].copy_from_slice(&chosen);
    let mut codes = [u8::MAX; 256];
    for (code, &byte) in chosen.iter().enumerate() {
        codes[usize::from(byte)] = code as u8;
    }
    let mut wholes = Wholes::default();
    for (i, (words, unit)) in
        pairs.chunks_exact(WHOLE_WORDS).zip(units.chunks_exact_mut(UNIT_BYTES)).enumerate()
    {
        let mut missing = 0;
        for (pair, words) in words.chunks_exact(PANEL).enumerate() {
            for (row, &word) in words.iter().enumerate() {
                for half in 0..2 {
                    let bits = (word >> (16 * half)) as u16;
                    let (code, place) = (codes[usize::from(bits >> 8)], place(row, half));
                    missing |= code;
                    unit[place] |= (code & 15) << (4 * pair);
                    unit[64 + 64 * pair + place] = bits as u8;
                }
            }
        }
        if missing > 15 {
            wholes.places.push(i as u32);
            wholes.words.extend_from_slice(words);
        }
    }
    wholes
}

/// The upper bytes that most weights of a panel have.
fn most_frequent(pairs: &[u32]) -> [u8; BYTES] {
    // Several counters each, so that equal bytes in a row do not wait for each other.
    let mut counts = [[0u32; 256]; 4];
    for words in pairs.as_chunks::<2>().0 {
        counts[0][(words[0] >> 8 & 255) as usize] += 1;
        counts[1][(words[0] >> 24) as usize] += 1;
        counts[2][(words[1] >> 8 & 255) as usize] += 1;
        counts[3][(words[1] >> 24) as usize] += 1;
    }
    let mut order: Vec<(u32, u8)> =
        (0..=255u8).map(|byte| (counts.iter().map(|counts| counts[usize::from(byte)]).sum(), byte)).collect();
    order.sort_unstable_by_key(|&(count, byte)| (std::cmp::Reverse(count), byte));
    std::array::from_fn(|code| order[code].1)
}

fn expand(bytes: &[u8; BYTES], units: &[u8], pairs: &mut [u32]) {
    for (unit, words) in units.chunks_exact(UNIT_BYTES).zip(pairs.chunks_exact_mut(WHOLE_WORDS)) {
        for (pair, words) in words.chunks_exact_mut(PANEL).enumerate() {
            for (row, word) in words.iter_mut().enumerate() {
                let bits = |half: usize| {
                    let place = place(row, half);
                    let upper = bytes[usize::from(unit[place] >> (4 * pair) & 15)];
                    u32::from(upper) << 8 | u32::from(unit[64 + 64 * pair + place])
                };
                *word = bits(0) | bits(1) << 16;
            }
        }
    }
}
