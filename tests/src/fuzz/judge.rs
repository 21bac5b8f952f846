//! Whether an answer is one that the server's document, and its dialect, allow.

use std::collections::HashSet;

use serde_json::Value;

use super::case::{Case, Expected};
use super::document::Document;
use super::exchange::Answer;

/// What is wrong with an answer to a case. `key` is the one that the server accepts.
pub fn judge(document: &Document, case: &Case, key: &str, answer: &Answer) -> Option<String> {
    let status = answer.status;
    let text = String::from_utf8_lossy(&answer.body);
    if status >= 500 || status == 429 {
        return Some(format!("{status} for a request that finds the server idle: {}", shown(&text)));
    }
    if status >= 400 && (text.contains("panicked") || text.contains(".rs:")) {
        return Some(format!("internal detail: {}", shown(&text)));
    }
    if case.is_lenient() {
        // HTTP's own refusals have no body; where the path is spoiled too, the dialect is anybody's guess.
        let has_body = status >= 400 && !text.is_empty();
        let fault = |native| refusal_fault(document, native, answer);
        return has_body.then(|| fault(is_native(case)).and_then(|_| fault(!is_native(case)))).flatten();
    }
    let fault = match document.find(&case.method, case.path()) {
        Ok(None) => (status != 404).then(|| format!("{status} for an unknown path, expected 404")),
        Err(methods) => {
            let keyless = status == 401 && !case.has_key(key);
            let refused = status == 405 || keyless;
            (!refused).then(|| format!("{status} for a path that has {}, expected 405", methods.join(", ")))
        }
        Ok(Some(call)) if call.needs_key && !case.has_key(key) => {
            (status != 401).then(|| format!("{status} without the right key, expected 401"))
        }
        Ok(Some(call)) => {
            let kind = answer.header("content-type").unwrap_or_default();
            // Of an answer to HEAD only the head comes.
            let judged = case.method != "HEAD";
            judged.then(|| document.fault(call, status, kind, &answer.body)).flatten()
        }
    };
    let unexpected = match (case.expected, status) {
        (Expected::Answered, 200) | (Expected::Refused, 400) | (Expected::Anything, _) => None,
        (expected, _) => Some(format!("{status}, expected it to be {expected:?}: {}", shown(&text))),
    };
    let inner = || match answer.header("content-type") {
        _ if status >= 400 && case.method != "HEAD" => refusal_fault(document, is_native(case), answer),
        Some(kind) if kind.starts_with("text/event-stream") => {
            if is_native(case) {
                native_stream_fault(&text)
            } else {
                stream_fault(document, &text)
            }
        }
        _ => None,
    };
    fault.or(unexpected).or_else(inner)
}

impl Case {
    /// Whether this key is among its headers, in the spelling that counts.
    fn has_key(&self, key: &str) -> bool {
        let given = self.headers.iter().find(|(name, _)| name == "Authorization").map(|(_, value)| value);
        given.is_some_and(|value| {
            value.len() == 7 + key.len()
                && value[..7].eq_ignore_ascii_case(b"bearer ")
                && value.ends_with(key.as_bytes())
        })
    }
}

fn is_native(case: &Case) -> bool {
    let path = case.path();
    path == "/api" || path.starts_with("/api/")
}

/// The dialect's body, with the id that the header has.
fn refusal_fault(document: &Document, native: bool, answer: &Answer) -> Option<String> {
    let body: Value = match serde_json::from_slice(&answer.body) {
        Ok(body) => body,
        Err(error) => return Some(format!("{}: a refusal that is no JSON: {error}", answer.status)),
    };
    let name = if native { "NativeError" } else { "Error" };
    let message = if native { &body["message"] } else { &body["error"]["message"] };
    let has_message = message.as_str().is_some_and(|message| !message.is_empty());
    let has_id =
        body["request_id"].is_string() && body["request_id"].as_str() == answer.header("x-request-id");
    let is_json = answer.header("content-type") == Some("application/json");
    let fits = document.is_a(name, &body) && has_message && has_id && is_json;
    (!fits)
        .then(|| format!("{}: not the refusal of its dialect: {}", answer.status, shown(&body.to_string())))
}

/// Chunks of one answer: each choice ends once, `[DONE]` comes last; or the last frame is an error.
fn stream_fault(document: &Document, text: &str) -> Option<String> {
    let Some(text) = text.strip_suffix("\n\n") else { return Some("a stream without an end".into()) };
    let mut over = HashSet::new();
    let mut open = HashSet::new();
    let mut id = None;
    let frames: Vec<&str> = text.split("\n\n").filter(|frame| !frame.starts_with(':')).collect();
    for (number, frame) in frames.iter().enumerate() {
        let is_last = number + 1 == frames.len();
        let Some(data) = frame.strip_prefix("data: ") else { return Some(format!("a frame {frame:?}")) };
        if data == "[DONE]" {
            let whole = is_last && over == open && !open.is_empty();
            return (!whole).then(|| "[DONE] before all choices have ended".into());
        }
        let Ok(chunk) = serde_json::from_str::<Value>(data) else { return Some(format!("a chunk {data:?}")) };
        if is_last && document.is_a("Error", &chunk) {
            return None;
        }
        if chunk["object"] != "chat.completion.chunk" || *id.get_or_insert(chunk["id"].clone()) != chunk["id"]
        {
            return Some(format!("a chunk {data:?}"));
        }
        for choice in chunk["choices"].as_array().into_iter().flatten() {
            let index = choice["index"].as_u64();
            open.insert(index);
            if over.contains(&index) || (!choice["finish_reason"].is_null() && !over.insert(index)) {
                return Some(format!("choice {index:?} goes on after its end"));
            }
        }
    }
    Some("a stream without [DONE]".into())
}

/// Events of four lines, numbered from 1, the last of which ends its choice; or the last one is an error.
fn native_stream_fault(text: &str) -> Option<String> {
    let Some(text) = text.strip_suffix("\n\n") else { return Some("a stream without an end".into()) };
    let mut ended = false;
    for (number, event) in text.split("\n\n").filter(|event| !event.starts_with(": ")).enumerate() {
        let start = format!("id:{}\nevent:result\n:HTTP_STATUS/200\ndata:", number + 1);
        let Some(data) = event.strip_prefix(&start) else {
            let is_error = event.starts_with(&format!("id:{}\nevent:error\n:HTTP_STATUS/4", number + 1));
            return (!is_error).then(|| format!("an event {event:?}"));
        };
        let Ok(data) = serde_json::from_str::<Value>(data) else { return Some(format!("data {data:?}")) };
        let reason = &data["output"]["choices"][0]["finish_reason"];
        if !reason.is_string() || !data["usage"]["output_tokens"].is_u64() {
            return Some(format!("an event without its fields: {data}"));
        }
        ended = *reason != "null";
    }
    (!ended).then(|| "the last event ends nothing".into())
}

fn shown(text: &str) -> String {
    text.chars().take(300).collect()
}
