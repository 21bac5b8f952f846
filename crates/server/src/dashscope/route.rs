//! The routes of the dialect.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request, State as Shared};
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ocellus_engine::Request as EngineRequest;

use super::request::{GenerationRequest, LARGEST_SEED};
use super::response::{self, Extras, Frame};
use super::stream::Events;
use super::{UPLOADS, enabled, upload};
use crate::envelope::RequestId;
use crate::openai::{Answer, request_for_choice};
use crate::parameter::Bounds;
use crate::{BoxEvents, Refusal, State, answer, body, key, sse};

const GENERATION: &str = "/api/v1/services/aigc/multimodal-generation/generation";

/// The call and the way to a certificate for uploads behind the keys, the upload itself behind its certificate.
pub(crate) fn routes(state: &Arc<State>) -> Router<Arc<State>> {
    Router::new()
        .route(GENERATION, post(generate))
        .route("/api/v1/tokens/estimate", post(crate::estimate::estimate))
        .route(UPLOADS, get(upload::policy))
        .route_layer(middleware::from_fn_with_state(state.clone(), key::check))
        .route(UPLOADS, post(upload::file))
}

async fn generate(
    Shared(state): Shared<Arc<State>>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, rest) = request.into_parts();
    let refused = if enabled(&parts.headers, "x-dashscope-async") {
        Err(Refusal::AsynchronousCall)
    } else {
        state.places.clone().try_acquire_owned().map_err(|_| Refusal::Busy)
    };
    let place = match refused {
        Ok(place) => place,
        Err(refusal) => {
            body::drain(&parts.headers, rest).await;
            return Err(refusal);
        }
    };
    let bytes = body::read(&parts.headers, rest).await?;
    let generation = parse(&state, bytes).await?;
    let extras = Extras {
        n: generation.n,
        tools: !generation.structure.tools.is_empty(),
        logprobs: generation.parameters.logprobs.is_some(),
        image_hw: generation.image_hw,
    };

    let reader = state.uploads.reader(&parts.headers);
    let conversation =
        generation.conversation.resolve(&state.uploads, reader, state.fetcher.limits()).await?;
    let request = EngineRequest {
        messages: conversation.fetch(&state.fetcher).await?,
        tools: generation.structure.tools,
        sampling: generation.parameters.sampling,
        max_tokens: Some(generation.parameters.max_tokens),
        stop: generation.parameters.stop,
        constraint: generation.structure.constraint,
        logprobs: generation.parameters.logprobs,
        ..EngineRequest::default()
    };
    // Dropping them, with the first refusal or when the client goes away, cancels them all.
    let mut choices: Vec<BoxEvents> =
        (0..extras.n).map(|index| state.engine.submit(request_for_choice(&request, index))).collect();
    drop(request);
    drop(place);
    // Until here every refusal is a plain HTTP status, also for a stream.
    let mut started = None;
    for events in &mut choices {
        started = Some(answer::started(events).await?);
    }
    // All choices have the same prompt.
    let started = started.ok_or(Refusal::EngineFailure)?;
    let rewrite = |events| generation.coordinates.apply(events, &started);
    let choices = choices.into_iter().map(rewrite).collect::<Result<Vec<_>, _>>()?;

    let frame = Frame::new(request_id, &started, state.extension(&started), extras);
    // This header alone chooses, whatever the body says.
    if enabled(&parts.headers, "x-dashscope-sse") {
        let mut response = sse::response(choices, Events::new(frame, generation.incremental));
        let kind = HeaderValue::from_static("text/event-stream;charset=UTF-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        return Ok(response);
    }
    let mut answers = Vec::with_capacity(choices.len());
    for events in choices {
        let (whole, finished) = answer::whole(events).await?;
        answers.push(Answer::new(whole, finished, extras.tools));
    }
    Ok(axum::Json(response::whole(&frame, &answers)).into_response())
}

/// Off the threads that serve connections: megabytes of JSON and base64 take a while.
async fn parse(state: &Arc<State>, bytes: Vec<u8>) -> Result<GenerationRequest, Refusal> {
    let state = state.clone();
    let parsed =
        tokio::task::spawn_blocking(move || GenerationRequest::parse(&bytes, &state.names, &bounds(&state)));
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
