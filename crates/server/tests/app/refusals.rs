//! Every way to be refused.

use ocellus_engine::{Error, MediaFault};
use ocellus_server::{Dialect, Refusal};

use super::*;

#[tokio::test]
async fn what_the_engine_refuses_is_a_plain_status() {
    let media = |reason| Error::Media { index: 0, reason };
    for (error, status, message) in [
        (Error::NoUserMessage, 400, "The input messages do not contain elements with the role of user."),
        (Error::ContextLength { tokens: 9, limit: 5 }, 400, "Range of input length should be [1, 5]"),
        (Error::InvalidRequest("tools are odd".into()), 400, "tools are odd"),
        (
            media(MediaFault::Size { height: 10, width: 300 }),
            400,
            "The image length and width do not meet the model restrictions. [height:10 or width:300 must be larger \
             than 10]",
        ),
        (
            media(MediaFault::Size { height: 11, width: 3000 }),
            400,
            "The image length and width do not meet the model restrictions. [height:11 or width:3000 must be larger \
             than 10] The aspect ratio must not exceed 200.",
        ),
        (
            media(MediaFault::UnknownFormat("x".into())),
            400,
            "The file format is illegal and cannot be opened.",
        ),
        (
            media(MediaFault::Broken("x".into())),
            400,
            "Failed to decode the image during the data inspection.",
        ),
        (
            media(MediaFault::TooLarge("x".into())),
            400,
            "Multimodal file size is too large: the image has too many pixels.",
        ),
        (media(MediaFault::Clip("no frames".into())), 400, "no frames"),
        (Error::Busy { waiting: 64 }, 429, "Requests rate limit exceeded, please try again later."),
        (
            Error::CacheFull { needed: 2, free: 1 },
            429,
            "Requests rate limit exceeded, please try again later.",
        ),
        (Error::Internal("secret".into()), 500, "Internal server error."),
        (Error::Tokenizer { file: "secret".into(), reason: "secret".into() }, 500, "Internal server error."),
    ] {
        for stream in [false, true] {
            let engine = Scripted::new(vec![Step::Event(Event::Failed(error.clone()))]);
            let response = send(engine.app(), post(CHAT, chat(json!({"stream": stream})).to_string())).await;
            let (head, body) = response.into_parts();
            let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
            assert_eq!(
                (head.status.as_u16(), &body["error"]["message"]),
                (status, &json!(message)),
                "{error:?}"
            );
            assert_eq!(head.headers["content-type"], "application/json");
            assert_eq!(head.headers["x-request-id"].to_str().ok(), body["request_id"].as_str());
            assert_eq!(head.headers.contains_key("retry-after"), status == 429);
            assert_eq!(head.headers.contains_key("x-should-retry"), status == 500);
        }
    }
}

/// Both bodies of each refusal, one per line.
#[test]
fn vocabulary() {
    let refusals = [
        Refusal::KeyMissing,
        Refusal::KeyWrong,
        Refusal::OriginForbidden,
        Refusal::AsynchronousCall,
        Refusal::PathUnknown,
        Refusal::MethodWrong { method: "PUT".into() },
        Refusal::BodyTooLarge { limit_bytes: 67_108_864 },
        Refusal::BodyTimedOut,
        Refusal::BodyMalformed,
        Refusal::ModelMissing,
        Refusal::ModelUnknown { name: "X".into() },
        Refusal::InputMissing,
        Refusal::MessagesMissing,
        Refusal::MessagesEmpty,
        Refusal::NoUserMessage,
        Refusal::ToolMessageUnasked,
        Refusal::WrongType { name: "temperature".into(), expected: "Float" },
        Refusal::BadValue { message: "Temperature should be in [0.0, 2.0)".into() },
        Refusal::NotSupported { what: "'tools'".into() },
        Refusal::UrlInvalid,
        Refusal::DataUriTooLarge { limit: 10_485_760 },
        Refusal::MediaTooLarge,
        Refusal::TooManyMedia { count: 513, limit: 512 },
        Refusal::FetchOff,
        Refusal::FetchForbidden,
        Refusal::DownloadFailed,
        Refusal::DownloadTimedOut,
        Refusal::UploadForbidden { reason: "The policy has expired." },
        Refusal::UploadExists,
        Refusal::UploadsFull,
        Refusal::ImageBroken,
        Refusal::ImageFormatUnknown,
        Refusal::ImageSides { height: 5, width: 100 },
        Refusal::ImageSides { height: 11, width: 3000 },
        Refusal::ImageTooManyPixels,
        Refusal::FrameCount,
        Refusal::PromptTooLong { limit: 129_024 },
        Refusal::Busy,
        Refusal::EngineFailure,
        Refusal::NotReady,
    ];
    let line = |refusal: &Refusal| {
        let body = |dialect| refusal.body(dialect, "<uuid>");
        format!("{}\n  {}\n  {}\n", refusal.status(), body(Dialect::Compatible), body(Dialect::Native))
    };
    insta::assert_snapshot!(refusals.iter().map(line).collect::<String>());
}

#[tokio::test]
async fn paths_and_methods() {
    let engine = Scripted::saying(&["x"]);
    let ask = async |method: &str, path: &str| {
        let request = HttpRequest::builder().method(method).uri(path).body(Body::from("{}")).unwrap();
        read(send(engine.app(), request).await).await
    };
    insta::assert_snapshot!("path_unknown", ask("GET", "/v2/chat").await);
    insta::assert_snapshot!("path_unknown_native", ask("POST", "/api/v1/services/aigc/nothing").await);
    insta::assert_snapshot!("method_wrong", ask("GET", CHAT).await);
    for (method, path) in [("PUT", CHAT), ("POST", "/v1/models"), ("DELETE", "/health"), ("BREW", CHAT)] {
        let answer = ask(method, path).await;
        assert!(answer.starts_with("405 ") && answer.contains(&format!("'{method}'")), "{answer}");
    }
}

#[tokio::test]
async fn a_content_type_does_not_matter() {
    let engine = Scripted::saying(&["x"]);
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("a;b=c")] {
        let mut request = HttpRequest::post(CHAT);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let response = send(engine.app(), request.body(chat(json!({})).to_string().into()).unwrap()).await;
        assert_eq!(response.status(), 200, "{kind:?}");
    }
}

#[tokio::test]
async fn bodies() {
    let engine = Scripted::saying(&["x"]);
    insta::assert_snapshot!("body_malformed", read(send(engine.app(), post(CHAT, "{")).await).await);
    let mut too_large = vec![b' '; (64 << 20) + 1];
    insta::assert_snapshot!(
        "body_too_large",
        read(send(engine.app(), post(CHAT, too_large.clone())).await).await
    );
    // Without an announced length it is found out on the way.
    let half = axum::body::Bytes::from(too_large.split_off(32 << 20));
    let pieces = stream::iter([Ok::<_, std::io::Error>(half.clone()), Ok(half)]);
    let response = send(engine.app(), post(CHAT, Body::from_stream(pieces))).await;
    assert_eq!(response.status(), 413);
    // White space up to the bound is a request like any other.
    let mut body = chat(json!({})).to_string().into_bytes();
    body.resize(64 << 20, b' ');
    assert_eq!(send(engine.app(), post(CHAT, body)).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_in_the_middle() {
    let engine = Scripted::saying(&["x"]);
    let pieces = stream::iter([Ok::<_, std::io::Error>("{")]).chain(stream::pending());
    let response = send(engine.app(), post(CHAT, Body::from_stream(pieces))).await;
    insta::assert_snapshot!(read(response).await);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips() {
    let engine = Scripted::saying(&["x"]);
    let drops = stream::repeat(()).then(async |()| {
        tokio::time::sleep(Duration::from_secs(20)).await;
        Ok::<_, std::io::Error>(" ")
    });
    let response = send(engine.app(), post(CHAT, Body::from_stream(drops))).await;
    assert_eq!(response.status(), 408);
}

#[tokio::test]
async fn keys_come_before_everything() {
    let engine = Scripted::saying(&["x"]);
    let ask = async |path: &str, key: Option<&str>, body: &'static str| {
        let mut request =
            HttpRequest::builder().method(if body.is_empty() { "GET" } else { "POST" }).uri(path);
        if let Some(key) = key {
            request = request.header("authorization", key);
        }
        read(send(engine.app_with(keys), request.body(body.into()).unwrap()).await).await
    };
    insta::assert_snapshot!("key_missing", ask(CHAT, None, "{").await);
    insta::assert_snapshot!(
        "key_wrong",
        ask("/compatible-mode/v1/chat/completions", Some("Bearer sk"), "{").await
    );
    assert!(ask("/v1/models", None, "").await.starts_with("401 "));
    assert!(ask("/v1/models", Some("Bearer sk-other"), "").await.starts_with("200 "));
    assert!(ask(CHAT, Some("Bearer sk-right"), "{").await.starts_with("400 "));
    assert!(ask("/health", None, "").await.starts_with("200 "));
    assert!(engine.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn web_pages() {
    let engine = Scripted::saying(&["x"]);
    let ask = async |app: axum::Router, method: &str, origin: &str| {
        let request = HttpRequest::builder().method(method).uri(CHAT).header("host", "127.0.0.1:8000");
        let request = request.header("origin", origin).header("access-control-request-method", "POST");
        let request = request.header("access-control-request-headers", "authorization, content-type");
        send(app, request.body(chat(json!({})).to_string().into()).unwrap()).await
    };
    let foreign = "https://example.org";
    insta::assert_snapshot!("page_of_another_site", read(ask(engine.app(), "POST", foreign).await).await);
    assert!(engine.requests.lock().unwrap().is_empty());
    let readable = |response: &Response<Body>| {
        response
            .headers()
            .get("access-control-allow-origin")
            .map(|origin| origin.to_str().unwrap().to_owned())
    };
    let own = ask(engine.app(), "POST", "http://localhost:3000").await;
    assert_eq!((own.status().as_u16(), readable(&own)), (200, Some("http://localhost:3000".into())));
    insta::assert_snapshot!(
        "page_asks_first",
        read(ask(engine.app(), "OPTIONS", "http://localhost:3000").await).await
    );
    // A page that knows a key is none of a stranger's, but reads only what the operator lets it.
    let with_keys = ask(engine.app_with(keys), "POST", foreign).await;
    assert_eq!((with_keys.status().as_u16(), readable(&with_keys)), (401, None));
    let allowed = |settings: &mut Settings| settings.allowed_origins = vec![foreign.parse().unwrap()];
    let response = ask(engine.app_with(allowed), "POST", foreign).await;
    assert_eq!((response.status().as_u16(), readable(&response)), (200, Some(foreign.into())));
}
