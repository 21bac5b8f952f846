//! A weight that was packed before, and is multiplied where it lies in its file until it has been squeezed.

use std::sync::{Arc, OnceLock};

use super::{Numbers, squeeze::Squeezed};
use crate::{
    HostBytes, Result,
    pages::Frozen,
    settle::{self, Pace, Settles},
};

/// Plain at first; squeezed, or plain in huge pages where nothing is gained by squeezing, in the end.
#[derive(Debug)]
pub(super) struct Settling {
    rows: usize,
    cols: usize,
    what: &'static str,
    file: HostBytes,
    plain: Frozen,
    squeezed: OnceLock<Squeezed>,
}

impl Settling {
    /// A weight of `rows` packed rows and `cols` features whose packed bytes are `file`; their number was checked.
    pub(super) fn new(rows: usize, cols: usize, file: &HostBytes, what: &'static str) -> Arc<Self> {
        let plain = Frozen::in_place(file, what);
        let weight =
            Arc::new(Self { rows, cols, what, file: file.clone(), plain, squeezed: OnceLock::new() });
        let settles: Arc<dyn Settles> = weight.clone();
        settle::later(Arc::downgrade(&settles));
        weight
    }

    pub(super) fn numbers(&self) -> Numbers<'_> {
        match self.squeezed.get() {
            Some(squeezed) => Numbers::Squeezed(squeezed),
            None => Numbers::Plain(self.plain.as_slice()),
        }
    }
}

impl Settles for Settling {
    fn settle(&self, pace: &mut Pace) {
        match pace.step(|| squeezed(self.rows, self.cols, &self.file, self.what)) {
            Ok(Some(squeezed)) => {
                // Only one thread settles, so there is no other.
                let _ = self.squeezed.set(squeezed);
                self.file.release();
            }
            Ok(None) => self.plain.settle(pace),
            // Without room it stays in its file.
            Err(_) => {}
        }
    }
}

/// Squeezes packed bytes; `None` where nothing is gained.
///
/// # Errors
/// When there is no memory.
pub(super) fn squeezed(
    rows: usize,
    cols: usize,
    bytes: &HostBytes,
    what: &'static str,
) -> Result<Option<Squeezed>> {
    Squeezed::new(rows, cols, what, &|panel, pairs| {
        let pairs: &mut [u8] = bytemuck::cast_slice_mut(pairs);
        bytes.copy_to(panel * pairs.len(), pairs);
        Ok(())
    })
}
