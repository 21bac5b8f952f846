//! The engine as the dialects see it: with the operator's sampling defaults, and with every answer counted on its way
//! out. Because it stands between all dialects and the engine, no dialect has to count anything.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_core::Stream;
use ocellus_engine::{Error, Event, Info, Load, Request, Started};

use crate::answer::{Answer, BoxEvents};
use crate::metrics::{End, Metrics};

/// An engine with a meter.
pub(crate) struct Metered {
    engine: Arc<dyn Answer>,
    /// The engine's own, with the operator's changes.
    info: Info,
    metrics: Arc<Metrics>,
}

impl Metered {
    /// `info` is shown in place of the engine's own.
    pub(crate) fn new(engine: Arc<dyn Answer>, info: Info, metrics: Arc<Metrics>) -> Self {
        Self { engine, info, metrics }
    }
}

impl Answer for Metered {
    fn submit(&self, request: Request) -> BoxEvents {
        let events = self.engine.submit(request);
        let metrics = self.metrics.clone();
        Box::pin(Counted { events, metrics, submitted: Instant::now(), progress: None, over: false })
    }

    fn info(&self) -> &Info {
        &self.info
    }

    fn count(&self, request: &Request) -> Result<Started, Error> {
        self.engine.count(request)
    }

    fn load_now(&self) -> Load {
        self.engine.load_now()
    }
}

/// The events of one answer, looked at as they pass.
struct Counted {
    events: BoxEvents,
    metrics: Arc<Metrics>,
    submitted: Instant,
    /// From [`Event::Started`] on.
    progress: Option<Progress>,
    /// Its end is counted.
    over: bool,
}

#[derive(Default)]
struct Progress {
    prompt_tokens: usize,
    completion_tokens: usize,
    last_token: Option<Instant>,
}

impl Stream for Counted {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let polled = self.events.as_mut().poll_next(context);
        if let Poll::Ready(Some(event)) = &polled {
            self.count(event);
        }
        polled
    }
}

impl Counted {
    fn count(&mut self, event: &Event) {
        match event {
            Event::Started(started) => {
                self.progress =
                    Some(Progress { prompt_tokens: started.prompt.total(), ..Progress::default() });
            }
            Event::Text(delta) => self.tokens(delta.completion_tokens),
            Event::Finished(finished) => {
                self.tokens(finished.completion_tokens);
                self.metrics.finished(finished, self.submitted.elapsed());
                self.over = true;
            }
            Event::Failed(_) => {
                self.metrics.ended(End::Failed);
                self.over = true;
            }
        }
    }

    /// There are so many tokens now.
    fn tokens(&mut self, completion_tokens: usize) {
        let Some(progress) = &mut self.progress else { return };
        let count = completion_tokens.saturating_sub(progress.completion_tokens);
        if count == 0 {
            return;
        }
        let now = Instant::now();
        let since_last = progress.last_token.map(|last| now - last);
        if since_last.is_none() {
            self.metrics.first_token(progress.prompt_tokens, now - self.submitted);
        }
        self.metrics.tokens(count, since_last);
        progress.completion_tokens = completion_tokens;
        progress.last_token = Some(now);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.over {
            self.metrics.ended(End::Aborted);
        }
    }
}
