//! Everything that can be wrong with what comes from outside, sent through the whole house: each fault gets its exact
//! words, nothing panics, and the server answers the next one. Wrong command lines are tested with the binary, in
//! `crates/cli`.

#![allow(clippy::unwrap_used)]

mod checkpoints;
mod pictures;
mod requests;

use std::fmt::Write;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{Router, body::Body};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::BodyExt;
use ocellus_engine::{Engine, Model, Options};
use ocellus_server::{Settings, State, app};
use ocellus_tests::{house, picture};
use serde_json::{Value, json};
use tower::ServiceExt;

/// The router with the nano model behind it, as `ocellus serve` makes it.
struct Server {
    app: Router,
}

/// What a refused client reads.
#[derive(Clone, Copy, Debug)]
struct Refused {
    status: u16,
    /// `error.code`; null where it is empty.
    code: &'static str,
    message: &'static str,
}

/// A parameter, a message or a picture that makes no sense: most refusals.
const fn invalid(message: &'static str) -> Refused {
    Refused { status: 400, code: "invalid_parameter_error", message }
}

impl Server {
    fn start() -> Self {
        Self::with(house::nano().unwrap())
    }

    fn with(model: Model) -> Self {
        count_panics();
        let engine = Engine::start(model, &Options::default()).unwrap();
        let state = State::new(std::sync::Arc::new(engine), Settings::new("eye")).unwrap();
        Self { app: app(state) }
    }

    async fn send(&self, method: &str, path: &str, body: impl Into<Body>) -> (u16, String) {
        let request = axum::http::Request::builder().method(method).uri(path).body(body.into()).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.into()).unwrap())
    }

    /// Sends what must be refused, and looks whether the server is alive. Adds a word to `wrong` when either fails.
    async fn check(&self, name: &str, sent: (&str, &str, Vec<u8>), expected: Refused, wrong: &mut String) {
        let (method, path, body) = sent;
        let (status, text) = self.send(method, path, body).await;
        let found: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let id = found["request_id"].as_str().unwrap_or_default();
        let code = if expected.code.is_empty() { Value::Null } else { expected.code.into() };
        let error = json!({"message": expected.message, "type": "invalid_request_error", "param": null, "code": code});
        let body = json!({"error": error, "request_id": id}).to_string();
        if (status, text.as_str()) != (expected.status, &body) || id.len() != 36 {
            let _ =
                writeln!(wrong, "{name}\n   found: {status} {text}\nexpected: {} {body}", expected.status);
        }
        let health = self.send("GET", "/health", Body::empty()).await;
        if health != (200, r#"{"status":"ok"}"#.to_owned()) {
            let _ = writeln!(wrong, "{name}: the server is ill afterwards: {health:?}");
        }
    }

    /// After all the bad ones: a good request with a picture is answered, and nothing panicked on the way.
    async fn still_answers(&self) {
        let url = data_uri(&picture::bmp(60, 90));
        let body = json!({"model": "eye", "max_tokens": 2, "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]}]});
        let (status, text) = self.send("POST", "/v1/chat/completions", body.to_string()).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &answer["usage"]["completion_tokens"]), (200, &json!(2)), "{text}");
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "panics, even contained ones");
    }
}

/// A picture as a client sends it, whatever it is.
fn data_uri(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(bytes))
}

/// Panics of all threads. A decoder's or the engine's panic is contained and would otherwise go unseen.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            before(panic);
        }));
    });
}
