//! HTTP in, JSON and server-sent events out.
//!
//! A request of the OpenAI-compatible dialect or of DashScope's own comes in as bytes and leaves as the engine's own
//! [`Request`](ocellus_engine::Request), or as a [`Refusal`] that knows its status and its body in both dialects;
//! the engine's events go out as JSON or as an event stream.
//! **Absent here:** tensors, devices, files of a checkpoint, tokenizing, and paths on this machine, but those below the one
//! folder that an operator may open: what a request names is text, a data URI, a file uploaded before with the same key,
//! or a URL that the [`fetch::Policy`] admits.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod answer;
mod answer_body;
mod body;
mod connection;
mod conversation;
mod coordinates;
mod dashscope;
mod data_uri;
mod definition;
mod envelope;
mod estimate;
mod extension;
pub mod fetch;
mod key;
mod kind;
mod media_root;
mod metered;
mod metrics;
mod model_name;
mod openai;
mod openapi;
mod origin;
mod page;
mod parameter;
mod refusal;
mod sampling_defaults;
mod serve;
mod sse;
mod starting;
mod structure;
mod tool_call;
mod uploads;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State as Shared;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use extension::Extension;
use metered::Metered;
use metrics::Metrics;
use ocellus_engine::Started;
use tokio::sync::Semaphore;

pub use answer::{Answer, BoxEvents};
pub use connection::ConnectionLimits;
pub use key::Keys;
pub use media_root::MediaRoot;
pub use model_name::ModelNames;
pub use origin::AllowedOrigin;
pub use page::Page;
pub use refusal::{Dialect, Refusal};
pub use sampling_defaults::SamplingDefaults;
pub use serve::{Bind, Serving, serve};
pub use starting::{Opening, starting};
pub use uploads::PublicUrl;

/// The whole HTTP surface. It needs no port: tests call it with `oneshot`.
///
/// Unless [`Settings::extensions`] is off, an answer about pictures or clips has a key that the dialects don't know,
/// `"ocellus": {"media": [{kind, original, seen, scale, tokens, frames}]}`: beside `choices` of a whole answer, and of the
/// first chunk of a stream.
pub fn app(state: State) -> Router {
    let state = Arc::new(state);
    Router::new()
        .merge(page::routes(state.page))
        .merge(openai::routes(&state))
        .merge(dashscope::routes(&state))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(show_metrics))
        .route("/openapi.json", get(describe))
        .fallback(async || Refusal::PathUnknown)
        .method_not_allowed_fallback(async |method: axum::http::Method| Refusal::MethodWrong {
            method: method.to_string(),
        })
        .layer(axum::middleware::from_fn_with_state(state.clone(), origin::check))
        .layer(axum::middleware::from_fn(envelope::wrap))
        .with_state(state)
}

/// What all requests share.
pub struct State {
    engine: Arc<dyn Answer>,
    metrics: Arc<Metrics>,
    names: ModelNames,
    keys: Keys,
    fetcher: fetch::Fetcher,
    uploads: Arc<uploads::Uploads>,
    public_url: Option<PublicUrl>,
    allowed_origins: Vec<AllowedOrigin>,
    extensions: bool,
    page: Page,
    /// What the operator allows, or what the model can, whichever is less.
    max_completion_tokens: usize,
    /// Places for requests whose bodies and pictures are held in memory but not yet handed to the engine, which
    /// has a bounded queue of its own. Nobody waits here: without a place the answer is 429.
    places: Arc<Semaphore>,
    /// Turns for counting requests, which decodes their pictures.
    estimates: Semaphore,
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
    /// The folder whose files requests may name.
    pub media_root: Option<MediaRoot>,
    /// Bounds of each fetch.
    pub media_limits: fetch::Limits,
    /// Where clients reach this server, for the address they upload files to; without it, what they have in their
    /// `Host` header.
    pub public_url: Option<PublicUrl>,
    /// Sites whose pages may call this server from a browser, besides those of this machine.
    pub allowed_origins: Vec<AllowedOrigin>,
    /// Say in each answer how large pictures and clips were seen; see [`app`].
    pub extensions: bool,
    /// Show a page at `/`, on which the model can be tried; it is open to everyone, keys or not.
    pub page: Page,
    /// What is taken for sampling parameters that a request leaves out.
    pub sampling_defaults: SamplingDefaults,
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
            media_root: None,
            media_limits: fetch::Limits::default(),
            public_url: None,
            allowed_origins: Vec::new(),
            extensions: true,
            page: Page::default(),
            sampling_defaults: SamplingDefaults::default(),
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
        let metrics = Arc::new(Metrics::new());
        let mut info = engine.info().clone();
        info.default_sampling = settings.sampling_defaults.sampling(&info.default_sampling);
        Ok(Self {
            max_completion_tokens: settings
                .max_completion_tokens
                .min(engine.info().max_completion_tokens)
                .max(1),
            engine: Arc::new(Metered::new(engine, info, metrics.clone())),
            metrics,
            names: settings.names,
            keys: settings.keys,
            fetcher: fetch::Fetcher::new(settings.media_fetch, settings.media_limits)?
                .with_root(settings.media_root),
            uploads: uploads::Uploads::new(uploads::Limits::default()),
            public_url: settings.public_url,
            allowed_origins: settings.allowed_origins,
            extensions: settings.extensions,
            page: settings.page,
            places: Arc::new(Semaphore::new(PLACES)),
            estimates: Semaphore::new(ESTIMATES),
            started_unix_s: unix_seconds(),
        })
    }
}

impl State {
    /// What an answer to this request says beyond the dialects, if the operator lets it.
    pub(crate) fn extension(&self, started: &Started) -> Option<Extension> {
        if self.extensions { Extension::new(started) } else { None }
    }
}

/// Requests that may be read, parsed and fetched at the same time. Each holds at most one body of
/// [`body::LIMIT_BYTES`] and the pictures it names.
const PLACES: usize = 64;

/// Requests that are counted at the same time. Each holds at most one decoded picture.
const ESTIMATES: usize = 2;

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
    /// The folder for local files can't be used.
    #[error("--media-root {}: {reason}", .folder.display())]
    MediaRoot {
        /// The folder asked for.
        folder: std::path::PathBuf,
        /// Why not.
        reason: String,
    },
    /// Accepting connections failed.
    #[error("serving: {0}")]
    Serve(#[from] std::io::Error),
}

/// Alive: the process answers. Open to everyone, so that a supervisor needs no key.
async fn health() -> axum::Json<serde_json::Value> {
    axum::Json(serde_json::json!({"status": "ok"}))
}

/// Able to answer: this surface exists only once the model is loaded. See [`starting`] for the time before, and
/// [`serve`] for the time after.
async fn ready() -> axum::Json<serde_json::Value> {
    axum::Json(serde_json::json!({"status": "ready"}))
}

/// Numbers for Prometheus. Open to everyone, as scrapers expect; there is nothing of a request's content in them.
async fn show_metrics(Shared(state): Shared<Arc<State>>) -> impl IntoResponse {
    let model_name = state.names.iter().next().unwrap_or_default();
    let page = state.metrics.render(model_name, &state.engine.load_now());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page)
}

/// The surface, described. Open to everyone, as it holds nothing but what every server of this version has.
async fn describe(Shared(state): Shared<Arc<State>>) -> axum::Json<serde_json::Value> {
    axum::Json(openapi::document(&openai::bounds(&state), &dashscope::bounds(&state)))
}

/// Seconds since 1970; a clock before that counts as 0.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
