//! How busy the engine is: numbers that the device's thread leaves behind and that anybody may read without waiting.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How busy an engine is at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that were submitted and have not started on the device yet.
    pub waiting: usize,
    /// Requests that the device works on.
    pub running: usize,
    /// Blocks of the cache that belong to a request.
    pub used_cache_blocks: usize,
    /// Blocks of the cache in all.
    pub cache_blocks: usize,
    /// Tokens generated since the start, for whomever: those of answers whose caller has left are among them.
    pub generated_tokens: u64,
}

impl Load {
    /// The share of the cache that is in use, from 0 to 1.
    pub fn cache_usage(&self) -> f64 {
        if self.cache_blocks == 0 { 0.0 } else { self.used_cache_blocks as f64 / self.cache_blocks as f64 }
    }
}

/// What the device's thread writes down before each step. The numbers are read one by one, so they may be of two
/// neighbouring steps.
#[derive(Debug)]
pub(crate) struct LoadCounters {
    running: AtomicUsize,
    used_cache_blocks: AtomicUsize,
    cache_blocks: usize,
    generated_tokens: AtomicU64,
}

impl LoadCounters {
    pub(crate) fn new(cache_blocks: usize) -> Self {
        Self {
            running: AtomicUsize::new(0),
            used_cache_blocks: AtomicUsize::new(0),
            cache_blocks,
            generated_tokens: AtomicU64::new(0),
        }
    }

    /// One more token was chosen. Called by the device's thread only.
    pub(crate) fn count_token(&self) {
        self.generated_tokens.fetch_add(1, Ordering::AcqRel);
    }

    /// Called by the device's thread only.
    pub(crate) fn publish(&self, running: usize, free_cache_blocks: usize) {
        self.running.store(running, Ordering::Release);
        self.used_cache_blocks.store(self.cache_blocks.saturating_sub(free_cache_blocks), Ordering::Release);
    }

    /// The numbers, with those that wait, which somebody else counts.
    pub(crate) fn read(&self, waiting: usize) -> Load {
        Load {
            waiting,
            running: self.running.load(Ordering::Acquire),
            used_cache_blocks: self.used_cache_blocks.load(Ordering::Acquire),
            cache_blocks: self.cache_blocks,
            generated_tokens: self.generated_tokens.load(Ordering::Acquire),
        }
    }
}
