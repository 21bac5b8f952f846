//! Memory that each thread keeps for its tasks, so that attention allocates nothing once it has been used.

use std::cell::RefCell;

use super::{
    rows::ROWS,
    step::{BLOCK, MOST_HEAD_DIM, QUERY_STRIDE, Tile},
};
use crate::kv_cache::group;

/// What one task needs. Fields are as large as the largest task's; memory that no task touches is never taken.
pub(crate) struct Scratch {
    /// Groups that a task makes for itself.
    pub(crate) groups: Words,
    pub(crate) rows: ForRows,
}

/// What the rows of a task need.
pub(crate) struct ForRows {
    /// Narrowed queries.
    pub(crate) queries: Words,
    pub(crate) tile: Box<Tile>,
    /// What a span has given.
    pub(crate) span: State,
    /// What the spans so far have given.
    pub(crate) total: State,
    /// A query or key before it is narrowed.
    pub(crate) rotated: Vec<f32>,
}

/// Groups that a task may make in its own memory.
pub(crate) const GROUPS: usize = 2 * BLOCK / group::TOKENS;

/// The running softmax of up to [`ROWS`] rows.
pub(crate) struct State {
    pub(crate) largest: Vec<f32>,
    pub(crate) sums: Vec<[f32; 16]>,
    /// `(rows, padded)`.
    pub(crate) out: Vec<f32>,
}

impl State {
    fn new() -> Self {
        Self { largest: vec![0.0; ROWS], sums: vec![[0.0; 16]; ROWS], out: vec![0.0; ROWS * MOST_HEAD_DIM] }
    }
}

/// Words that begin on a cache line.
pub(crate) struct Words {
    words: Vec<u32>,
    first: usize,
}

impl Words {
    pub(crate) fn zeros(len: usize) -> Self {
        // A plain vector of zeros is taken from the system as such; its beginning is moved to the next line.
        let words = vec![0u32; len + 16];
        let first = words.as_ptr().align_offset(64).min(16);
        Self { words, first }
    }

    pub(crate) fn get(&mut self) -> &mut [u32] {
        let len = self.words.len() - 16;
        &mut self.words[self.first..self.first + len]
    }
}

impl Scratch {
    fn new() -> Self {
        Self {
            groups: Words::zeros(GROUPS * group::words(MOST_HEAD_DIM)),
            rows: ForRows {
                queries: Words::zeros(ROWS * QUERY_STRIDE),
                tile: Box::default(),
                span: State::new(),
                total: State::new(),
                rotated: vec![0.0; MOST_HEAD_DIM],
            },
        }
    }

    /// Calls `f` with this thread's.
    pub(crate) fn with<R>(f: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static SCRATCH: RefCell<Option<Box<Scratch>>> = const { RefCell::new(None) };
        }
        SCRATCH.with_borrow_mut(|scratch| f(scratch.get_or_insert_with(|| Box::new(Self::new()))))
    }
}
