//! What the server needs of an engine. A trait, so that tests can script an answer event by event and read the exact
//! bytes it becomes.

use std::pin::Pin;

use futures_core::Stream;
use futures_util::StreamExt;
use ocellus_engine::{
    Engine, Error as EngineError, Event, Finished, Info, Load, Request, Started, TextDelta,
};

use crate::Refusal;

/// The events of one answer. Dropping it cancels the request.
pub type BoxEvents = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// Something that answers requests.
pub trait Answer: Send + Sync + 'static {
    /// Starts an answer. Its first event is [`Event::Started`] or [`Event::Failed`].
    fn submit(&self, request: Request) -> BoxEvents;
    /// What is loaded.
    fn info(&self) -> &Info;
    /// Counts a request's tokens without answering it. May take as long as decoding its pictures.
    ///
    /// # Errors
    /// What [`Event::Failed`] would say to this request.
    fn count(&self, request: &Request) -> Result<Started, EngineError>;
    /// How busy it is.
    fn load_now(&self) -> Load {
        Load::default()
    }
}

impl Answer for Engine {
    fn submit(&self, request: Request) -> BoxEvents {
        Box::pin(Engine::submit(self, request))
    }

    fn info(&self) -> &Info {
        Engine::info(self)
    }

    fn count(&self, request: &Request) -> Result<Started, EngineError> {
        Engine::count(self, request)
    }

    fn load_now(&self) -> Load {
        Engine::load_now(self)
    }
}

/// Waits until nothing in the request can be refused any more.
pub(crate) async fn started(events: &mut BoxEvents) -> Result<Started, Refusal> {
    match events.next().await {
        Some(Event::Started(started)) => Ok(started),
        Some(Event::Failed(error)) => Err(Refusal::from(&error)),
        Some(Event::Text(_) | Event::Finished(_)) => {
            tracing::error!("the engine spoke before it said that it started");
            Err(Refusal::EngineFailure)
        }
        None => Err(Refusal::EngineFailure),
    }
}

/// The rest of an answer in one piece.
pub(crate) async fn whole(mut events: BoxEvents) -> Result<(TextDelta, Finished), Refusal> {
    let mut answer = TextDelta::default();
    while let Some(event) = events.next().await {
        match event {
            Event::Started(_) => {}
            Event::Text(delta) => {
                answer.text.push_str(&delta.text);
                answer.logprobs.extend(delta.logprobs);
                answer.completion_tokens = delta.completion_tokens;
            }
            Event::Finished(finished) => return Ok((answer, finished)),
            Event::Failed(error) => return Err(Refusal::from(&error)),
        }
    }
    Err(Refusal::EngineFailure)
}
