//! An answer as server-sent events, whatever the dialect: the engine's events go into a [`Framing`], frames come out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::{StreamExt, stream};
use ocellus_engine::{Event, Finished, TextDelta};

use crate::Refusal;
use crate::answer::BoxEvents;

/// A comment, which every client skips: proxies and clients must not take a long prefill for a dead connection.
const PING: &[u8] = b": ping\n\n";
const PING_EVERY: Duration = Duration::from_secs(15);

/// How a dialect writes an answer's events. Each method gives whole frames.
pub(crate) trait Framing: Send + 'static {
    /// Before the first token.
    fn opening(&mut self) -> Vec<Bytes>;
    /// New text.
    fn text(&mut self, delta: &TextDelta) -> Vec<Bytes>;
    /// The regular end.
    fn closing(&mut self, finished: &Finished) -> Vec<Bytes>;
    /// The end when something failed after the first frame was sent.
    fn failure(&mut self, refusal: &Refusal) -> Vec<Bytes>;
}

/// The response to an answer that has started. The stream owns the engine's events: when the client goes away the
/// body is dropped, they with it, and the engine stops.
pub(crate) fn response(events: BoxEvents, mut framing: impl Framing) -> Response {
    let frames = Frames { queue: framing.opening().into(), over: false, events, framing };
    let body = stream::unfold(frames, async |mut frames| {
        let frame = frames.next().await?;
        Some((Ok::<_, Infallible>(frame), frames))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Some proxies gather a response before they pass it on, unless they are told.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Frames<F> {
    /// Written and not yet taken.
    queue: VecDeque<Bytes>,
    /// Nothing comes after the queue.
    over: bool,
    events: BoxEvents,
    framing: F,
}

impl<F: Framing> Frames<F> {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.queue.pop_front() {
                return Some(frame);
            }
            if self.over {
                return None;
            }
            let Ok(event) = tokio::time::timeout(PING_EVERY, self.events.next()).await else {
                return Some(Bytes::from_static(PING));
            };
            match event {
                Some(Event::Started(_)) => {}
                Some(Event::Text(delta)) => self.queue.extend(self.framing.text(&delta)),
                Some(Event::Finished(finished)) => {
                    self.queue.extend(self.framing.closing(&finished));
                    self.over = true;
                }
                Some(Event::Failed(error)) => self.fail(&Refusal::from(&error)),
                None => {
                    tracing::error!("the engine's events ended without an end");
                    self.fail(&Refusal::EngineFailure);
                }
            }
        }
    }

    fn fail(&mut self, refusal: &Refusal) {
        self.queue.extend(self.framing.failure(refusal));
        self.over = true;
    }
}
