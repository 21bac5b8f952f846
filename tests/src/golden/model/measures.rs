//! How far a model's numbers are from the golden ones, family by family.

use anyhow::{Context, ensure};

use super::{super::files::Tensors, Answer};
use crate::golden::{Gauge, Tolerance};

/// The families' names, in the order in which a prompt meets them.
pub const FAMILIES: [&str; 5] = [CONVERSATION, VISION, DECODER, LOGITS, GENERATED];
const CONVERSATION: &str = "ids and positions of conversations";
const VISION: &str = "vision blocks and embeddings";
const DECODER: &str = "decoder layers";
const LOGITS: &str = "logits over prefill and greedy steps";
const GENERATED: &str = "generated ids";

/// f32 against f64 differs by 2e-5 on logits of deviation 3, eager against fused attention by 1e-5; the smallest
/// mistake we know of, a tanh in place of the error function, moves them by 1e-3.
const LOGIT_TOLERANCE: f64 = 2e-4;
const VISION_TOLERANCE: f64 = 1e-4;

/// One gauge for each family.
pub struct Measures {
    /// Token ids, grids, positions and deltas.
    pub conversation: Gauge,
    /// The tower's activations and its result.
    pub vision: Gauge,
    /// The decoder's activations.
    pub decoder: Gauge,
    /// Logits of the last prompt token and of each step after it.
    pub logits: Gauge,
    /// The likeliest token after each prompt token and at each step.
    pub generated: Gauge,
}

impl Default for Measures {
    fn default() -> Self {
        Self {
            conversation: Gauge::new(CONVERSATION, Tolerance::Equal),
            vision: Gauge::new(VISION, Tolerance::Within(VISION_TOLERANCE)),
            decoder: Gauge::new(DECODER, Tolerance::Within(LOGIT_TOLERANCE)),
            logits: Gauge::new(LOGITS, Tolerance::Within(LOGIT_TOLERANCE)),
            generated: Gauge::new(GENERATED, Tolerance::Equal),
        }
    }
}

impl Measures {
    /// All gauges in the order of [`FAMILIES`].
    pub fn into_gauges(self) -> Vec<Gauge> {
        vec![self.conversation, self.vision, self.decoder, self.logits, self.generated]
    }

    /// Compares an answer; `name_of` gives the name of a conversation's tensor in `tensors`.
    ///
    /// # Errors
    /// When the golden tensors are not of the expected form.
    pub(super) fn compare(
        &mut self,
        at: &str,
        answer: &Answer,
        generated: &[u32],
        name_of: &dyn Fn(&str) -> String,
        tensors: &Tensors,
    ) -> anyhow::Result<()> {
        self.compare_activations(at, answer, name_of, tensors);
        let vocab = answer.logits.first().map_or(0, Vec::len);
        ensure!(vocab > 0, "the model gave no logits");
        self.compare_logits(at, answer, name_of, tensors)?;

        let ours: Vec<u32> = answer.logits.iter().map(|row| largest(row)).collect();
        self.generated.equal(format!("{at}, generated"), &ours.as_slice(), &generated);
        if let Some(golden) = tensors.integers(&name_of("prefill_argmax")) {
            let rows = answer.prefill_logits.chunks_exact(vocab);
            let rows_and_golden = rows.zip(golden).enumerate();
            ensure!(
                rows_and_golden.len() * vocab == answer.prefill_logits.len(),
                "prefill_argmax is too short"
            );
            for (token, (row, &golden)) in rows_and_golden {
                let ours = largest(row);
                // Two tokens as near as twice the tolerance are equally likely to both of us.
                let golden_logit = usize::try_from(golden).ok().and_then(|id| row.get(id)).copied();
                let near = golden_logit
                    .is_some_and(|logit| f64::from(row[ours as usize] - logit) < 2.0 * LOGIT_TOLERANCE);
                let ours = if near { golden } else { i64::from(ours) };
                self.generated.equal(format!("{at}, after prompt token {token}"), &ours, &golden);
            }
        }
        Ok(())
    }

    fn compare_activations(
        &mut self,
        at: &str,
        answer: &Answer,
        name_of: &dyn Fn(&str) -> String,
        tensors: &Tensors,
    ) {
        let prefix = name_of("");
        for (name, _) in tensors.under(&prefix) {
            let gauge = match name.split('.').next() {
                Some("vision") => &mut self.vision,
                Some("text") => &mut self.decoder,
                _ => continue,
            };
            let Some(golden) = tensors.f32(&name_of(name)) else { continue };
            match answer.seen.get(&observed_name(name)) {
                Some(ours) => gauge.close(format!("{at}, {name}"), ours, golden),
                None => gauge.refused(format!("{at}, {name}"), "our model has no such activation"),
            }
        }
    }

    /// Large vocabularies keep the largest logits and every k-th of all instead of each.
    fn compare_logits(
        &mut self,
        at: &str,
        answer: &Answer,
        name_of: &dyn Fn(&str) -> String,
        tensors: &Tensors,
    ) -> anyhow::Result<()> {
        let steps = answer.logits.len();
        if let Some(golden) = tensors.f32(&name_of("logits")) {
            self.logits.close(format!("{at}, logits"), &answer.logits.concat(), golden);
        }
        if let (Some(ids), Some(golden)) =
            (tensors.integers(&name_of("logits_top_ids")), tensors.f32(&name_of("logits_top")))
        {
            ensure!(
                ids.len() == golden.len() && ids.len().is_multiple_of(steps),
                "logits_top is not {steps} rows"
            );
            let row_of = |at: usize| &answer.logits[at / (ids.len() / steps)];
            let ours: Option<Vec<f32>> = ids
                .iter()
                .enumerate()
                .map(|(at, &id)| row_of(at).get(usize::try_from(id).ok()?).copied())
                .collect();
            let ours = ours.context("logits_top_ids has an id outside of the vocabulary")?;
            self.logits.close(format!("{at}, largest logits"), &ours, golden);
        }
        let every = name_of("logits_every_");
        for (stride, _) in tensors.under(&every) {
            let golden = tensors.f32(&format!("{every}{stride}")).context("logits that are no f32")?;
            let stride: usize = stride.parse().context("logits_every_ what")?;
            ensure!(stride > 0, "logits_every_0");
            let ours: Vec<f32> =
                answer.logits.iter().flat_map(|row| row.iter().copied().step_by(stride)).collect();
            self.logits.close(format!("{at}, every {stride}th logit"), &ours, golden);
        }
        Ok(())
    }
}

/// `vision.block_3_last` is our `vision.block_3`; all other names are the same.
fn observed_name(golden: &str) -> String {
    match golden.strip_prefix("vision.block_") {
        Some(rest) => format!("vision.block_{}", rest.split('_').next().unwrap_or_default()),
        None => golden.to_owned(),
    }
}

/// The index of the largest number, the first of equals.
fn largest(row: &[f32]) -> u32 {
    let mut best = 0;
    for (index, value) in row.iter().enumerate() {
        if value > &row[best] {
            best = index;
        }
    }
    best as u32
}
