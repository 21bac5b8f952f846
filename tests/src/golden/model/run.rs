//! A prompt run step by step with the activations in view. Tower and decoder are the product's; only the loop around
//! them is here.

use std::collections::BTreeMap;

use ocellus_decoder::{Batch, Sequence};
use ocellus_engine::{MediaKind, Model};
use ocellus_kernels::Tensor;
use ocellus_vision_encoder::patches::Patches;

use super::Inputs;

/// Tokens of one block of the cache. Any size gives the same numbers; a small one makes blocks end everywhere.
const BLOCK_TOKENS: usize = 16;

/// A picture or clip of a prompt.
#[derive(Clone, Debug)]
pub struct Media {
    /// Which it is.
    pub kind: MediaKind,
    /// The index of its first placeholder.
    pub start: usize,
    /// Its patches.
    pub patches: Patches,
}

/// What the model computed for a prompt.
pub struct Answer {
    /// Logits of the last prompt token and of each further step, `vocab_size` numbers each.
    pub logits: Vec<Vec<f32>>,
    /// Logits after each prompt token, row by row.
    pub prefill_logits: Vec<f32>,
    /// The activations of the prefill by name. Those of the tower are of the pictures, or of the clips when there are
    /// no pictures.
    pub seen: BTreeMap<String, Vec<f32>>,
}

/// Runs the prompt and then one step for each of `forced` but the last. The forced tokens are the golden ones:
/// as long as each is also our own choice this is greedy decoding, and after a wrong choice every further step
/// still tells something.
///
/// # Errors
/// When the model refuses the inputs.
pub fn answer(model: &Model, inputs: &Inputs, forced: &[u32]) -> anyhow::Result<Answer> {
    let mut seen = BTreeMap::new();
    let embeddings = embed(model, inputs, &mut seen)?;
    answer_embedded(model, inputs, embeddings, forced, seen)
}

/// The embeddings of the prompt with the rows of pictures and clips in place, `(ids, hidden_size)`.
///
/// # Errors
/// As [`answer`].
pub fn embed(
    model: &Model,
    inputs: &Inputs,
    seen: &mut BTreeMap<String, Vec<f32>>,
) -> anyhow::Result<Vec<f32>> {
    let mut rows = model.decoder.embed(&inputs.ids)?.to_f32_vec()?;
    for kind in [MediaKind::Image, MediaKind::Video] {
        let of_kind: Vec<&Media> = inputs.media.iter().filter(|media| media.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let patches: Vec<&Patches> = of_kind.iter().map(|media| &media.patches).collect();
        let mut failed = None;
        let first = seen.is_empty();
        let embeds = model.tower.forward_observed(&patches, &mut |name, tensor| {
            if first {
                keep(seen, &mut failed, name, tensor);
            }
        })?;
        failed.map_or(Ok(()), Err)?;
        splice(model, inputs, kind, &embeds.to_f32_vec()?, &mut rows);
    }
    Ok(rows)
}

/// Puts the tower's rows for all pictures, or all clips, in the places of their tokens.
pub fn splice(model: &Model, inputs: &Inputs, kind: MediaKind, embeds: &[f32], rows: &mut [f32]) {
    let width = model.decoder.config().hidden_size;
    let merge_size = model.tower.config().geometry.merge_size;
    let mut left = embeds;
    for media in inputs.media.iter().filter(|media| media.kind == kind) {
        let (own, rest) = left.split_at(media.patches.grid.tokens(merge_size) * width);
        rows[media.start * width..][..own.len()].copy_from_slice(own);
        left = rest;
    }
}

/// [`answer`] from embeddings on.
///
/// # Errors
/// As [`answer`].
pub fn answer_embedded(
    model: &Model,
    inputs: &Inputs,
    embeddings: Vec<f32>,
    forced: &[u32],
    mut seen: BTreeMap<String, Vec<f32>>,
) -> anyhow::Result<Answer> {
    let config = model.decoder.config();
    let prompt = inputs.ids.len();
    let n_blocks = (prompt + forced.len()).div_ceil(BLOCK_TOKENS);
    // Blocks in reverse, so that nothing can rely on their lying side by side.
    let blocks: Vec<u32> = (0..n_blocks as u32).rev().collect();
    let mut cache = model.decoder.new_cache(n_blocks, BLOCK_TOKENS)?;

    let all_rows: Vec<u32> = (0..prompt as u32).collect();
    let sequences = [Sequence { queries: prompt, keys: prompt, blocks: &blocks }];
    let batch = Batch {
        embeddings: Tensor::from_f32(embeddings, &[prompt, config.hidden_size], &model.device)?,
        positions: &inputs.positions.tokens,
        sequences: &sequences,
        logits_for: &all_rows,
    };
    let mut failed = None;
    let prefill = model.decoder.forward_observed(&batch, &mut cache, &mut |name, tensor| {
        keep(&mut seen, &mut failed, name, tensor)
    })?;
    failed.map_or(Ok(()), Err)?;
    let prefill_logits = prefill.to_f32_vec()?;
    let last = prefill_logits[(prompt - 1) * config.vocab_size..].to_vec();

    let mut logits = vec![last];
    let fed = forced.len().saturating_sub(1);
    for (position, (step, &id)) in (inputs.positions.next..).zip(forced.iter().enumerate().take(fed)) {
        let sequences = [Sequence { queries: 1, keys: prompt + step + 1, blocks: &blocks }];
        let batch = Batch {
            embeddings: model.decoder.embed(&[id])?,
            positions: &[[position; 3]],
            sequences: &sequences,
            logits_for: &[0],
        };
        logits.push(model.decoder.forward(&batch, &mut cache)?.to_f32_vec()?);
    }
    Ok(Answer { logits, prefill_logits, seen })
}

/// Copies an activation out of the model; an observer can't fail, so a failure waits in `failed`.
fn keep(
    seen: &mut BTreeMap<String, Vec<f32>>,
    failed: &mut Option<ocellus_kernels::Error>,
    name: &str,
    tensor: &Tensor,
) {
    match tensor.to_f32_vec() {
        Ok(values) => {
            seen.insert(name.to_owned(), values);
        }
        Err(error) => *failed = Some(error),
    }
}
