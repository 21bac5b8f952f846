//! What goes around every answer: a request id, the body of a refusal in the dialect of the path, a 500 in place of a
//! panic, and one line in the log. Every other line that a request causes carries its id too.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt;
use tracing::Instrument;

use crate::{Dialect, Refusal, answer_body};

/// The id of a request, in its extensions for handlers and in the `x-request-id` header for clients.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

/// The outermost layer.
pub(crate) async fn wrap(mut request: Request, next: Next) -> Response {
    let since = Instant::now();
    let id = uuid::Uuid::new_v4().to_string();
    let dialect = Dialect::of_path(request.uri().path());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(RequestId(id.clone()));

    // Of the highest level, so that no filter takes the id from the lines that it lets pass.
    let span = tracing::error_span!("request", request_id = id);
    let answered = AssertUnwindSafe(next.run(request).instrument(span.clone())).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|_| {
        let _entered = span.enter();
        tracing::error!("a handler panicked");
        Refusal::EngineFailure.answer(dialect, &id)
    });
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        // The router's own headers, such as Allow, stay.
        let headers = std::mem::take(response.headers_mut());
        response = refusal.answer(dialect, &id);
        for (name, value) in &headers {
            if !response.headers().contains_key(name) && name != axum::http::header::CONTENT_LENGTH {
                response.headers_mut().insert(name, value.clone());
            }
        }
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", value);
    }
    let status = response.status().as_u16();
    span.in_scope(|| {
        tracing::info!(%method, path, status, ms = since.elapsed().as_millis() as u64, "answered");
    });
    response.map(|body| answer_body::in_span(body, span))
}
