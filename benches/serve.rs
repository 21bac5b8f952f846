//! Requests through the server, without a network, answered by the tiny built-in model: what is around a model costs
//! little beside it. `cargo bench -p ocellus-benches --bench serve`.

use std::{path::Path, sync::Arc};

use anyhow::{Result, ensure};
use axum::{
    Router,
    body::Body,
    http::{Request, header::CONTENT_TYPE},
};
use divan::{Bencher, counter::ItemsCount};
use http_body_util::BodyExt;
use ocellus_engine::{Engine, Options, Source};
use ocellus_server::{Settings, State, app};
use tower::ServiceExt;

fn main() {
    divan::main();
}

/// So many clients at once, each with one question and an answer of up to eight tokens; items are requests.
#[divan::bench(args = [1, 4])]
fn chat(bencher: Bencher<'_, '_>, clients: usize) {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let app = built_in().expect("the built-in model is part of the repository");
    bencher.counter(ItemsCount::new(clients)).bench_local(|| {
        runtime.block_on(async {
            let answers: Vec<_> = (0..clients).map(|_| tokio::spawn(ask(app.clone()))).collect();
            for answer in answers {
                answer.await.expect("no request panics").expect("the question is a valid one");
            }
        });
    });
}

fn built_in() -> Result<Router> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano");
    let engine = Engine::load(&Source::folder(folder), &Options::default(), &|_| {})?;
    Ok(app(State::new(Arc::new(engine), Settings::new("nano"))?))
}

async fn ask(app: Router) -> Result<()> {
    let body =
        r#"{"model": "nano", "max_tokens": 8, "messages": [{"role": "user", "content": "What is this?"}]}"#;
    let request = Request::post("/v1/chat/completions").header(CONTENT_TYPE, "application/json");
    let response = app.oneshot(request.body(Body::from(body))?).await?;
    let status = response.status();
    response.into_body().collect().await?;
    ensure!(status.is_success(), "the server gives {status}");
    Ok(())
}
