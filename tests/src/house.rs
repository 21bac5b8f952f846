//! A loaded nano model, the prompt of a test, and one way to compute with them.

use std::path::{Path, PathBuf};

use ocellus_decoder::{Batch, Decoder, KvCache, Sequence};
use ocellus_engine::{Formats, Model, Source};
use ocellus_kernels::{Device, Tensor};

/// Tokens of a block in the caches of tests: small, so that prompts cross many borders.
pub const BLOCK_SIZE: usize = 4;

/// The folder of this workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The nano checkpoint that is part of the repository.
///
/// # Errors
/// When it can't be loaded.
pub fn nano() -> anyhow::Result<Model> {
    nano_as(Formats::default())
}

/// The same with its weights held as `formats` say.
///
/// # Errors
/// When it can't be loaded.
pub fn nano_as(formats: Formats) -> anyhow::Result<Model> {
    let source = Source::folder(workspace().join("models/nano"));
    Ok(Model::load_as(&source, formats, &Device::cpu(), &|_| {})?)
}

/// One sequence with a cache of its own.
pub struct Run<'m> {
    decoder: &'m Decoder,
    cache: KvCache,
    blocks: Vec<u32>,
    tokens: usize,
}

impl<'m> Run<'m> {
    /// An empty sequence that may become `most` tokens long. Its blocks are in disorder on purpose.
    ///
    /// # Errors
    /// When the cache can't be made.
    pub fn new(decoder: &'m Decoder, most: usize) -> anyhow::Result<Self> {
        let n_blocks = most.div_ceil(BLOCK_SIZE);
        let cache = decoder.new_cache(n_blocks, BLOCK_SIZE)?;
        let blocks = (0..n_blocks as u32).rev().collect();
        Ok(Self { decoder, cache, blocks, tokens: 0 })
    }

    /// Appends embedded tokens and gives the logits of each: `(tokens, vocab_size)`.
    ///
    /// # Errors
    /// When the decoder refuses.
    pub fn append(&mut self, embeddings: Tensor, positions: &[[u32; 3]]) -> anyhow::Result<Vec<f32>> {
        let queries = positions.len();
        self.tokens += queries;
        let rows: Vec<u32> = (0..queries as u32).collect();
        let batch = Batch {
            embeddings,
            positions,
            sequences: &[Sequence { queries, keys: self.tokens, blocks: &self.blocks }],
            logits_for: &rows,
        };
        Ok(self.decoder.forward(&batch, &mut self.cache)?.to_f32_vec()?)
    }

    /// Appends text, which has the same position on all axes.
    ///
    /// # Errors
    /// When the decoder refuses.
    pub fn append_text(&mut self, ids: &[u32]) -> anyhow::Result<Vec<f32>> {
        let first = self.tokens as u32;
        let positions: Vec<[u32; 3]> = (0..ids.len() as u32).map(|i| [first + i; 3]).collect();
        self.append(self.decoder.embed(ids)?, &positions)
    }
}
