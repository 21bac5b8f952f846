//! An answer as server-sent events, whatever the dialect: the engine's events go into a [`Framing`], frames come out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{StreamExt, stream};
use ocellus_engine::{Event, Finished, TextDelta};

use crate::Refusal;
use crate::answer::BoxEvents;

/// A comment, which every client skips: proxies and clients must not take a long prefill for a dead connection.
const PING: &[u8] = b": ping\n\n";
const PING_EVERY: Duration = Duration::from_secs(15);

/// How a dialect writes an answer's events. Each method gives whole frames.
pub(crate) trait Framing: Send + 'static {
    /// The next text or end belongs to this choice. A dialect with one choice has no use for it.
    fn turn_to(&mut self, _choice: usize) {}
    /// Before the first token.
    fn opening(&mut self) -> Vec<Bytes>;
    /// New text.
    fn text(&mut self, delta: &TextDelta) -> Vec<Bytes>;
    /// The regular end of a choice.
    fn closing(&mut self, finished: &Finished) -> Vec<Bytes>;
    /// The end when something failed after the first frame was sent.
    fn failure(&mut self, refusal: &Refusal) -> Vec<Bytes>;
}

/// The choices of an answer, one stream of events for each.
pub(crate) struct Choices(Vec<BoxEvents>);

impl From<BoxEvents> for Choices {
    fn from(events: BoxEvents) -> Self {
        Self(vec![events])
    }
}

impl From<Vec<BoxEvents>> for Choices {
    fn from(choices: Vec<BoxEvents>) -> Self {
        Self(choices)
    }
}

/// The response to an answer whose choices have started. The stream owns the engine's events: when the client goes
/// away the body is dropped, they with it, and the engine stops.
pub(crate) fn response(choices: impl Into<Choices>, mut framing: impl Framing) -> Response {
    let Choices(choices) = choices.into();
    let open = vec![true; choices.len()];
    // `None` marks the end of a choice, which must not come before its last event.
    let events = choices.into_iter().enumerate().map(|(choice, events)| {
        let marked = events.map(Some).chain(stream::once(async { None }));
        marked.map(move |event| (choice, event)).boxed()
    });
    let events = stream::select_all(events);
    let frames = Frames { queue: framing.opening().into(), open, events, framing };
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
    /// Which choices have more to come; nothing comes after the queue when none has.
    open: Vec<bool>,
    events: SelectAll<BoxStream<'static, (usize, Option<Event>)>>,
    framing: F,
}

impl<F: Framing> Frames<F> {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.queue.pop_front() {
                return Some(frame);
            }
            if !self.open.contains(&true) {
                return None;
            }
            let Ok(event) = tokio::time::timeout(PING_EVERY, self.events.next()).await else {
                return Some(Bytes::from_static(PING));
            };
            let Some((choice, event)) = event.filter(|(choice, _)| self.open[*choice]) else { continue };
            self.framing.turn_to(choice);
            match event {
                Some(Event::Started(_)) => {}
                Some(Event::Text(delta)) => self.queue.extend(self.framing.text(&delta)),
                Some(Event::Finished(finished)) => {
                    self.queue.extend(self.framing.closing(&finished));
                    self.open[choice] = false;
                }
                Some(Event::Failed(error)) => self.fail(&Refusal::from(&error)),
                None => {
                    tracing::error!("the engine's events ended without an end");
                    self.fail(&Refusal::EngineFailure);
                }
            }
        }
    }

    /// One choice that fails ends them all.
    fn fail(&mut self, refusal: &Refusal) {
        self.queue.extend(self.framing.failure(refusal));
        self.open.fill(false);
    }
}
