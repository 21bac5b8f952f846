//! What operators look at: metrics, readiness, and the way to a stop.

use super::*;
use crate::connections::{request, rest, start_app, start_app_with, until};

pub(crate) async fn metrics(app: &axum::Router) -> String {
    let request = HttpRequest::get("/metrics").body(Body::empty()).unwrap();
    let response = send(app.clone(), request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// The number behind a name, whatever its labels but this one.
pub(crate) fn number(page: &str, name: &str, label: &str) -> f64 {
    let line =
        page.lines().find(|line| line.starts_with(&format!("ocellus:{name}{{")) && line.contains(label));
    line.and_then(|line| line.rsplit_once(' '))
        .unwrap_or_else(|| panic!("{name} in {page}"))
        .1
        .parse()
        .unwrap()
}

#[tokio::test]
async fn metrics_count_what_was_answered() {
    let engine = Scripted::saying(&["a", "b", "c"]);
    let app = engine.app_with(keys);
    for stream in [false, true] {
        let body = chat(json!({"stream": stream})).to_string();
        let mut request = post(CHAT, body);
        request.headers_mut().insert("authorization", "Bearer sk-right".parse().unwrap());
        let response = send(app.clone(), request).await;
        response.into_body().collect().await.unwrap();
    }
    let page = metrics(&app).await;
    let check =
        |name: &str, label: &str, expected: f64| assert_eq!(number(&page, name, label), expected, "{name}");
    check("prompt_tokens_total", "", 2.0 * 1276.0);
    check("generation_tokens_total", "", 6.0);
    check("request_success_total", "\"stop\"", 2.0);
    check("request_success_total", "\"abort\"", 0.0);
    check("time_to_first_token_seconds_count", "", 2.0);
    check("inter_token_latency_seconds_count", "", 4.0);
    check("e2e_request_latency_seconds_count", "", 2.0);
    check("request_media_encode_time_seconds_count", "", 2.0);
    check("request_prompt_tokens_bucket", "le=\"2000.0\"", 2.0);
    assert!(page.contains("model_name=\"eye\""));
}

#[tokio::test]
async fn before_the_model_is_loaded() {
    let (router, opening) = ocellus_server::starting(ocellus_server::Page::Shown);
    let ask = async |method: &str, path: &str| {
        let body = Body::from(chat(json!({})).to_string());
        let request = HttpRequest::builder().method(method).uri(path).body(body).unwrap();
        read(send(router.clone(), request).await).await
    };
    assert!(ask("GET", "/health").await.starts_with("200 "));
    insta::assert_snapshot!("not_ready", ask("POST", CHAT).await);
    insta::assert_snapshot!("not_ready_native", ask("POST", "/api/v1/services/aigc").await);
    for path in ["/ready", "/metrics", "/v1/models"] {
        assert!(ask("GET", path).await.starts_with("503 "), "{path}");
    }
    opening.open(Scripted::saying(&["x"]).app());
    opening.open(axum::Router::new());
    for (method, path) in [("GET", "/ready"), ("GET", "/health"), ("GET", "/metrics"), ("POST", CHAT)] {
        assert!(ask(method, path).await.starts_with("200 "), "{path}");
    }
}

/// A request without a body on a connection of its own.
async fn get(port: u16, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_stopping_server_refuses_what_is_new_and_finishes_what_runs() {
    let (release, released) = tokio::sync::watch::channel(false);
    let engine = Scripted::new(vec![
        Step::Event(started()),
        Step::Until(released),
        Step::Event(finished(FinishReason::Stop)),
    ]);
    let (port, stop, serving) = start_app(engine.app());
    let client = request(port, &chat(json!({"stream": true})).to_string()).await;
    until(|| engine.running.load(Ordering::SeqCst) == 1).await;
    assert!(get(port, "/ready").await.starts_with("HTTP/1.1 200 "));
    stop.send(()).unwrap();
    // The signal takes effect in a task of its own.
    while get(port, "/ready").await.starts_with("HTTP/1.1 200 ") {}
    let refused = rest(request(port, &chat(json!({})).to_string()).await).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("Model is unavailable"), "{refused}");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    assert!(get(port, "/health").await.starts_with("HTTP/1.1 200 "));
    assert!(!serving.is_finished());
    release.send(true).unwrap();
    assert!(rest(client).await.contains("data: [DONE]"));
    serving.await.unwrap();
}

#[tokio::test]
async fn stopping_is_bounded() {
    let engine = Scripted::new(vec![Step::Event(started()), Step::Hang]);
    let (port, stop, serving) = start_app_with(engine.app(), Duration::from_millis(20));
    let _client = request(port, &chat(json!({})).to_string()).await;
    until(|| engine.running.load(Ordering::SeqCst) == 1).await;
    stop.send(()).unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn hosted_defaults_hold_for_what_a_request_leaves_out() {
    let engine = Scripted::saying(&["x"]);
    let app =
        engine.app_with(|settings| settings.sampling_defaults = ocellus_server::SamplingDefaults::Hosted);
    let ask = async |extra: Value| {
        assert_eq!(send(app.clone(), post(CHAT, chat(extra).to_string())).await.status(), 200);
        engine.last_request().sampling
    };
    let hosted = Sampling {
        temperature: 0.01,
        top_p: 0.001,
        top_k: 1,
        repetition_penalty: 1.0,
        presence_penalty: 1.5,
        seed: Some(1234),
        ..Sampling::default()
    };
    assert_eq!(ask(json!({})).await, hosted);
    let named = Sampling { top_k: 0, presence_penalty: 0.0, seed: Some(7), ..hosted };
    assert_eq!(ask(json!({"top_k": 0, "presence_penalty": 0, "seed": 7})).await, named);
}
