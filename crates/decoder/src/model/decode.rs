//! Decode steps, in which every sequence has one new token: the same operations step after step. Where the device gains by
//! that, they are recorded for each bucket of sizes and replayed with new integers and embeddings.

use std::{collections::BTreeMap, sync::Arc};

use ocellus_kernels::{
    Device, Tensor,
    graph::{self, Graph, Input},
    rms_norm,
    step::{Bucket, Limits},
};

use super::{Batch, Decoder, KvCache};
use crate::Error;

/// The most sequences of a recorded step: with more, what the host does is a small part.
const MOST_SEQUENCES: usize = 16;
/// The keys of the smallest bucket.
const FEWEST_KEYS: usize = 256;

/// The bucket of a batch: `None` when it is no decode step, or too large for one.
pub(super) fn limits(batch: &Batch<'_>) -> Option<Limits> {
    let n = batch.sequences.len();
    let decodes = batch.sequences.iter().all(|s| s.queries == 1);
    let all_rows = batch.logits_for.iter().copied().eq(0..n as u32);
    if n == 0 || n > MOST_SEQUENCES || !decodes || !all_rows {
        return None;
    }
    let keys = batch.sequences.iter().map(|s| s.keys).max()?;
    Some(Limits {
        sequences: n.next_power_of_two(),
        keys: keys.max(FEWEST_KEYS).checked_next_power_of_two()?,
    })
}

/// The steps of a cache by their buckets.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    steps: BTreeMap<(usize, usize), RecordedStep>,
}

#[derive(Debug)]
struct RecordedStep {
    bucket: Bucket,
    embeddings: Input,
    graph: Graph<Tensor>,
    /// Whose weights it computes with.
    owner: Arc<()>,
}

impl RecordedStep {
    fn new(decoder: &Decoder, limits: Limits, cache: &super::kv_cache::Layer) -> Result<Self, Error> {
        let heads = decoder.config.num_attention_heads;
        let shape = [limits.sequences, decoder.config.hidden_size];
        Ok(Self {
            bucket: Bucket::new(limits, decoder.rope(), heads, cache)?,
            embeddings: Input::zeros(&shape, &decoder.device)?,
            graph: Graph::new(&decoder.device),
            owner: decoder.identity.clone(),
        })
    }
}

impl Decoder {
    /// As [`Decoder::forward`], for a batch that `limits` holds and whose slots are found.
    pub(super) fn decode(
        &self,
        batch: &Batch<'_>,
        limits: Limits,
        cache: &mut KvCache,
    ) -> Result<Tensor, Error> {
        let KvCache { layers, slots, recorded } = cache;
        let Some(first) = layers.first() else {
            return Err(Error::Batch { what: "layers of the cache", found: 0, expected: 1 });
        };
        let key = (limits.sequences, limits.keys);
        // A recording of another model is of no use.
        recorded.steps.retain(|_, step| Arc::ptr_eq(&step.owner, &self.identity));
        let recorded = match recorded.steps.entry(key) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(RecordedStep::new(self, limits, first)?)
            }
        };
        let RecordedStep { bucket, embeddings, graph, .. } = recorded;
        let step = bucket.fill(self.parts(batch, slots), first)?;
        embeddings.set(&batch.embeddings)?;
        let device: &Device = &self.device;
        let logits = graph.run(device, || -> Result<Tensor, Error> {
            let Some(first) = layers.first() else {
                return Err(Error::Batch { what: "layers of the cache", found: 0, expected: 1 });
            };
            let tables = step.tables(first)?;
            let mut hidden = embeddings.tensor().clone();
            for (layer, cache) in self.layers.iter().zip(&mut *layers) {
                hidden = layer.forward(hidden, (&step, &tables), cache, None)?;
            }
            let normed = rms_norm::forward(&hidden, &self.norm, self.config.rms_norm_eps)?;
            Ok(self.lm_head.forward_f32(&normed)?)
        })?;
        // The next step writes over them.
        Ok(graph::copied(&logits.narrow(0, 0, batch.sequences.len())?)?)
    }
}

#[cfg(test)]
mod tests {
    use ocellus_kernels::attention::Sequence;

    use super::*;

    #[test]
    fn buckets_are_few() {
        let check = |keys: &[usize], queries: usize, logits_for: &[u32], expected: Option<(usize, usize)>| {
            let sequences: Vec<_> =
                keys.iter().map(|&keys| Sequence { queries, keys, blocks: &[] }).collect();
            let embeddings = Tensor::zeros(&[keys.len() * queries, 2], &Device::host()).unwrap();
            let batch = Batch { embeddings, positions: &[], sequences: &sequences, logits_for };
            assert_eq!(limits(&batch).map(|limits| (limits.sequences, limits.keys)), expected, "{keys:?}");
        };
        check(&[1], 1, &[0], Some((1, 256)));
        check(&[256], 1, &[0], Some((1, 256)));
        check(&[257, 3], 1, &[0, 1], Some((2, 512)));
        check(&[5, 6, 7], 1, &[0, 1, 2], Some((4, 256)));
        check(&[9; 16], 1, &(0..16).collect::<Vec<_>>(), Some((16, 256)));
        check(&[9; 17], 1, &(0..17).collect::<Vec<_>>(), None);
        check(&[9], 2, &[1], None);
        check(&[9, 9], 1, &[1], None);
        check(&[usize::MAX], 1, &[0], None);
        check(&[], 1, &[], None);
    }
}
