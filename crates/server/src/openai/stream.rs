//! The chunks of a streamed answer, in the hosted service's order: an empty one with the role, one for each text, one
//! with the finish reason, one with the usage if it was asked for, and `[DONE]`.

use axum::body::Bytes;
use ocellus_engine::{Finished, TextDelta};
use serde::Serialize;

use super::response::{Logprobs, Stamp, Usage, finish_reason};
use crate::sse::Framing;
use crate::{Dialect, Refusal};

/// Writes the chunks of one answer.
pub(crate) struct Chunks {
    pub(crate) stamp: Stamp,
    pub(crate) include_usage: bool,
    pub(crate) with_logprobs: bool,
    /// For the body of a failure.
    pub(crate) request_id: String,
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
}

impl Chunks {
    fn chunk(&self, choices: &[ChunkChoice<'_>], usage: Option<Usage>) -> Bytes {
        let chunk = Chunk {
            choices,
            object: "chat.completion.chunk",
            usage,
            created: self.stamp.created,
            system_fingerprint: None,
            model: &self.stamp.model,
            id: &self.stamp.id,
        };
        data(&chunk)
    }

    fn choice(
        &self,
        delta: Delta<'_>,
        finish_reason: Option<&'static str>,
        logprobs: Option<Logprobs>,
    ) -> Bytes {
        self.chunk(&[ChunkChoice { delta, finish_reason, index: 0, logprobs }], None)
    }
}

impl Framing for Chunks {
    fn opening(&mut self) -> Vec<Bytes> {
        vec![self.choice(Delta { content: "", role: Some("assistant") }, None, None)]
    }

    fn text(&mut self, delta: &TextDelta) -> Vec<Bytes> {
        if delta.text.is_empty() && delta.logprobs.is_empty() {
            return Vec::new();
        }
        let logprobs = self.with_logprobs.then(|| Logprobs::new(&delta.logprobs));
        vec![self.choice(Delta { content: &delta.text, role: None }, None, logprobs)]
    }

    fn closing(&mut self, finished: &Finished) -> Vec<Bytes> {
        let reason = Some(finish_reason(finished.reason));
        let mut frames = vec![self.choice(Delta { content: "", role: None }, reason, None)];
        if self.include_usage {
            frames.push(self.chunk(&[], Some(Usage::new(finished))));
        }
        frames.push(Bytes::from_static(b"data: [DONE]\n\n"));
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
