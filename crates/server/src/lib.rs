//! HTTP in, JSON and server-sent events out.
//!
//! A request of the OpenAI-compatible dialect comes in as bytes and leaves as the engine's own
//! [`Request`](ocellus_engine::Request), or as a [`Refusal`] that knows its status and its body in both dialects;
//! the engine's events go out as JSON or as an event stream.
//! **Absent here:** tensors, devices, files of a checkpoint, tokenizing, and any path on this machine: what a request
//! names is text, a data URI, or a URL that the [`fetch::Policy`] admits.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod answer;
mod body;
mod conversation;
mod data_uri;
mod envelope;
pub mod fetch;
mod key;
mod model_name;
mod openai;
mod parameter;
mod refusal;
mod serve;
mod sse;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::routing::get;
use tokio::sync::Semaphore;

pub use answer::{Answer, BoxEvents};
pub use key::Keys;
pub use model_name::ModelNames;
pub use refusal::{Dialect, Refusal};
pub use serve::{Bind, serve};

/// The whole HTTP surface. It needs no port: tests call it with `oneshot`.
pub fn app(state: State) -> Router {
    let state = Arc::new(state);
    Router::new()
        .merge(openai::routes(&state))
        .route("/health", get(health))
        .fallback(async || Refusal::PathUnknown)
        .method_not_allowed_fallback(async |method: axum::http::Method| Refusal::MethodWrong {
            method: method.to_string(),
        })
        .layer(axum::middleware::from_fn(envelope::wrap))
        .with_state(state)
}

/// What all requests share.
pub struct State {
    engine: Arc<dyn Answer>,
    names: ModelNames,
    keys: Keys,
    fetcher: fetch::Fetcher,
    /// What the operator allows, or what the model can, whichever is less.
    max_completion_tokens: usize,
    /// Places for requests whose bodies and pictures are held in memory but not yet handed to the engine, which
    /// has a bounded queue of its own. Nobody waits here: without a place the answer is 429.
    places: Arc<Semaphore>,
    /// Seconds since 1970, shown as the creation time of the models.
    started_unix_s: u64,
}

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Names under which the loaded model answers.
    pub names: ModelNames,
    /// Who may ask; none: everyone.
    pub keys: Keys,
    /// Where pictures may be fetched from.
    pub media_fetch: fetch::Policy,
    /// Bounds of each fetch.
    pub media_limits: fetch::Limits,
    /// Most tokens of an answer, and how many it has when a request doesn't say; what the model's context holds bounds
    /// it too.
    pub max_completion_tokens: usize,
}

impl Settings {
    /// The hosted service's behaviour for a model of this name: its aliases and its bounds, and no keys.
    pub fn new(model_name: impl Into<String>) -> Self {
        Self {
            names: ModelNames::own(model_name).with_hosted_names(),
            keys: Keys::default(),
            media_fetch: fetch::Policy::default(),
            media_limits: fetch::Limits::default(),
            max_completion_tokens: 8192,
        }
    }
}

impl State {
    /// Joins an engine and the operator's settings.
    ///
    /// # Errors
    /// When the HTTP client for pictures can't be made.
    pub fn new(engine: Arc<dyn Answer>, settings: Settings) -> Result<Self, Error> {
        Ok(Self {
            max_completion_tokens: settings
                .max_completion_tokens
                .min(engine.info().max_completion_tokens)
                .max(1),
            engine,
            names: settings.names,
            keys: settings.keys,
            fetcher: fetch::Fetcher::new(settings.media_fetch, settings.media_limits)?,
            places: Arc::new(Semaphore::new(PLACES)),
            started_unix_s: unix_seconds(),
        })
    }
}

/// Requests that may be read, parsed and fetched at the same time. Each holds at most one body of
/// [`body::LIMIT_BYTES`] and the pictures it names.
const PLACES: usize = 64;

/// Why a server can't be made or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No HTTP client.
    #[error("the HTTP client for fetching pictures: {0}")]
    Client(String),
    /// The address can't be listened on.
    #[error("listening on {host} port {port}: {reason}")]
    Listen {
        /// The host asked for.
        host: String,
        /// The port asked for.
        port: u16,
        /// What the system says.
        reason: String,
    },
    /// Everybody in reach could use the model.
    #[error(
        "--host {host} can be reached from other machines, but no --api-key is set: set one, or accept requests from \
         everybody with --allow-no-key"
    )]
    Exposed {
        /// The host asked for.
        host: String,
    },
    /// Accepting connections failed.
    #[error("serving: {0}")]
    Serve(#[from] std::io::Error),
}

/// Alive: the process answers. Open to everyone, so that a supervisor needs no key.
async fn health() -> axum::Json<serde_json::Value> {
    axum::Json(serde_json::json!({"status": "ok"}))
}

/// Seconds since 1970; a clock before that counts as 0.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
