//! One choice of an answer: its text, and the calls of functions in it.

use ocellus_engine::{FinishReason, Finished, TextDelta, TokenLogprob};

use super::response::finish_reason;
use crate::tool_call::{Piece, ToolCalls};

/// A choice that is complete.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What is said beside calls.
    pub(crate) text: String,
    pub(crate) calls: Vec<Call>,
    /// Of all tokens, those of calls too.
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) finished: Finished,
}

/// A call of a function.
#[derive(Debug, Default)]
pub(crate) struct Call {
    /// `call_` and a UUID.
    pub(crate) id: String,
    pub(crate) name: String,
    /// JSON text, as the model wrote it.
    pub(crate) arguments: String,
}

impl Answer {
    /// `with_tools`: calls are looked for.
    pub(crate) fn new(whole: TextDelta, finished: Finished, with_tools: bool) -> Self {
        let TextDelta { text, logprobs, .. } = whole;
        let mut answer = Self { text: String::new(), calls: Vec::new(), logprobs, finished };
        if !with_tools {
            answer.text = text;
            return answer;
        }
        let mut parser = ToolCalls::default();
        for piece in parser.push(&text).into_iter().chain(parser.finish()) {
            match piece {
                Piece::Text(text) => answer.text.push_str(&text),
                Piece::Call { name } => answer.calls.push(Call::new(name)),
                Piece::Arguments(text) => {
                    if let Some(call) = answer.calls.last_mut() {
                        call.arguments.push_str(&text);
                    }
                }
            }
        }
        answer
    }

    pub(crate) fn finish_reason(&self) -> &'static str {
        reason_with_calls(self.finished.reason, self.calls.len())
    }
}

impl Call {
    /// A call without arguments so far.
    pub(crate) fn new(name: String) -> Self {
        Self { id: format!("call_{}", uuid::Uuid::new_v4()), name, arguments: String::new() }
    }
}

/// An answer that was cut says so, even in the middle of a call.
pub(crate) fn reason_with_calls(reason: FinishReason, calls: usize) -> &'static str {
    match reason {
        FinishReason::Stop if calls > 0 => "tool_calls",
        reason => finish_reason(reason),
    }
}
