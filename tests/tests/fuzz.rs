//! A short run of the fuzzer against the server in this process, so that what it finds first is found by every test run;
//! `scripts/check fuzz-api` is the long one, against the real binary.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ocellus_engine::{Engine, Options};
use ocellus_server::{Bind, ConnectionLimits, Keys, Serving, Settings, State, app, fetch, serve};
use ocellus_tests::fuzz::{Case, Connection, Document, Target, storm};
use ocellus_tests::house;
use serde_json::Value;

const KEY: &str = "sk-fuzz";

const CASES: u64 = 400;

/// Panics of all threads. The server contains them, so nobody else would see them.
static PANICS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_short_storm() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(panic);
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let address = start(&runtime);
    let json = |path: &str| -> Value {
        let answer = Connection::open(address).unwrap().send(&Case::good(path, KEY, None)).unwrap().unwrap();
        assert_eq!(answer.status, 200, "{path}");
        serde_json::from_slice(&answer.body).unwrap()
    };
    let document = Document::new(&json("/openapi.json")).unwrap();
    let target = Target { address, document: &document, models: &["eye".to_owned()], key: KEY, seed: 7 };
    let figures = storm(&target, 0..CASES, 2);

    assert!(figures.violations.is_empty(), "{:#?}", figures.violations);
    assert_eq!(PANICS.load(Ordering::Relaxed), 0, "panics, even contained ones");
    assert!(figures.requests >= CASES);
    // A fuzzer whose requests are all refused tests nothing behind the first refusal.
    for (path, counts) in &figures.answers {
        if path.starts_with("POST ") {
            assert!(counts[2] > 0 && counts[4] > 0, "{path}: {counts:?}");
        }
    }
    assert_eq!(json("/health")["status"], "ok");
}

/// Serves the nano model with short answers.
fn start(runtime: &tokio::runtime::Runtime) -> SocketAddr {
    let options = Options { context_tokens: Some(512), ..Options::default() };
    let engine = Engine::start(house::nano().unwrap(), &options).unwrap();
    let mut settings = Settings::new("eye");
    settings.keys = Keys::new([KEY]);
    settings.media_fetch = fetch::Policy::Off;
    settings.max_completion_tokens = 4;
    let bind = Bind { host: "127.0.0.1".into(), port: 0, allow_no_key: false };
    let listener = bind.listen(&settings.keys).unwrap();
    let address = listener.local_addr().unwrap();
    let router = app(State::new(Arc::new(engine), settings).unwrap());
    let serving = Serving { drain: Duration::ZERO, connections: ConnectionLimits::default() };
    runtime.spawn(serve(listener, router, serving, std::future::pending()));
    address
}
