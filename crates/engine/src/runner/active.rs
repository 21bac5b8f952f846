//! An answer from its request's submission to its end: what is known of it, its next token, and what its caller is told.

use std::{collections::VecDeque, time::Instant};

use ocellus_kernels::{Tensor, rows};
use tokio::sync::mpsc::UnboundedSender;

use super::{Job, internal};
use crate::{
    Error, Event, FinishReason, Finished, Logprob, Model, Request, Stop, TextDelta, Timings, TokenLogprob,
    detokenizer::Detokenizer,
    engine::Waiting,
    prepare::Prepared,
    sampler::{Choice, Sampler, Turn},
    scheduler::SequenceId,
    stop::StopMatcher,
    stop_ids::StopIds,
};

/// A sequence between its submission and its end.
pub(super) struct Active {
    request: Request,
    pub(super) prepared: Prepared,
    pub(super) events: UnboundedSender<Event>,
    pub(super) span: tracing::Span,
    /// Given back when the sequence runs for the first time.
    waiting: Option<Waiting>,
    /// Pictures and clips that are embedded already, in their order.
    embedded: Vec<Tensor>,
    /// How many of them are being embedded.
    pub(super) in_tower: usize,
    /// The embeddings of all pictures and clips; there from the last of them to the end of the prompt.
    media: Option<Tensor>,
    /// Prompt and answer.
    ids: Vec<u32>,
    max_new: usize,
    pub(super) sampler: Sampler,
    detokenizer: Detokenizer,
    stop_ids: StopIds<Held>,
    stop: StopMatcher,
    /// Log-probabilities of tokens of which no byte has been told yet.
    logprobs: VecDeque<TokenLogprob>,
    /// Bytes of the token whose log-probability was told last that are still held back.
    held_bytes: usize,
    pub(super) timings: Timings,
    ready: Instant,
    started: Option<Instant>,
    pub(super) first_token: Option<Instant>,
}

/// What a token adds to the answer, as long as it may still become part of a stop sequence.
struct Held {
    bytes: Vec<u8>,
    logprob: Option<TokenLogprob>,
}

impl Active {
    /// What a request begins with, of whose answer at most `max_new` tokens are wanted.
    pub(super) fn new(job: Job, max_new: usize) -> Self {
        let Job { request, prepared, events, waiting, ready, span } = job;
        let seed = request.sampling.seed.unwrap_or_else(random_seed);
        Self {
            sampler: Sampler::new(&request.sampling, seed, &prepared.prompt.ids),
            stop: StopMatcher::new(request.stop.iter().filter_map(|stop| match stop {
                Stop::Text(text) => Some(text.as_str()),
                Stop::Ids(_) => None,
            })),
            stop_ids: StopIds::new(request.stop.iter().filter_map(|stop| match stop {
                Stop::Ids(ids) => Some(ids.as_slice()),
                Stop::Text(_) => None,
            })),
            detokenizer: Detokenizer::default(),
            ids: prepared.prompt.ids.clone(),
            timings: Timings { decode_images: prepared.decode_images, ..Timings::default() },
            waiting: Some(waiting),
            embedded: Vec::new(),
            in_tower: 0,
            media: None,
            logprobs: VecDeque::new(),
            held_bytes: 0,
            started: None,
            first_token: None,
            request,
            prepared,
            events,
            span,
            max_new,
            ready,
        }
    }

    /// The wait is over: the device works on it.
    pub(super) fn begin(&mut self) {
        if self.started.is_none() {
            self.waiting = None;
            self.started = Some(Instant::now());
            self.timings.queue = self.ready.elapsed();
        }
    }

    /// Whether all pictures are embedded.
    pub(super) fn is_ready(&self) -> bool {
        self.prepared.patches.is_empty() && self.in_tower == 0
    }

    /// Takes the embeddings of the next picture in.
    pub(super) fn embedded(&mut self, embeddings: Tensor) -> Result<(), Error> {
        self.in_tower = self.in_tower.saturating_sub(1);
        self.embedded.push(embeddings);
        if self.is_ready() {
            self.media = Some(rows::concat(&self.embedded).map_err(internal)?);
            self.embedded.clear();
        }
        Ok(())
    }

    /// Embeds tokens `start..end`, pictures in their places: `(end - start, hidden_size)`.
    pub(super) fn embeddings(&self, model: &Model, start: usize, end: usize) -> Result<Tensor, Error> {
        let mut embeddings = model.decoder.embed(&self.ids[start..end]).map_err(internal)?;
        let Some(media) = &self.media else { return Ok(embeddings) };
        let mut first_row = 0;
        let (mut targets, mut sources) = (Vec::new(), Vec::new());
        for span in &self.prepared.prompt.media {
            let overlap = span.start.max(start)..(span.start + span.len).min(end);
            for index in overlap {
                targets.push((index - start) as u32);
                sources.push((first_row + index - span.start) as u32);
            }
            first_row += span.len;
        }
        if !targets.is_empty() {
            let values = rows::gather(media, &sources).map_err(internal)?;
            embeddings = rows::scatter(&embeddings, &targets, &values).map_err(internal)?;
        }
        Ok(embeddings)
    }

    /// All tokens before `end` are in the cache: after the prompt, nobody asks for pictures any more.
    pub(super) fn computed(&mut self, end: usize) {
        if end >= self.prepared.prompt.ids.len() {
            self.media = None;
        }
    }

    /// Time, height and width of token `index`.
    pub(super) fn position(&self, index: usize) -> [u32; 3] {
        let positions = &self.prepared.positions;
        positions.tokens.get(index).copied().unwrap_or_else(|| {
            let generated = (index - positions.tokens.len()) as u32;
            [positions.next.saturating_add(generated); 3]
        })
    }

    /// Whether the next token is all that is wanted of its logits.
    pub(super) fn needs_no_logits(&self) -> bool {
        self.request.logprobs.is_none() && self.prepared.grammar.is_none()
    }

    /// What a device needs to choose the next token.
    pub(super) fn turn(&self, id: SequenceId) -> Turn<'_> {
        let (prompt, answer) = self.ids.split_at(self.prepared.prompt.ids.len());
        Turn { id, sampler: &self.sampler, prompt, answer }
    }

    /// Chooses the next token: among those that the answer's grammar allows, where it has one.
    pub(super) fn choose(&mut self, logits: &[f32]) -> Result<Choice, Error> {
        let n_top = self.request.logprobs;
        match &mut self.prepared.grammar {
            None => Ok(self.sampler.sample(logits, n_top)),
            Some(grammar) => {
                let allowed = grammar.allowed()?;
                Ok(self.sampler.sample_allowed(logits, n_top, |id| allowed.has(id)))
            }
        }
    }

    /// Takes a sampled token in and tells the caller; a reason when it was the last.
    pub(super) fn accept(&mut self, choice: Choice, model: &Model) -> Result<Option<FinishReason>, Error> {
        let Choice { id, logprobs } = choice;
        self.ids.push(id);
        if model.eos_token_ids.contains(&id) {
            // The turn's end is no part of the text, and neither are its log-probabilities.
            return Ok(Some(FinishReason::Stop));
        }
        let bytes_of = |id: u32| model.tokenizer.token_bytes(id).unwrap_or_default().to_vec();
        let entry = |id, logprob| Logprob { id, bytes: bytes_of(id), logprob };
        let logprob = logprobs.map(|logprobs| TokenLogprob {
            chosen: entry(id, logprobs.chosen),
            top: logprobs.top.iter().map(|&(id, logprob)| entry(id, logprob)).collect(),
        });
        let complete = match &mut self.prepared.grammar {
            Some(grammar) => grammar.advance(id)?,
            None => false,
        };
        let released = self.stop_ids.push(id, Held { bytes: bytes_of(id), logprob });
        if self.say(released.tokens) || released.stopped || complete {
            return Ok(Some(FinishReason::Stop));
        }
        Ok((self.completion_tokens() >= self.max_new).then_some(FinishReason::Length))
    }

    /// Turns tokens into text and tells the caller. True when a stop text is complete.
    fn say(&mut self, tokens: Vec<Held>) -> bool {
        for Held { bytes, logprob } in tokens {
            self.logprobs.extend(logprob);
            let characters = self.detokenizer.push(&bytes);
            let released = self.stop.push(&characters);
            self.tell(released.text);
            if released.stopped {
                return true;
            }
        }
        false
    }

    /// Sends new text with the log-probabilities of the tokens that begin in it.
    fn tell(&mut self, text: String) {
        if text.is_empty() {
            return;
        }
        let mut logprobs = Vec::new();
        while self.held_bytes < text.len() {
            let Some(next) = self.logprobs.pop_front() else { break };
            self.held_bytes += next.chosen.bytes.len();
            logprobs.push(next);
        }
        // Bytes that are no character became longer text.
        self.held_bytes = self.held_bytes.saturating_sub(text.len());
        self.send(text, logprobs);
    }

    fn send(&self, text: String, logprobs: Vec<TokenLogprob>) {
        let completion_tokens = self.completion_tokens();
        // A caller who is gone is found before the next step.
        let _ = self.events.send(Event::Text(TextDelta { text, completion_tokens, logprobs }));
    }

    /// Sends what was held back, and the end.
    pub(super) fn flush(&mut self, reason: FinishReason) {
        let held = self.stop_ids.finish();
        self.say(held);
        let rest = self.detokenizer.finish();
        let released = self.stop.push(&rest);
        let mut text = released.text;
        if !released.stopped {
            text.push_str(&self.stop.finish());
        }
        self.tell(text);
        // Tokens without any text are part of the answer too, but those of a stop text are not.
        if !released.stopped && !self.logprobs.is_empty() {
            let logprobs = std::mem::take(&mut self.logprobs).into();
            self.send(String::new(), logprobs);
        }
        if let Some(first_token) = self.first_token {
            self.timings.decode = first_token.elapsed();
        }
        let _ = self.events.send(Event::Finished(Finished {
            reason,
            prompt: self.prepared.prompt.tokens,
            completion_tokens: self.completion_tokens(),
            timings: self.timings,
        }));
    }

    fn completion_tokens(&self) -> usize {
        self.ids.len() - self.prepared.prompt.ids.len()
    }
}

/// A seed for a request that names none.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(Instant::now())
}
