//! The events of a streamed answer: four lines and an empty one each, numbered from 1, with the usage so far.
//!
//! Clients that ask for nothing get all text so far in every event; with `incremental_output` they get new text only,
//! and a last event without any. The same goes for calls of functions. Of several choices, each event tells of one.

use axum::body::Bytes;
use ocellus_engine::{Finished, TextDelta, TokenLogprob};
use serde_json::{Map, Value};

use super::response::{self, Frame, Step, text_part, whole_calls};
use crate::openai::{Call, ToolCall, reason_with_calls};
use crate::sse::Framing;
use crate::tool_call::{Piece, ToolCalls};
use crate::{Dialect, Refusal};

/// Writes the events of one answer.
pub(crate) struct Events {
    frame: Frame,
    incremental: bool,
    /// The number of the last event.
    id: usize,
    choices: Vec<ChoiceState>,
    /// The choice that the next text or end belongs to.
    current: usize,
}

/// How far a choice is.
#[derive(Default)]
struct ChoiceState {
    /// There when calls are looked for.
    parser: Option<ToolCalls>,
    /// All text so far.
    text: String,
    /// All calls so far.
    calls: Vec<Call>,
    /// Of all tokens so far, or of those that no event has told of yet.
    logprobs: Vec<TokenLogprob>,
}

impl Events {
    pub(crate) fn new(frame: Frame, incremental: bool) -> Self {
        let tools = frame.extras().tools;
        let state = |_| ChoiceState { parser: tools.then(ToolCalls::default), ..ChoiceState::default() };
        let choices = (0..frame.extras().n).map(state).collect();
        Self { frame, incremental, id: 0, choices, current: 0 }
    }

    fn event(&mut self, step: &Step<'_>) -> Bytes {
        let data = response::event(&mut self.frame, step);
        self.id += 1;
        // JSON text has no line breaks of its own.
        Bytes::from(format!("id:{}\nevent:result\n:HTTP_STATUS/200\ndata:{data}\n\n", self.id))
    }

    /// Events for new pieces of the current choice.
    fn pieces(&mut self, pieces: &[Piece], output_tokens: usize) -> Vec<Bytes> {
        let choice = self.current;
        let mut state = std::mem::take(&mut self.choices[choice]);
        let mut events = Vec::new();
        for piece in pieces {
            state.push(piece);
            if self.incremental {
                let logprobs = std::mem::take(&mut state.logprobs);
                let (content, calls) = state.news(piece);
                let step = Step {
                    choice,
                    content,
                    calls,
                    finish_reason: "null",
                    output_tokens,
                    logprobs: &logprobs,
                };
                events.push(self.event(&step));
            }
        }
        if !self.incremental && !pieces.is_empty() {
            events.push(self.event(&Step {
                choice,
                content: vec![text_part(&state.text)],
                calls: whole_calls(&state.calls),
                finish_reason: "null",
                output_tokens,
                logprobs: &state.logprobs,
            }));
        }
        self.choices[choice] = state;
        events
    }
}

impl ChoiceState {
    fn push(&mut self, piece: &Piece) {
        match piece {
            Piece::Text(text) => self.text.push_str(text),
            Piece::Call { name } => self.calls.push(Call::new(name.clone())),
            Piece::Arguments(text) => {
                if let Some(call) = self.calls.last_mut() {
                    call.arguments.push_str(text);
                }
            }
        }
    }

    /// What an incremental event says of the piece that came last.
    fn news<'a>(&'a self, piece: &'a Piece) -> (Vec<Map<String, Value>>, Vec<ToolCall<'a>>) {
        let index = self.calls.len().saturating_sub(1);
        match (piece, self.calls.last()) {
            (Piece::Text(text), _) => (vec![text_part(text)], Vec::new()),
            (Piece::Call { .. }, Some(call)) => (Vec::new(), vec![ToolCall::new(index, call, "")]),
            (Piece::Call { .. }, None) => (Vec::new(), Vec::new()),
            (Piece::Arguments(text), _) => (Vec::new(), vec![ToolCall::more(index, text)]),
        }
    }
}

impl Framing for Events {
    fn turn_to(&mut self, choice: usize) {
        self.current = choice;
    }

    fn opening(&mut self) -> Vec<Bytes> {
        Vec::new()
    }

    fn text(&mut self, delta: &TextDelta) -> Vec<Bytes> {
        let state = &mut self.choices[self.current];
        state.logprobs.extend_from_slice(&delta.logprobs);
        let pieces = match &mut state.parser {
            Some(parser) => parser.push(&delta.text),
            None if delta.text.is_empty() && delta.logprobs.is_empty() => Vec::new(),
            None => vec![Piece::Text(delta.text.clone())],
        };
        self.pieces(&pieces, delta.completion_tokens)
    }

    fn closing(&mut self, finished: &Finished) -> Vec<Bytes> {
        let choice = self.current;
        let rest = self.choices[choice].parser.as_mut().map(ToolCalls::finish).unwrap_or_default();
        let mut events = self.pieces(&rest, finished.completion_tokens);
        let state = std::mem::take(&mut self.choices[choice]);
        let mut part = if self.incremental { Map::new() } else { text_part(&state.text) };
        part.extend(self.frame.image_hw());
        events.push(self.event(&Step {
            choice,
            content: if part.is_empty() { Vec::new() } else { vec![part] },
            calls: if self.incremental { Vec::new() } else { whole_calls(&state.calls) },
            finish_reason: reason_with_calls(finished.reason, state.calls.len()),
            output_tokens: finished.completion_tokens,
            logprobs: &state.logprobs,
        }));
        events
    }

    /// The comment is what the hosted service sends; its SDK reads the status from a line of its own.
    fn failure(&mut self, refusal: &Refusal) -> Vec<Bytes> {
        self.id += 1;
        let (id, status) = (self.id, refusal.status().as_u16());
        let data = refusal.body(Dialect::Native, &self.frame.request_id);
        let event = format!("id:{id}\nevent:error\n:HTTP_STATUS/{status}\nstatus:{status}\ndata:{data}\n\n");
        vec![Bytes::from(event)]
    }
}
