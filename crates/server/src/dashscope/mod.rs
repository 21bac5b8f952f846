//! DashScope's own dialect, under `/api/v1`.

mod request;
mod response;
mod route;
mod stream;
mod upload;

use axum::http::HeaderMap;

pub(crate) use request::GenerationRequest;
pub(crate) use route::{bounds, routes};

/// Where files are uploaded to.
const UPLOADS: &str = "/api/v1/uploads";

/// Whether a switch of the dialect's is on: a header with the value `enable`.
pub(crate) fn enabled(headers: &HeaderMap, name: &str) -> bool {
    headers.get(name).is_some_and(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"enable"))
}
