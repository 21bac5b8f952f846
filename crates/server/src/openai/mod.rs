//! The OpenAI-compatible dialect, under `/v1` and under the hosted service's `/compatible-mode/v1`.

mod request;
mod response;
mod route;
mod stream;

pub(crate) use route::routes;
