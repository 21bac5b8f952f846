//! Pictures by URL, from a file server on this machine.

use axum::Router;
use axum::routing::get;
use ocellus_engine::Part;
use ocellus_server::fetch::{Limits, Policy};

use super::*;

/// Serves `/slow`, which ends only after `/fast` was asked for, and `/large` with 50 bytes.
async fn file_server() -> u16 {
    let asked = Arc::new(tokio::sync::Notify::new());
    let notify = asked.clone();
    let slow = get(async move || {
        asked.notified().await;
        "slow"
    });
    let fast = get(async move || {
        notify.notify_one();
        "fast"
    });
    let files =
        Router::new().route("/slow", slow).route("/fast", fast).route("/large", get(async || [7u8; 50]));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async { axum::serve(listener, files).await.unwrap() });
    port
}

/// Asks about these files; what the engine got, or the message of the refusal.
async fn ask(port: u16, paths: &[&str]) -> Result<Vec<String>, String> {
    let engine = Scripted::saying(&["x"]);
    let app = engine.app_with(|settings| {
        settings.media_fetch = Policy::AllowList(vec![format!("127.0.0.1:{port}").parse().unwrap()]);
        settings.media_limits = Limits { file_bytes: 50, request_bytes: 120, ..Limits::default() };
    });
    let part = |path: &&str| {
        let url =
            if path.starts_with('/') { format!("http://127.0.0.1:{port}{path}") } else { (*path).to_owned() };
        json!({"type": "image_url", "image_url": {"url": url}})
    };
    let content: Vec<Value> = paths.iter().map(part).collect();
    let body = chat(json!({"messages": [{"role": "user", "content": content}]}));
    let response = send(app, post(CHAT, body.to_string())).await;
    if response.status() != 200 {
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        return Err(body["error"]["message"].as_str().unwrap().to_owned());
    }
    let bytes = |part: &Part| match part {
        Part::Image(image) => String::from_utf8_lossy(&image.bytes).into_owned(),
        other => panic!("{other:?}"),
    };
    Ok(engine.last_request().messages[0].parts.iter().map(bytes).collect())
}

#[tokio::test]
async fn files_are_fetched_side_by_side_and_kept_in_order() {
    let port = file_server().await;
    let expected = ["slow", "hi", "fast"].map(str::to_owned);
    assert_eq!(ask(port, &["/slow", "data:;base64,aGk=", "/fast"]).await, Ok(expected.into()));
}

#[tokio::test]
async fn all_files_together_are_bounded() {
    let port = file_server().await;
    assert_eq!(ask(port, &["/large", "/large"]).await.map(|files| files.len()), Ok(2));
    let refused = ask(port, &["/large", "/large", "/large"]).await;
    assert_eq!(refused, Err("Multimodal file size is too large".into()));
}

#[tokio::test]
async fn one_missing_file_refuses_the_request() {
    let port = file_server().await;
    let refused = ask(port, &["/large", "/none"]).await;
    assert_eq!(refused, Err("Failed to download multimodal content.".into()));
    let refused = ask(port, &["/large", "http://169.254.169.254/latest"]).await;
    assert!(refused.is_err_and(|message| message.starts_with("Failed to download multimodal content.")));
}

#[tokio::test]
async fn local_files_only_below_the_folder_that_was_opened() {
    let ask = async |url: String, root: Option<&std::path::Path>| {
        let engine = Scripted::saying(&["x"]);
        let app = engine.app_with(|settings| {
            settings.media_fetch = Policy::Off;
            settings.media_root = root.map(|root| ocellus_server::MediaRoot::new(root).unwrap());
        });
        let content = json!([{"type": "image_url", "image_url": {"url": url}}]);
        let body = chat(json!({"messages": [{"role": "user", "content": content}]}));
        let response = send(app, post(CHAT, body.to_string())).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    };
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().unwrap();
    let inside = format!("file://{}/src/lib.rs", folder.display());
    assert_eq!(ask(inside.clone(), Some(&folder)).await.0, 200);
    let (status, body) = ask(format!("file://{}/../cli/src/main.rs", folder.display()), Some(&folder)).await;
    assert!(status == 400 && body.contains("Failed to download multimodal content."), "{body}");
    for url in
        [inside.clone(), inside.replace("file://", ""), inside.replace("file:///", "file://elsewhere/")]
    {
        let (status, body) = ask(url, None).await;
        assert!(status == 400 && body.contains("The provided URL does not appear to be valid"), "{body}");
    }
}
