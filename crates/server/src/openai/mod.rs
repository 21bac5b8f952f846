//! The OpenAI-compatible dialect, under `/v1` and under the hosted service's `/compatible-mode/v1`.

mod choice;
mod request;
mod response;
mod route;
mod stream;

pub(crate) use choice::{Answer, Call, reason_with_calls};
pub(crate) use request::ChatRequest;
pub(crate) use response::{Logprobs, ToolCall};
pub(crate) use route::{bounds, request_for_choice, routes};
