//! Which block of the paged key-value cache belongs to which sequence. Numbers only: the cache itself is
//! elsewhere. (Kwon et al., "Efficient memory management for large language model serving with
//! PagedAttention", 2023.)

use std::collections::HashMap;
use std::num::NonZeroUsize;

use crate::Error;
use crate::scheduler::SequenceId;

/// Gives out the blocks of a cache. A block has one owner or none; it goes back when its owner is released.
#[derive(Debug)]
pub(crate) struct BlockAllocator {
    /// Tokens for each block.
    block_size: NonZeroUsize,
    n_blocks: usize,
    /// Blocks without an owner; the last one is given out next.
    free: Vec<u32>,
    /// Blocks of each sequence, in the order of its tokens.
    tables: HashMap<SequenceId, Vec<u32>>,
}

impl BlockAllocator {
    /// `n_blocks` free blocks of `block_size` tokens each.
    pub(crate) fn new(n_blocks: u32, block_size: NonZeroUsize) -> Self {
        Self {
            block_size,
            n_blocks: n_blocks as usize,
            free: (0..n_blocks).rev().collect(),
            tables: HashMap::new(),
        }
    }

    /// Makes a sequence's table long enough for `n_tokens` in all. A longer table stays as it is. On
    /// [`Error::CacheFull`] nothing has changed.
    pub(crate) fn reserve(&mut self, sequence: SequenceId, n_tokens: usize) -> Result<(), Error> {
        let wanted = n_tokens.div_ceil(self.block_size.get());
        let needed = wanted.saturating_sub(self.table(sequence).len());
        if needed > self.free.len() {
            return Err(Error::CacheFull { needed, free: self.free.len() });
        }
        if needed > 0 {
            let kept = self.free.len() - needed;
            self.tables.entry(sequence).or_default().extend(self.free.drain(kept..).rev());
        }
        Ok(())
    }

    /// Takes a sequence's blocks back and returns how many there were: 0 for a sequence that has none, so
    /// releasing twice does no harm.
    pub(crate) fn release(&mut self, sequence: SequenceId) -> usize {
        let table = self.tables.remove(&sequence).unwrap_or_default();
        self.free.extend(table.iter().rev());
        table.len()
    }

    /// Blocks of a sequence: token `i` is in block `table[i / block_size]` at place `i % block_size`. Empty
    /// for a sequence that has none.
    pub(crate) fn table(&self, sequence: SequenceId) -> &[u32] {
        self.tables.get(&sequence).map_or(&[], Vec::as_slice)
    }

    /// Tokens for each block.
    pub(crate) fn block_size(&self) -> usize {
        self.block_size.get()
    }

    /// Blocks without an owner.
    pub(crate) fn n_free(&self) -> usize {
        self.free.len()
    }

    /// Tokens for which all blocks together have room.
    pub(crate) fn capacity(&self) -> usize {
        self.n_blocks.saturating_mul(self.block_size.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SequenceId = SequenceId(1);
    const B: SequenceId = SequenceId(2);

    /// What is done, and the tables of A and B after it.
    enum Call {
        Reserve(SequenceId, usize),
        Full { sequence: SequenceId, n_tokens: usize, needed: usize },
        Release(SequenceId, usize),
    }

    fn check(n_blocks: u32, calls: &[(Call, &[u32], &[u32])]) {
        let mut blocks = BlockAllocator::new(n_blocks, NonZeroUsize::new(4).unwrap());
        for (index, (call, a, b)) in calls.iter().enumerate() {
            match *call {
                Call::Reserve(sequence, n_tokens) => assert_eq!(blocks.reserve(sequence, n_tokens), Ok(())),
                Call::Full { sequence, n_tokens, needed } => {
                    let free = blocks.n_free();
                    assert_eq!(blocks.reserve(sequence, n_tokens), Err(Error::CacheFull { needed, free }));
                }
                Call::Release(sequence, n_blocks) => assert_eq!(blocks.release(sequence), n_blocks),
            }
            assert_eq!((blocks.table(A), blocks.table(B)), (*a, *b), "after call {index}");
            assert_eq!(blocks.n_free() + a.len() + b.len(), n_blocks as usize, "after call {index}");
        }
    }

    #[test]
    fn gives_and_takes_blocks() {
        use Call::*;
        check(
            4,
            &[
                (Reserve(A, 0), &[], &[]),
                (Reserve(A, 1), &[0], &[]),
                (Reserve(A, 4), &[0], &[]),
                (Reserve(B, 5), &[0], &[1, 2]),
                (Reserve(A, 8), &[0, 3], &[1, 2]),
                (Reserve(A, 3), &[0, 3], &[1, 2]),
                (Full { sequence: A, n_tokens: 9, needed: 1 }, &[0, 3], &[1, 2]),
                (
                    Full { sequence: B, n_tokens: usize::MAX, needed: usize::MAX.div_ceil(4) - 2 },
                    &[0, 3],
                    &[1, 2],
                ),
                (Release(B, 2), &[0, 3], &[]),
                (Release(B, 0), &[0, 3], &[]),
                (Reserve(B, 8), &[0, 3], &[1, 2]),
                (Release(A, 2), &[], &[1, 2]),
                (Reserve(B, 16), &[], &[1, 2, 0, 3]),
                (Release(B, 4), &[], &[]),
                (Full { sequence: A, n_tokens: 17, needed: 5 }, &[], &[]),
            ],
        );
    }

    #[test]
    fn has_nothing_to_give_without_blocks() {
        check(
            0,
            &[
                (Call::Full { sequence: A, n_tokens: 1, needed: 1 }, &[], &[]),
                (Call::Reserve(A, 0), &[], &[]),
            ],
        );
        assert_eq!(BlockAllocator::new(3, NonZeroUsize::MAX).capacity(), usize::MAX);
    }

    #[test]
    fn never_gives_a_block_twice() {
        proptest::proptest!(|(calls in proptest::collection::vec((0..5u64, 0..40usize), 0..60))| {
            let mut blocks = BlockAllocator::new(16, NonZeroUsize::new(4).unwrap());
            for (sequence, n_tokens) in calls {
                // Zero tokens stand for a release.
                match n_tokens {
                    0 => drop(blocks.release(SequenceId(sequence))),
                    _ => drop(blocks.reserve(SequenceId(sequence), n_tokens)),
                }
                let mut all: Vec<u32> = (0..5).flat_map(|id| blocks.table(SequenceId(id)).to_vec()).collect();
                all.extend(&blocks.free);
                all.sort_unstable();
                assert_eq!(all, (0..16).collect::<Vec<u32>>());
            }
        });
    }
}
