//! The write into the paged cache by candle: one in-place copy for each run of neighbouring slots.

use super::Exact;
use crate::{Result, Tensor};

/// See [`super::write`].
pub(super) fn write(cache: &mut Exact, keys: &Tensor, values: &Tensor, slots: &[u32]) -> Result<()> {
    for (cached, new) in [(&cache.keys, keys), (&cache.values, values)] {
        let new = new.to_candle()?.contiguous()?;
        let mut first = 0;
        for run in slots.chunk_by(|a, b| a + 1 == *b) {
            cached.slice_set(&new.narrow(0, first, run.len())?.contiguous()?, 0, run[0] as usize)?;
            first += run.len();
        }
    }
    Ok(())
}
