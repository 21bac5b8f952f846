//! The routes of the dialect.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Path, Request, State as Shared};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ocellus_engine::Request as EngineRequest;
use serde_json::{Value, json};

use super::choice::Answer;
use super::request::{ChatRequest, LARGEST_SEED};
use super::response::{Completion, Stamp};
use super::stream::{Chunks, Wanted};
use crate::envelope::RequestId;
use crate::parameter::Bounds;
use crate::{BoxEvents, Refusal, State, answer, body, key, sse, unix_seconds};

/// `…/chat/completions`, `…/models` and `…/models/NAME` under both prefixes, behind the keys.
pub(crate) fn routes(state: &Arc<State>) -> Router<Arc<State>> {
    let routes = Router::new()
        .route("/chat/completions", post(chat))
        .route("/tokens/estimate", post(crate::estimate::estimate))
        .route("/models", get(models))
        // Names may have slashes.
        .route("/models/{*name}", get(model))
        .route_layer(middleware::from_fn_with_state(state.clone(), key::check));
    Router::new().nest("/v1", routes.clone()).nest("/compatible-mode/v1", routes)
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
    let wanted = Wanted {
        n: chat.n,
        usage: chat.include_usage,
        logprobs: chat.parameters.logprobs.is_some(),
        tools: !chat.structure.tools.is_empty(),
    };

    let reader = state.uploads.reader(&parts.headers);
    let conversation = chat.conversation.resolve(&state.uploads, reader, state.fetcher.limits()).await?;
    let request = EngineRequest {
        messages: conversation.fetch(&state.fetcher).await?,
        tools: chat.structure.tools,
        sampling: chat.parameters.sampling,
        max_tokens: Some(chat.parameters.max_tokens),
        stop: chat.parameters.stop,
        constraint: chat.structure.constraint,
        logprobs: chat.parameters.logprobs,
        ..EngineRequest::default()
    };
    // Dropping them, with the first refusal or when the client goes away, cancels them all.
    let mut choices: Vec<BoxEvents> =
        (0..wanted.n).map(|index| state.engine.submit(request_for_choice(&request, index))).collect();
    drop(request);
    drop(place);
    // Until here every refusal is a plain HTTP status, also for a stream.
    let mut started = None;
    for events in &mut choices {
        started = Some(answer::started(events).await?);
    }
    // All choices have the same prompt.
    let started = started.ok_or(Refusal::EngineFailure)?;
    let rewrite = |events| chat.coordinates.apply(events, &started);
    let choices = choices.into_iter().map(rewrite).collect::<Result<Vec<_>, _>>()?;
    let extension = state.extension(&started);

    let stamp = Stamp {
        id: format!("chatcmpl-{}", uuid::Uuid::new_v4()),
        created: unix_seconds(),
        model: chat.model,
    };
    if chat.stream {
        return Ok(sse::response(choices, Chunks::new(stamp, wanted, request_id).with(extension)));
    }
    let mut answers = Vec::with_capacity(choices.len());
    for events in choices {
        let (whole, finished) = answer::whole(events).await?;
        answers.push(Answer::new(whole, finished, wanted.tools));
    }
    let completion = Completion::new(&stamp, &answers, wanted.logprobs).with(extension.as_ref());
    Ok(axum::Json(completion).into_response())
}

/// The request for one of the choices. Each has a seed of its own, so that they differ and can be had again.
pub(crate) fn request_for_choice(request: &EngineRequest, index: usize) -> EngineRequest {
    let mut request = request.clone();
    request.sampling.seed = request.sampling.seed.map(|seed| seed.wrapping_add(index as u64));
    request
}

/// Off the threads that serve connections: megabytes of JSON and base64 take a while.
async fn parse(state: &Arc<State>, bytes: Vec<u8>) -> Result<ChatRequest, Refusal> {
    let state = state.clone();
    let parsed =
        tokio::task::spawn_blocking(move || ChatRequest::parse(&bytes, &state.names, &bounds(&state)));
    parsed.await.unwrap_or_else(|error| {
        tracing::error!(%error, "reading a request panicked");
        Err(Refusal::EngineFailure)
    })
}

/// What requests of this dialect may ask for.
pub(crate) fn bounds(state: &State) -> Bounds {
    Bounds {
        sampling: state.engine.info().default_sampling.clone(),
        max_completion_tokens: state.max_completion_tokens,
        largest_seed: LARGEST_SEED,
    }
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
