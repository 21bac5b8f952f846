//! The JSON of an answer, in the order of keys that the hosted service uses.

use ocellus_engine::{FinishReason, Finished, Logprob, PromptTokens, TextDelta, TokenLogprob};
use serde::Serialize;

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
    choices: [Choice<'a>; 1],
    object: &'static str,
    usage: Usage,
    created: u64,
    system_fingerprint: Option<&'a str>,
    model: &'a str,
    id: &'a str,
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
}

impl<'a> Completion<'a> {
    /// `with_logprobs` tells an answer without tokens from one whose log-probabilities nobody wants.
    pub(crate) fn new(
        stamp: &'a Stamp,
        answer: &'a TextDelta,
        finished: &Finished,
        with_logprobs: bool,
    ) -> Self {
        let choice = Choice {
            message: AnswerMessage { content: &answer.text, role: "assistant" },
            finish_reason: finish_reason(finished.reason),
            index: 0,
            logprobs: with_logprobs.then(|| Logprobs::new(&answer.logprobs)),
        };
        Self {
            choices: [choice],
            object: "chat.completion",
            usage: Usage::new(finished),
            created: stamp.created,
            system_fingerprint: None,
            model: &stamp.model,
            id: &stamp.id,
        }
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
    pub(crate) fn new(finished: &Finished) -> Self {
        let PromptTokens { text, image, video } = finished.prompt;
        let prompt_tokens = finished.prompt.total();
        let completion_tokens = finished.completion_tokens;
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
