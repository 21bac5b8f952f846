//! The routes of the dialect.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Path, Request, State as Shared};
use axum::http::header::AUTHORIZATION;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ocellus_engine::Request as EngineRequest;
use serde_json::{Value, json};

use super::request::{ChatRequest, LARGEST_SEED};
use super::response::{Completion, Stamp};
use super::stream::Chunks;
use crate::envelope::RequestId;
use crate::parameter::Bounds;
use crate::{Refusal, State, answer, body, sse, unix_seconds};

/// `…/chat/completions`, `…/models` and `…/models/NAME` under both prefixes, behind the keys.
pub(crate) fn routes(state: &Arc<State>) -> Router<Arc<State>> {
    let routes = Router::new()
        .route("/chat/completions", post(chat))
        .route("/models", get(models))
        // Names may have slashes.
        .route("/models/{*name}", get(model))
        .route_layer(middleware::from_fn_with_state(state.clone(), check_key));
    Router::new().nest("/v1", routes.clone()).nest("/compatible-mode/v1", routes)
}

/// Before anything else is read.
async fn check_key(
    Shared(state): Shared<Arc<State>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    if let Err(refusal) = state.keys.check(request.headers().get(AUTHORIZATION)) {
        let (parts, rest) = request.into_parts();
        body::drain(&parts.headers, rest).await;
        return Err(refusal);
    }
    Ok(next.run(request).await)
}

async fn chat(
    Shared(state): Shared<Arc<State>>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, rest) = request.into_parts();
    let Ok(place) = state.places.clone().try_acquire_owned() else {
        body::drain(&parts.headers, rest).await;
        return Err(Refusal::Busy);
    };
    let bytes = body::read(&parts.headers, rest).await?;
    let chat = parse(&state, bytes).await?;
    let with_logprobs = chat.parameters.logprobs.is_some();

    let request = EngineRequest {
        messages: chat.conversation.fetch(&state.fetcher).await?,
        sampling: chat.parameters.sampling,
        max_tokens: Some(chat.parameters.max_tokens),
        stop: chat.parameters.stop,
        logprobs: chat.parameters.logprobs,
        ..EngineRequest::default()
    };
    let mut events = state.engine.submit(request);
    drop(place);
    // Until here every refusal is a plain HTTP status, also for a stream.
    answer::started(&mut events).await?;

    let stamp = Stamp {
        id: format!("chatcmpl-{}", uuid::Uuid::new_v4()),
        created: unix_seconds(),
        model: chat.model,
    };
    if chat.stream {
        let chunks = Chunks { stamp, include_usage: chat.include_usage, with_logprobs, request_id };
        return Ok(sse::response(events, chunks));
    }
    let (answer, finished) = answer::whole(events).await?;
    Ok(axum::Json(Completion::new(&stamp, &answer, &finished, with_logprobs)).into_response())
}

/// Off the threads that serve connections: megabytes of JSON and base64 take a while.
async fn parse(state: &Arc<State>, bytes: Vec<u8>) -> Result<ChatRequest, Refusal> {
    let state = state.clone();
    let parsed = tokio::task::spawn_blocking(move || {
        let bounds = Bounds {
            sampling: state.engine.info().default_sampling.clone(),
            max_completion_tokens: state.max_completion_tokens,
            largest_seed: LARGEST_SEED,
        };
        ChatRequest::parse(&bytes, &state.names, &bounds)
    });
    parsed.await.unwrap_or_else(|error| {
        tracing::error!(%error, "reading a request panicked");
        Err(Refusal::EngineFailure)
    })
}

/// Every name the model answers to, its own first.
async fn models(Shared(state): Shared<Arc<State>>) -> axum::Json<Value> {
    let data: Vec<Value> = state.names.iter().map(|name| model_entry(name, state.started_unix_s)).collect();
    axum::Json(json!({"object": "list", "data": data}))
}

async fn model(
    Shared(state): Shared<Arc<State>>,
    name: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<axum::Json<Value>, Refusal> {
    // A name that is not UTF-8 is no name of ours.
    let name = name.map_or_else(|_| String::new(), |Path(name)| name);
    if !state.names.knows(&name) {
        return Err(Refusal::ModelUnknown { name });
    }
    Ok(axum::Json(model_entry(&name, state.started_unix_s)))
}

fn model_entry(name: &str, created: u64) -> Value {
    json!({"id": name, "object": "model", "created": created, "owned_by": "ocellus"})
}
