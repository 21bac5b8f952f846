//! The JSON of an answer, in the order of keys that the hosted service uses.

use ocellus_engine::{FinishReason, Logprob, PromptTokens, TokenLogprob};
use serde::Serialize;

use super::choice::{Answer, Call};
use crate::extension::Extension;

/// What all chunks and answers of one request have in common.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    /// `chatcmpl-` and a UUID.
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// The name the client asked for.
    pub(crate) model: String,
}

/// A whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct Completion<'a> {
    choices: Vec<Choice<'a>>,
    object: &'static str,
    usage: Usage,
    created: u64,
    system_fingerprint: Option<&'a str>,
    model: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ocellus: Option<&'a Extension>,
}

#[derive(Debug, Serialize)]
struct Choice<'a> {
    message: AnswerMessage<'a>,
    finish_reason: &'static str,
    index: usize,
    logprobs: Option<Logprobs>,
}

#[derive(Debug, Serialize)]
struct AnswerMessage<'a> {
    content: &'a str,
    role: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall<'a>>,
}

/// A call of a function, or the next part of one: only the first part has the id, the type and the name.
#[derive(Debug, Serialize)]
pub(crate) struct ToolCall<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<&'static str>,
    pub(crate) index: usize,
    pub(crate) function: CalledFunction<'a>,
}

/// What is called.
#[derive(Debug, Serialize)]
pub(crate) struct CalledFunction<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    /// JSON text.
    pub(crate) arguments: &'a str,
}

impl<'a> ToolCall<'a> {
    /// The call with these arguments, or with the first of them.
    pub(crate) fn new(index: usize, call: &'a Call, arguments: &'a str) -> Self {
        let function = CalledFunction { name: Some(&call.name), arguments };
        Self { id: Some(&call.id), kind: Some("function"), index, function }
    }

    /// More arguments.
    pub(crate) fn more(index: usize, arguments: &'a str) -> Self {
        Self { id: None, kind: None, index, function: CalledFunction { name: None, arguments } }
    }
}

impl<'a> Completion<'a> {
    /// `with_logprobs` tells an answer without tokens from one whose log-probabilities nobody wants.
    pub(crate) fn new(stamp: &'a Stamp, answers: &'a [Answer], with_logprobs: bool) -> Self {
        let choice = |(index, answer): (usize, &'a Answer)| Choice {
            message: AnswerMessage {
                content: &answer.text,
                role: "assistant",
                tool_calls: answer
                    .calls
                    .iter()
                    .enumerate()
                    .map(|(index, call)| ToolCall::new(index, call, &call.arguments))
                    .collect(),
            },
            finish_reason: answer.finish_reason(),
            index,
            logprobs: with_logprobs.then(|| Logprobs::new(&answer.logprobs)),
        };
        let prompt = answers.first().map(|answer| answer.finished.prompt).unwrap_or_default();
        Self {
            choices: answers.iter().enumerate().map(choice).collect(),
            object: "chat.completion",
            usage: Usage::new(prompt, answers.iter().map(|answer| answer.finished.completion_tokens).sum()),
            created: stamp.created,
            system_fingerprint: None,
            model: &stamp.model,
            id: &stamp.id,
            ocellus: None,
        }
    }

    /// Adds what only this server tells.
    pub(crate) fn with(self, extension: Option<&'a Extension>) -> Self {
        Self { ocellus: extension, ..self }
    }
}

/// The word of the protocol.
pub(crate) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// Tokens counted.
#[derive(Debug, Serialize)]
pub(crate) struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Debug, Serialize)]
struct PromptDetails {
    text_tokens: usize,
    image_tokens: usize,
    video_tokens: usize,
    cached_tokens: usize,
}

#[derive(Debug, Serialize)]
struct CompletionDetails {
    text_tokens: usize,
}

impl Usage {
    /// The prompt counts once, however many choices continue it.
    pub(crate) fn new(prompt: PromptTokens, completion_tokens: usize) -> Self {
        let PromptTokens { text, image, video } = prompt;
        let prompt_tokens = prompt.total();
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            // Nothing is kept from one request to the next yet.
            prompt_tokens_details: PromptDetails {
                text_tokens: text,
                image_tokens: image,
                video_tokens: video,
                cached_tokens: 0,
            },
            completion_tokens_details: CompletionDetails { text_tokens: completion_tokens },
        }
    }
}

/// How likely the tokens were. The bytes of all tokens, joined, are the text.
#[derive(Debug, Serialize)]
pub(crate) struct Logprobs {
    content: Vec<TokenEntry>,
}

#[derive(Debug, Serialize)]
struct TokenEntry {
    #[serde(flatten)]
    chosen: Entry,
    top_logprobs: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    token: String,
    bytes: Vec<u8>,
    logprob: f32,
}

impl Logprobs {
    pub(crate) fn new(tokens: &[TokenLogprob]) -> Self {
        let entry = |token: &TokenLogprob| TokenEntry {
            chosen: Entry::new(&token.chosen),
            top_logprobs: token.top.iter().map(Entry::new).collect(),
        };
        Self { content: tokens.iter().map(entry).collect() }
    }
}

impl Entry {
    fn new(token: &Logprob) -> Self {
        Self {
            // A token may be a part of a character; `bytes` has it exactly.
            token: String::from_utf8_lossy(&token.bytes).into_owned(),
            bytes: token.bytes.clone(),
            // JSON has no infinity; this is the protocol's word for "never".
            logprob: if token.logprob.is_finite() { token.logprob } else { -9999.0 },
        }
    }
}
