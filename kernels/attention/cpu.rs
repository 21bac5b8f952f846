//! Attention on the processor, in bf16 with sums in f32: slices in, slices out.
//!
//! Queries, keys, values and the softmax's weights are narrowed to bf16; scores, their exponentials, the weights'
//! sum and the output are f32. Scores are never written to memory beyond a tile of twelve rows by [`BLOCK`] keys;
//! the softmax goes along with a running maximum
//! (Dao et al., <https://arxiv.org/abs/2205.14135>; Milakov and Gimelshein, <https://arxiv.org/abs/1805.02867>).
//!
//! **Company.** What is done to a row depends on its own query and its own keys alone. Keys come in blocks that
//! are aligned to the sequence's beginning; a score is summed over pairs of features in order, an output over pairs
//! of keys in order, each in one accumulator; a key that a row must not see has the weight zero, exactly, and a
//! block of such keys changes nothing. In the decoder every [`causal::SPAN`] keys begin with a maximum and sums of
//! their own, and the spans are put together in order, whoever computed them. So a row has the same bits alone
//! and in any batch, prefilled or decoded, with any number of threads.

#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod causal;
mod plain;
mod rows;
mod scratch;
mod step;
pub(crate) mod varlen;

pub(crate) use step::MOST_HEAD_DIM;
