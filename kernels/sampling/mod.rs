//! The choice of each sequence's next token from its logits, where the logits lie: a step gives one integer for each
//! sequence.
//!
//! In this order, as in Hugging Face Transformers (`generation/logits_process.py`) and vLLM:
//! 1. biases are added; what the sequence has already is made less likely: a positive logit of a token in prompt or
//!    answer is divided by the repetition penalty, another one multiplied; of a token in the answer, the presence penalty
//!    and as often as it is there the frequency penalty are taken; what is not allowed becomes impossible;
//! 2. at a temperature of (almost) 0 the likeliest token is taken, among equals the first;
//! 3. otherwise tokens weigh `e^((logit - max) / temperature)`. Top-k keeps so many of the likeliest, top-p the fewest of
//!    the likeliest of these that weigh at least that part of them, min-p what weighs at least so much of the likeliest;
//! 4. a random number between 0 and 1 falls on one of the rest, which lie side by side in the order of their ids.
//!
//! **Weights are integers**: multiples of 2⁻⁴⁰ of the likeliest token's, rounded to nearest. Their sums are exact and do
//! not depend on an order, so that the reference and every device choose the same token from the same logits, bit for
//! bit. A choice that computes in floating point, such as a sampler on the host, differs from this one only where the
//! random number, or top-p's or min-p's bound, lies within the rounding of a sum: 2⁻⁴¹ for each token in it, at most
//! 7e-8 of all for a vocabulary of 151,936. A token less likely than the likeliest by a factor of e^28.4 is never drawn.

mod cuda;
mod reference;
mod request;

use crate::{
    DType, Device, Error, Result, Tensor,
    error::argument,
    top_k::{self, Entry},
};
use cuda::CudaSampler;
use request::{BIASED, PENALIZED, RESTRICTED, Request};

const OP: &str = "sampling";

/// The weight of the likeliest token.
const ONE: u64 = 1 << 40;
/// A token of the prompt.
const IN_PROMPT: u16 = 1 << 15;
/// How often a token is in the answer, at most.
const SEEN_TIMES: u16 = IN_PROMPT - 1;

/// How a sequence's tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// 0 chooses the likeliest token; larger is more random.
    pub temperature: f32,
    /// Only the likeliest tokens that together reach this probability; 1 switches it off.
    pub top_p: f32,
    /// Only this many of the likeliest tokens; 0 switches it off.
    pub top_k: usize,
    /// Only tokens at least this likely relative to the likeliest; 0 switches it off.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt and answer; 1 switches it off.
    pub repetition_penalty: f32,
    /// Taken from the logit of each token already in the answer; 0 switches it off.
    pub presence_penalty: f32,
    /// Taken from the logit once for each time a token is already in the answer, up to 32,767 times; 0 switches it off.
    pub frequency_penalty: f32,
}

impl Default for Settings {
    /// The likeliest token, without penalties.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
        }
    }
}

/// What is known of a sequence when it takes its place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequence<'a> {
    /// How its tokens are chosen.
    pub settings: Settings,
    /// Added to the logits of these tokens before anything else; an id comes once at most.
    pub biases: &'a [(u32, f32)],
    /// The tokens of the prompt, which the repetition penalty counts.
    pub prompt: &'a [u32],
    /// The tokens of the answer so far, which all penalties count.
    pub answer: &'a [u32],
}

/// One row of a step.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The place of its sequence.
    pub slot: usize,
    /// Random bits, of which the lower 53 count, divided by 2⁵³ the number that decides. Not looked at for the likeliest
    /// token.
    pub number: u64,
    /// A bit for each token that may come, the lowest bits first; `None`: all.
    pub allowed: Option<&'a [u32]>,
}

/// A chosen token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The token. When nothing is possible, the first one that is allowed, or 0.
    pub id: u32,
    /// Whether the random number decided: not for the likeliest token, nor for one whose logit is infinite.
    pub drawn: bool,
}

/// Logarithms of the probabilities that a row of logits stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct LogProbabilities {
    /// Of the chosen token.
    pub chosen: f32,
    /// The likeliest tokens with theirs, largest first; among equals the lower id first.
    pub top: Vec<(u32, f32)>,
}

/// The places of the sequences that run, with what choosing their tokens needs: settings, biases, and how often which
/// token came. The counts are kept where the tokens are chosen, so that nothing of them travels between steps.
#[derive(Debug)]
pub struct Sampler {
    vocabulary: usize,
    slots: Vec<Slot>,
    /// The rows of the step that is uploaded.
    requests: Vec<Request>,
    place: Place,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    settings: Settings,
    biases: Vec<(u32, f32)>,
    /// `(vocabulary)` where the sequence has penalties and the host chooses, else empty.
    seen: Vec<u16>,
}

#[derive(Debug)]
enum Place {
    /// The reference, with the masks of the rows and what it chose.
    Host {
        allowed: Vec<Option<Vec<u32>>>,
        chosen: Vec<Choice>,
    },
    Cuda(Box<CudaSampler>),
}

impl Sampler {
    /// Places for `slots` sequences, and for as many rows in a step, over a vocabulary of so many tokens.
    ///
    /// # Errors
    /// When there is none of either, or the device has no room.
    pub fn new(slots: usize, vocabulary: usize, device: &Device) -> Result<Self> {
        if slots == 0 || slots > u16::MAX as usize {
            return Err(argument(OP, "slots", slots, "1 to 65535"));
        }
        if vocabulary == 0 || vocabulary > 1 << 24 {
            return Err(argument(OP, "vocabulary", vocabulary, "1 to 16777216"));
        }
        let place = match device.gpu() {
            Some(gpu) => Place::Cuda(Box::new(CudaSampler::new(gpu, slots, vocabulary)?)),
            None => Place::Host { allowed: Vec::new(), chosen: Vec::new() },
        };
        Ok(Self { vocabulary, slots: vec![Slot::default(); slots], requests: Vec::new(), place })
    }

    /// Bytes that such a sampler takes in a CUDA device's memory.
    pub fn device_bytes(slots: usize, vocabulary: usize) -> usize {
        cuda::bytes(slots, vocabulary)
    }

    /// Gives a place to a sequence; whoever had it is forgotten.
    ///
    /// # Errors
    /// [`Error::Index`] when there is no such place; otherwise when the device fails.
    pub fn assign(&mut self, slot: usize, sequence: &Sequence<'_>) -> Result<()> {
        let len = self.slots.len();
        let Some(own) = self.slots.get_mut(slot) else {
            return Err(Error::Index { op: OP, index: slot, len });
        };
        *own = Slot { settings: sequence.settings, biases: sequence.biases.to_vec(), seen: Vec::new() };
        let penalized = Request::new(&sequence.settings, 0).has(PENALIZED);
        let seen = if penalized { seen(sequence, self.vocabulary) } else { Vec::new() };
        match &mut self.place {
            Place::Host { .. } => own.seen = seen,
            Place::Cuda(cuda) => cuda.assign(slot, &seen, sequence.biases)?,
        }
        Ok(())
    }

    /// Prepares a step of these rows, whose places differ from each other. What is launched before still sees the rows
    /// that were there then.
    ///
    /// # Errors
    /// [`Error::Index`] when there is no such place, [`Error::Argument`] when there are more rows than places or a mask
    /// does not have a bit for each token; otherwise when the device fails.
    pub fn upload(&mut self, rows: &[Row<'_>]) -> Result<()> {
        if rows.len() > self.slots.len() {
            return Err(argument(OP, "rows", rows.len(), format!("at most {}", self.slots.len())));
        }
        let words = self.vocabulary.div_ceil(32);
        self.requests.clear();
        for row in rows {
            let Some(slot) = self.slots.get(row.slot) else {
                return Err(Error::Index { op: OP, index: row.slot, len: self.slots.len() });
            };
            if let Some(allowed) = row.allowed.filter(|allowed| allowed.len() != words) {
                return Err(argument(OP, "allowed", allowed.len(), format!("{words} words")));
            }
            let mut request = Request::new(&slot.settings, row.number);
            request.slot = row.slot as u32;
            request.flags |= if slot.biases.is_empty() { 0 } else { BIASED };
            request.flags |= if row.allowed.is_some() { RESTRICTED } else { 0 };
            self.requests.push(request);
        }
        match &mut self.place {
            Place::Host { allowed, .. } => {
                *allowed = rows.iter().map(|row| row.allowed.map(<[u32]>::to_vec)).collect();
                Ok(())
            }
            Place::Cuda(cuda) => cuda.upload(&self.requests, rows),
        }
    }

    /// How many kernels the uploaded rows need: a recorded step can be replayed while this stays the same.
    pub fn launches(&self) -> usize {
        cuda::launches(&self.requests)
    }

    /// Chooses the tokens of the uploaded rows. `logits: (rows, vocabulary)` f32; rows beyond those that are uploaded are
    /// ignored. Waits for nothing.
    ///
    /// # Errors
    /// [`Error::Argument`] when the shape is another; otherwise when the device fails.
    pub fn launch(&mut self, logits: &Tensor) -> Result<()> {
        let [rows, columns] = logits.dims(OP, "logits")?;
        if columns != self.vocabulary || rows < self.requests.len() || rows > self.slots.len() {
            let expected = format!("({} to {}, {})", self.requests.len(), self.slots.len(), self.vocabulary);
            return Err(argument(OP, "logits", logits.shape(), expected));
        }
        match &mut self.place {
            Place::Cuda(cuda) => match logits.as_cuda() {
                Some(logits) => cuda.launch(logits, cuda::launches(&self.requests)),
                None => Err(argument(OP, "logits", "on the host", "on the sampler's device")),
            },
            Place::Host { allowed, chosen } => {
                chosen.clear();
                let logits = logits.to_f32_vec()?;
                let rows = self.requests.iter().zip(allowed).zip(logits.chunks_exact(columns));
                for ((request, allowed), logits) in rows {
                    let slot = &mut self.slots[request.slot as usize];
                    let choice = reference::choose(&reference::Row {
                        request: *request,
                        logits,
                        biases: &slot.biases,
                        seen: &slot.seen,
                        allowed: allowed.as_deref(),
                    });
                    if let Some(seen) = slot.seen.get_mut(choice.id as usize)
                        && *seen & SEEN_TIMES < SEEN_TIMES
                    {
                        *seen += 1;
                    }
                    chosen.push(choice);
                }
                Ok(())
            }
        }
    }

    /// What the last launch chose, row by row, when it is done.
    ///
    /// # Errors
    /// When the device fails.
    pub fn read(&self) -> Result<Vec<Choice>> {
        match &self.place {
            Place::Host { chosen, .. } => Ok(chosen.clone()),
            Place::Cuda(cuda) => cuda.read(self.requests.len()),
        }
    }

    /// [`Sampler::upload`], [`Sampler::launch`] and [`Sampler::read`].
    ///
    /// # Errors
    /// As those.
    pub fn choose(&mut self, logits: &Tensor, rows: &[Row<'_>]) -> Result<Vec<Choice>> {
        self.upload(rows)?;
        self.launch(logits)?;
        self.read()
    }

    /// The tokens that were chosen last, `(slots)` u32 in the device's memory, for [`crate::embedding::forward_ids`];
    /// `None` where the host chooses.
    pub fn chosen(&self) -> Option<Tensor> {
        match &self.place {
            Place::Host { .. } => None,
            Place::Cuda(cuda) => cuda.chosen().ok().map(Tensor::from),
        }
    }
}

/// How often each token is in the answer, and which are in the prompt. Ids outside of the vocabulary are nothing.
fn seen(sequence: &Sequence<'_>, vocabulary: usize) -> Vec<u16> {
    let mut seen = vec![0; vocabulary];
    for id in sequence.prompt {
        if let Some(seen) = seen.get_mut(*id as usize) {
            *seen |= IN_PROMPT;
        }
    }
    for id in sequence.answer {
        if let Some(seen) = seen.get_mut(*id as usize)
            && *seen & SEEN_TIMES < SEEN_TIMES
        {
            *seen += 1;
        }
    }
    seen
}

/// How likely the chosen token and the `n_top` likeliest of row `row` are, as the model gave them: before penalties,
/// temperature and cuts. `logits: (rows, vocabulary)` f32.
///
/// # Errors
/// [`Error::Index`] when there is no such row or token; otherwise when the device fails.
pub fn log_probabilities(logits: &Tensor, row: usize, chosen: u32, n_top: usize) -> Result<LogProbabilities> {
    let [rows, vocabulary] = logits.dims(OP, "logits")?;
    for (index, len) in [(row, rows), (chosen as usize, vocabulary)] {
        if index >= len {
            return Err(Error::Index { op: OP, index, len });
        }
    }
    let logits = logits.narrow(0, row, 1)?;
    // The likeliest one is needed for the others' sum.
    let top = top_k::forward(&logits, n_top.max(1))?.pop().unwrap_or_default();
    let max = top.first().map_or(f32::NEG_INFINITY, |entry| entry.value);
    let total = match logits.as_cuda() {
        Some(t) if t.dtype() == DType::F32 => cuda::total(t, max)?,
        _ => logits.to_f32_vec()?.iter().map(|logit| reference::weight(*logit, max, 1.0)).sum(),
    };
    let log_total = (total as f64 / ONE as f64).ln();
    let log_probability = |logit: f32| {
        let log = if logit == max { 0.0 } else { f64::from(logit) - f64::from(max) };
        // When nothing is possible the total is nothing, and NaN is what is impossible.
        let possible = total > 0 && logit > f32::NEG_INFINITY;
        if possible { (log - log_total) as f32 } else { f32::NEG_INFINITY }
    };
    let of_chosen = logits.narrow(1, chosen as usize, 1)?.to_f32_vec()?;
    let entry = |entry: &Entry| (entry.index, log_probability(entry.value));
    Ok(LogProbabilities {
        chosen: of_chosen.first().map_or(f32::NEG_INFINITY, |logit| log_probability(*logit)),
        top: top.iter().take(n_top).map(entry).collect(),
    })
}

#[cfg(test)]
mod tests;
