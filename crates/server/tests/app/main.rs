//! The HTTP surface with a scripted engine behind it: the exact bytes of each answer, and what happens when clients
//! or the engine misbehave. Snapshots are meant to be read: each is what a client gets.

#![allow(clippy::unwrap_used)]

mod answers;
mod connections;
mod dashscope;
mod disconnect;
mod estimates;
mod exact;
mod extensions;
mod hostile;
mod openapi;
mod operations;
mod page;
mod pictures;
mod real;
mod refusals;
mod structured;
mod uploads;

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request as HttpRequest, Response};
use futures_core::Stream;
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use ocellus_engine::{
    Event, FinishReason, Finished, Formats, Info, Load, MediaSize, PromptTokens, Request, Sampling, Started,
    TextDelta, Timings,
};
use ocellus_server::{Answer, BoxEvents, Keys, Settings, State, app};
use serde_json::{Value, json};
use tower::ServiceExt;

/// One step of a scripted answer.
#[derive(Clone)]
enum Step {
    Event(Event),
    /// Nothing for a while.
    Wait(Duration),
    /// Nothing until this becomes true.
    Until(tokio::sync::watch::Receiver<bool>),
    /// Nothing, ever.
    Hang,
    /// A bug.
    Panic,
}

/// An engine that answers every request with the same script.
struct Scripted {
    info: Info,
    script: Vec<Step>,
    requests: Mutex<Vec<Request>>,
    /// Answers that were started and neither ended nor dropped.
    running: Arc<AtomicUsize>,
    /// Tokens of all answers.
    tokens: Arc<AtomicUsize>,
}

impl Scripted {
    fn new(script: Vec<Step>) -> Arc<Self> {
        let info = Info {
            context_tokens: 32768,
            max_completion_tokens: 32767,
            default_sampling: Sampling { repetition_penalty: 1.05, ..Sampling::default() },
            device: "nowhere".into(),
            weights_bytes: 0,
            formats: Formats::default(),
        };
        Arc::new(Self {
            info,
            script,
            requests: Mutex::default(),
            running: Arc::default(),
            tokens: Arc::default(),
        })
    }

    /// A regular answer made of these pieces.
    fn saying(pieces: &[&str]) -> Arc<Self> {
        let texts = pieces.iter().enumerate().map(|(index, text)| {
            Event::Text(TextDelta {
                text: (*text).into(),
                completion_tokens: index + 1,
                logprobs: Vec::new(),
            })
        });
        let events = [started()].into_iter().chain(texts).chain([finished(FinishReason::Stop)]);
        Self::new(events.map(Step::Event).collect())
    }

    fn app(self: &Arc<Self>) -> axum::Router {
        self.app_with(|_| {})
    }

    fn app_with(self: &Arc<Self>, change: impl Fn(&mut Settings)) -> axum::Router {
        let mut settings = Settings::new("eye");
        // The dialects as they are; answers with more have tests of their own.
        settings.extensions = false;
        change(&mut settings);
        app(State::new(self.clone(), settings).unwrap())
    }

    fn last_request(&self) -> Request {
        self.requests.lock().unwrap().last().cloned().unwrap()
    }
}

impl Answer for Scripted {
    fn submit(&self, request: Request) -> BoxEvents {
        self.requests.lock().unwrap().push(request);
        self.running.fetch_add(1, Ordering::SeqCst);
        let steps = stream::iter(self.script.clone()).filter_map(async |step| match step {
            Step::Event(event) => Some(event),
            Step::Wait(time) => {
                tokio::time::sleep(time).await;
                None
            }
            Step::Until(mut released) => {
                released.wait_for(|released| *released).await.unwrap();
                None
            }
            Step::Hang => std::future::pending().await,
            Step::Panic => panic!("scripted"),
        });
        Box::pin(Running {
            steps: Box::pin(steps),
            running: self.running.clone(),
            tokens: self.tokens.clone(),
        })
    }

    fn count(&self, request: &Request) -> Result<Started, ocellus_engine::Error> {
        self.requests.lock().unwrap().push(request.clone());
        match started() {
            Event::Started(started) => Ok(started),
            _ => Err(ocellus_engine::Error::NoUserMessage),
        }
    }

    fn info(&self) -> &Info {
        &self.info
    }

    fn load_now(&self) -> Load {
        Load { generated_tokens: self.tokens.load(Ordering::SeqCst) as u64, ..Load::default() }
    }
}

/// Counts an answer until it is dropped.
struct Running {
    steps: BoxEvents,
    running: Arc<AtomicUsize>,
    tokens: Arc<AtomicUsize>,
}

impl Stream for Running {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let polled = self.steps.as_mut().poll_next(context);
        if let Poll::Ready(Some(Event::Text(_))) = polled {
            self.tokens.fetch_add(1, Ordering::SeqCst);
        }
        polled
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
    }
}

const PROMPT: PromptTokens = PromptTokens { text: 29, image: 1247, video: 0 };

fn started() -> Event {
    let media = MediaSize { original: (1365, 2048), seen: (812, 1204), frames: 1, tokens: 1247 };
    Event::Started(Started { prompt: PROMPT, media: vec![media] })
}

fn finished(reason: FinishReason) -> Event {
    Event::Finished(Finished { reason, prompt: PROMPT, completion_tokens: 3, timings: Timings::default() })
}

const CHAT: &str = "/v1/chat/completions";

/// A small request with these keys on top.
fn chat(extra: Value) -> Value {
    let mut body = json!({"model": "eye", "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn post(path: &str, body: impl Into<Body>) -> HttpRequest<Body> {
    HttpRequest::post(path).header("content-type", "application/json").body(body.into()).unwrap()
}

async fn send(app: axum::Router, request: HttpRequest<Body>) -> Response<Body> {
    app.oneshot(request).await.unwrap()
}

/// What a client reads, with everything that changes from run to run replaced: status, headers in order of their
/// names, body.
async fn read(response: Response<Body>) -> String {
    let mut headers: Vec<String> = response
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect();
    headers.sort();
    let head = format!("{}\n{}\n", response.status(), headers.concat());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    redact(&(head + std::str::from_utf8(&body).unwrap()))
}

/// Replaces UUIDs and times of creation.
fn redact(text: &str) -> String {
    let mut redacted = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let is_uuid = rest.len() >= 36
            && rest.bytes().take(36).enumerate().all(|(index, byte)| match index {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        let taken = if is_uuid {
            redacted.push_str("<uuid>");
            36
        } else if let Some(after) = rest.strip_prefix("\"created\":") {
            redacted.push_str("\"created\":<time>");
            rest.len() - after.trim_start_matches(|digit: char| digit.is_ascii_digit()).len()
        } else {
            redacted.push(next);
            next.len_utf8()
        };
        rest = &rest[taken..];
    }
    redacted
}

fn keys(settings: &mut Settings) {
    settings.keys = Keys::new(["sk-right", "sk-other"]);
}
