//! Chooses the next token from logits: biases, penalties, what a grammar allows, temperature, top-k, top-p, min-p,
//! then a draw from a seeded stream.

mod device;
mod largest;

use std::collections::HashMap;

use ocellus_kernels::sampling;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::Sampling;
pub(crate) use device::{DeviceSampler, Turn};
use largest::{Candidate, largest};

/// Chooses the tokens of one sequence and remembers them for the penalties.
///
/// The order is that of Hugging Face Transformers (`generation/logits_process.py`) and vLLM: biases, repetition
/// penalty, then frequency and presence penalty, temperature, top-k, top-p, min-p; what a grammar forbids is
/// impossible from the start. The same logits, settings
/// and seed give the same tokens on every machine: the stream is ChaCha8, one 64-bit number for each drawn
/// token and none for a greedy one.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    random: ChaCha8Rng,
    /// How often the answer has each token; 0 for tokens that only the prompt has.
    seen: HashMap<u32, u32>,
    /// Logits after biases, penalties and grammar; kept to save the allocation.
    adjusted: Vec<f32>,
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    /// The token.
    pub(crate) id: u32,
    /// How likely tokens were, when asked for.
    pub(crate) logprobs: Option<ChoiceLogprobs>,
}

/// Natural logarithms of probabilities as the model gave them: before penalties, temperature and cuts. The
/// logarithm of an impossible token is minus infinity.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChoiceLogprobs {
    /// Of the chosen token.
    pub(crate) chosen: f32,
    /// The likeliest tokens with theirs, largest first; among equals the lower id first.
    pub(crate) top: Vec<(u32, f32)>,
}

/// Below this temperature the likeliest token is taken: dividing by less would only round.
const GREEDY_BELOW: f32 = 1e-5;

/// Candidates that top-p looks at first. It takes more when these don't reach its probability.
const FIRST_CANDIDATES: usize = 128;

impl Sampler {
    /// A sampler for one sequence. `prompt` is what the repetition penalty counts beside the answer;
    /// `sampling.seed` is not read, because the caller has to choose one where it is missing.
    pub(crate) fn new(sampling: &Sampling, seed: u64, prompt: &[u32]) -> Self {
        Self {
            sampling: sampling.clone(),
            random: ChaCha8Rng::seed_from_u64(seed),
            seen: prompt.iter().map(|id| (*id, 0)).collect(),
            adjusted: Vec::new(),
        }
    }

    /// Chooses the next token. `logits: (vocabulary)`; NaN counts as minus infinity, plus infinity as
    /// certain, and when nothing is possible the choice is token 0. `n_top`: with log-probabilities of the
    /// chosen token and of this many of the likeliest.
    pub(crate) fn sample(&mut self, logits: &[f32], n_top: Option<usize>) -> Choice {
        let id = if self.adjusts() { self.adjusting(logits, |_| {}) } else { self.choose(logits) };
        self.chosen(id, logits, n_top)
    }

    /// Like [`Sampler::sample`], among allowed tokens only. When the model finds all of them impossible, the
    /// choice is the first one.
    pub(crate) fn sample_allowed(
        &mut self,
        logits: &[f32],
        n_top: Option<usize>,
        allowed: impl Fn(u32) -> bool,
    ) -> Choice {
        let id = self.adjusting(logits, |adjusted| {
            for (id, logit) in (0..).zip(adjusted) {
                if !allowed(id) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        });
        let id =
            if allowed(id) { id } else { (0..logits.len() as u32).find(|id| allowed(*id)).unwrap_or(id) };
        self.chosen(id, logits, n_top)
    }

    /// The random bits that the next drawn token takes, for a device that chooses it. Nothing is taken yet.
    pub(crate) fn next_number(&self) -> u64 {
        self.random.clone().next_u64() >> 11
    }

    /// Takes a token in that a device has chosen with [`Sampler::next_number`].
    pub(crate) fn settle(&mut self, choice: sampling::Choice) -> Choice {
        if choice.drawn {
            self.random.next_u64();
        }
        *self.seen.entry(choice.id).or_default() += 1;
        Choice { id: choice.id, logprobs: None }
    }

    /// What a device has to know of this sequence to choose its tokens.
    fn sequence<'a>(&'a self, prompt: &'a [u32], answer: &'a [u32]) -> sampling::Sequence<'a> {
        let Sampling {
            temperature,
            top_p,
            top_k,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            ref logit_bias,
            seed: _,
        } = self.sampling;
        let settings = sampling::Settings {
            temperature,
            top_p,
            top_k,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
        };
        sampling::Sequence { settings, biases: logit_bias, prompt, answer }
    }

    /// Chooses after biases, penalties and `further` changes.
    fn adjusting(&mut self, logits: &[f32], further: impl Fn(&mut [f32])) -> u32 {
        let mut adjusted = std::mem::take(&mut self.adjusted);
        adjusted.clear();
        adjusted.extend_from_slice(logits);
        self.bias(&mut adjusted);
        if self.has_penalties() {
            self.penalize(&mut adjusted);
        }
        further(&mut adjusted);
        let id = self.choose(&adjusted);
        self.adjusted = adjusted;
        id
    }

    fn chosen(&mut self, id: u32, logits: &[f32], n_top: Option<usize>) -> Choice {
        *self.seen.entry(id).or_default() += 1;
        Choice { id, logprobs: n_top.map(|n_top| ChoiceLogprobs::new(logits, id, n_top)) }
    }

    fn adjusts(&self) -> bool {
        !self.sampling.logit_bias.is_empty() || self.has_penalties()
    }

    fn bias(&self, logits: &mut [f32]) {
        for (id, bias) in &self.sampling.logit_bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
    }

    fn has_penalties(&self) -> bool {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        repetition_penalty != 1.0 || presence_penalty != 0.0 || frequency_penalty != 0.0
    }

    fn penalize(&self, logits: &mut [f32]) {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        for (id, count) in &self.seen {
            let Some(logit) = logits.get_mut(*id as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
            if *count > 0 {
                *logit -= frequency_penalty * *count as f32 + presence_penalty;
            }
        }
    }

    fn choose(&mut self, logits: &[f32]) -> u32 {
        // Written so that a NaN is greedy.
        let is_random = self.sampling.temperature >= GREEDY_BELOW;
        let most_likely = argmax(logits);
        let Some(best) = most_likely.filter(|best| is_random && best.logit < f32::INFINITY) else {
            return most_likely.map_or(0, |best| best.id);
        };
        let weights = Weights { max: best.logit, temperature: self.sampling.temperature };
        let number = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        match self.candidates(logits, weights) {
            Some(mut candidates) => {
                // In the order of ids, as the whole vocabulary below: a cut that takes nothing away changes
                // nothing.
                candidates.sort_unstable_by_key(|candidate| candidate.id);
                draw(candidates.iter().copied(), weights, number)
            }
            None => draw(all(logits), weights, number),
        }
        .unwrap_or(best.id)
    }

    /// The tokens that top-k, top-p and min-p leave, or `None` when all three are off.
    fn candidates(&self, logits: &[f32], weights: Weights) -> Option<Vec<Candidate>> {
        let Sampling { top_p, top_k, min_p, .. } = self.sampling;
        let cuts_p = top_p < 1.0;
        let mut candidates = if (1..logits.len()).contains(&top_k) {
            let mut candidates = largest(logits, top_k);
            if cuts_p {
                let total: f64 = candidates.iter().map(|candidate| weights.of(candidate.logit)).sum();
                let reached = reach(&candidates, weights, f64::from(top_p) * total);
                candidates.truncate(reached.unwrap_or(candidates.len()));
            }
            candidates
        } else if cuts_p {
            let total: f64 = logits.iter().map(|logit| weights.of(*logit)).sum();
            most_of(logits, weights, f64::from(top_p) * total)
        } else if min_p > 0.0 {
            all(logits).collect()
        } else {
            return None;
        };
        if min_p > 0.0 {
            // The likeliest token weighs 1, and stays even for a min-p above 1.
            candidates.retain(|candidate| {
                candidate.logit == weights.max || weights.of(candidate.logit) >= f64::from(min_p)
            });
        }
        Some(candidates)
    }
}

impl ChoiceLogprobs {
    fn new(logits: &[f32], id: u32, n_top: usize) -> Self {
        let max = argmax(logits).map_or(f32::NEG_INFINITY, |best| best.logit);
        let weights = Weights { max, temperature: 1.0 };
        let log_total = logits.iter().map(|logit| weights.of(*logit)).sum::<f64>().ln();
        let logprob = |logit: f32| {
            // When nothing is possible, the total is nothing too.
            if log_total.is_finite() { weights.log_of(logit) - log_total } else { f64::NEG_INFINITY }
        };
        let chosen = logits.get(id as usize).map_or(f64::NEG_INFINITY, |logit| logprob(*logit));
        let top = largest(logits, n_top)
            .into_iter()
            .map(|candidate| (candidate.id, logprob(candidate.logit) as f32))
            .collect();
        Self { chosen: chosen as f32, top }
    }
}

/// Unnormalized probabilities: the likeliest token weighs 1.
#[derive(Clone, Copy)]
struct Weights {
    /// The largest logit.
    max: f32,
    temperature: f32,
}

impl Weights {
    fn of(self, logit: f32) -> f64 {
        self.log_of(logit).exp()
    }

    /// Never NaN: an impossible token has minus infinity, a certain one 0.
    fn log_of(self, logit: f32) -> f64 {
        if logit == self.max && logit > f32::NEG_INFINITY {
            return 0.0;
        }
        let log = (f64::from(logit) - f64::from(self.max)) / f64::from(self.temperature);
        if log.is_nan() { f64::NEG_INFINITY } else { log }
    }
}

/// The most likely possible token; among equals the lowest id.
fn argmax(logits: &[f32]) -> Option<Candidate> {
    let mut best: Option<Candidate> = None;
    let mut max = f32::NEG_INFINITY;
    for candidate in all(logits) {
        if candidate.logit > max {
            max = candidate.logit;
            best = Some(candidate);
        }
    }
    best
}

/// Every token with its logit, in the order of ids.
fn all(logits: &[f32]) -> impl Iterator<Item = Candidate> + Clone {
    (0..).zip(logits).map(|(id, logit)| Candidate { id, logit: *logit })
}

/// The fewest of the likeliest tokens that together weigh at least `wanted`, at least one.
fn most_of(logits: &[f32], weights: Weights, wanted: f64) -> Vec<Candidate> {
    let mut n_candidates = FIRST_CANDIDATES;
    loop {
        let mut candidates = largest(logits, n_candidates);
        match reach(&candidates, weights, wanted) {
            Some(reached) => candidates.truncate(reached),
            None if n_candidates < logits.len() => {
                n_candidates = n_candidates.saturating_mul(8);
                continue;
            }
            // Rounding may leave the sum of all below what is wanted.
            None => {}
        }
        return candidates;
    }
}

/// How many of the candidates, likeliest first, weigh at least `wanted` together. `None` when all don't.
fn reach(candidates: &[Candidate], weights: Weights, wanted: f64) -> Option<usize> {
    let mut sum = 0.0;
    let index = candidates.iter().position(|candidate| {
        sum += weights.of(candidate.logit);
        sum >= wanted
    });
    index.map(|index| index + 1)
}

/// The token at `number` (0 to 1) of the way through all weights. `None` when nothing weighs anything.
fn draw(candidates: impl Iterator<Item = Candidate> + Clone, weights: Weights, number: f64) -> Option<u32> {
    let total: f64 = candidates.clone().map(|candidate| weights.of(candidate.logit)).sum();
    let target = number * total;
    let mut sum = 0.0;
    let mut last = None;
    for candidate in candidates {
        let weight = weights.of(candidate.logit);
        if weight > 0.0 {
            sum += weight;
            last = Some(candidate.id);
            if sum > target {
                break;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests;
