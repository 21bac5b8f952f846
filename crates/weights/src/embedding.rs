//! A table of embeddings, one row per token id.

use ocellus_kernels::{Tensor, embedding, linear::Weight};

use crate::Linear;

/// Turns token ids into rows. Clones share the table.
#[derive(Clone, Debug)]
pub struct Embedding {
    table: Weight,
}

impl Embedding {
    pub(crate) fn new(table: Weight) -> Self {
        Self { table }
    }

    /// Row `ids[i]` of the table as row `i` of the result: `(ids.len(), dim)` f32.
    ///
    /// # Errors
    /// [`ocellus_kernels::Error::Index`] when an id has no row; otherwise when the device fails.
    pub fn forward(&self, ids: &[u32]) -> ocellus_kernels::Result<Tensor> {
        embedding::forward(&self.table, ids)
    }

    /// The same table as the output layer of a model with tied embeddings: `(rows)` logits from `(dim)`.
    /// It shares the bytes.
    pub fn as_linear(&self) -> Linear {
        Linear::new(self.table.clone(), None)
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.table.rows()
    }

    /// The length of a row.
    pub fn dim(&self) -> usize {
        self.table.cols()
    }
}
