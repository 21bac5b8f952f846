//! The chunks of a streamed answer, in the hosted service's order: for each choice an empty one with the role, one for
//! each text or part of a call, and one with the finish reason; after all choices one with the usage if it was asked
//! for, and `[DONE]`. The chunks of several choices come as they are generated, told apart by their index.

use axum::body::Bytes;
use ocellus_engine::{Finished, TextDelta, TokenLogprob};
use serde::Serialize;

use super::choice::{Call, reason_with_calls};
use super::response::{Logprobs, Stamp, ToolCall, Usage};
use crate::extension::Extension;
use crate::sse::Framing;
use crate::tool_call::{Piece, ToolCalls};
use crate::{Dialect, Refusal};

/// Writes the chunks of one answer.
pub(crate) struct Chunks {
    stamp: Stamp,
    wanted: Wanted,
    /// For the body of a failure.
    request_id: String,
    /// For the first chunk, and taken by it.
    extension: Option<Extension>,
    choices: Vec<ChoiceState>,
    /// The choice that the next event belongs to.
    current: usize,
    /// Tokens of the choices that have ended.
    completion_tokens: usize,
}

/// What a client asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Choices.
    pub(crate) n: usize,
    /// A last chunk with the usage.
    pub(crate) usage: bool,
    pub(crate) logprobs: bool,
    /// Calls are looked for.
    pub(crate) tools: bool,
}

/// How far a choice is.
#[derive(Default)]
struct ChoiceState {
    /// There when calls are looked for.
    parser: Option<ToolCalls>,
    /// Calls that have begun.
    calls: usize,
    /// Of tokens whose text has not come out yet.
    logprobs: Vec<TokenLogprob>,
    is_over: bool,
}

#[derive(Serialize)]
struct Chunk<'a> {
    choices: &'a [ChunkChoice<'a>],
    object: &'static str,
    usage: Option<Usage>,
    created: u64,
    system_fingerprint: Option<&'a str>,
    model: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ocellus: Option<Extension>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    delta: Delta<'a>,
    finish_reason: Option<&'static str>,
    index: usize,
    logprobs: Option<Logprobs>,
}

#[derive(Serialize)]
struct Delta<'a> {
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[ToolCall<'a>; 1]>,
}

impl Chunks {
    pub(crate) fn new(stamp: Stamp, wanted: Wanted, request_id: String) -> Self {
        let state =
            || ChoiceState { parser: wanted.tools.then(ToolCalls::default), ..ChoiceState::default() };
        let choices = (0..wanted.n).map(|_| state()).collect();
        Self { stamp, wanted, request_id, extension: None, choices, current: 0, completion_tokens: 0 }
    }

    /// Adds what only this server tells.
    pub(crate) fn with(self, extension: Option<Extension>) -> Self {
        Self { extension, ..self }
    }

    fn chunk(&mut self, choices: &[ChunkChoice<'_>], usage: Option<Usage>) -> Bytes {
        let chunk = Chunk {
            choices,
            object: "chat.completion.chunk",
            usage,
            created: self.stamp.created,
            system_fingerprint: None,
            model: &self.stamp.model,
            id: &self.stamp.id,
            ocellus: self.extension.take(),
        };
        data(&chunk)
    }

    /// A chunk of the current choice. With text goes what is known of the tokens up to here.
    fn choice(&mut self, delta: Delta<'_>, finish_reason: Option<&'static str>) -> Bytes {
        let index = self.current;
        let held = std::mem::take(&mut self.choices[index].logprobs);
        // Chunks that no token made have none.
        let has_tokens = !held.is_empty() || (finish_reason.is_none() && delta.role.is_none());
        let logprobs = (self.wanted.logprobs && has_tokens).then(|| Logprobs::new(&held));
        self.chunk(&[ChunkChoice { delta, finish_reason, index, logprobs }], None)
    }

    fn piece(&mut self, piece: &Piece) -> Bytes {
        match piece {
            Piece::Text(text) => self.choice(Delta::text(text), None),
            Piece::Call { name } => {
                let index = self.choices[self.current].calls;
                self.choices[self.current].calls += 1;
                let call = Call::new(name.clone());
                self.choice(Delta::call(ToolCall::new(index, &call, "")), None)
            }
            Piece::Arguments(text) => {
                let index = self.choices[self.current].calls.saturating_sub(1);
                self.choice(Delta::call(ToolCall::more(index, text)), None)
            }
        }
    }
}

impl<'a> Delta<'a> {
    fn text(content: &'a str) -> Self {
        Self { content, role: None, tool_calls: None }
    }

    fn call(call: ToolCall<'a>) -> Self {
        Self { content: "", role: None, tool_calls: Some([call]) }
    }
}

impl Framing for Chunks {
    fn turn_to(&mut self, choice: usize) {
        self.current = choice;
    }

    fn opening(&mut self) -> Vec<Bytes> {
        let n = self.wanted.n;
        let opening = |index| {
            self.current = index;
            self.choice(Delta { role: Some("assistant"), ..Delta::text("") }, None)
        };
        (0..n).map(opening).collect()
    }

    fn text(&mut self, delta: &TextDelta) -> Vec<Bytes> {
        let state = &mut self.choices[self.current];
        state.logprobs.extend(delta.logprobs.iter().cloned());
        let pieces = match &mut state.parser {
            Some(parser) => parser.push(&delta.text),
            None if delta.text.is_empty() && state.logprobs.is_empty() => Vec::new(),
            None => vec![Piece::Text(delta.text.clone())],
        };
        pieces.iter().map(|piece| self.piece(piece)).collect()
    }

    fn closing(&mut self, finished: &Finished) -> Vec<Bytes> {
        let state = &mut self.choices[self.current];
        let rest = state.parser.as_mut().map(ToolCalls::finish).unwrap_or_default();
        state.is_over = true;
        let mut frames: Vec<Bytes> = rest.iter().map(|piece| self.piece(piece)).collect();
        let reason = reason_with_calls(finished.reason, self.choices[self.current].calls);
        frames.push(self.choice(Delta::text(""), Some(reason)));
        self.completion_tokens += finished.completion_tokens;
        if self.choices.iter().all(|choice| choice.is_over) {
            if self.wanted.usage {
                let usage = Usage::new(finished.prompt, self.completion_tokens);
                frames.push(self.chunk(&[], Some(usage)));
            }
            frames.push(Bytes::from_static(b"data: [DONE]\n\n"));
        }
        frames
    }

    /// The clients raise an error on this and do not wait for `[DONE]`.
    fn failure(&mut self, refusal: &Refusal) -> Vec<Bytes> {
        vec![data(&refusal.body(Dialect::Compatible, &self.request_id))]
    }
}

/// One frame. JSON text has no line breaks of its own.
fn data(value: &impl Serialize) -> Bytes {
    match serde_json::to_string(value) {
        Ok(json) => Bytes::from(format!("data: {json}\n\n")),
        // Structs with text keys can't fail; a missing frame is better than a panic all the same.
        Err(_) => Bytes::new(),
    }
}
