//! `POST …/tokens/estimate`.

use super::*;

async fn estimate(body: Value) -> (u16, Value) {
    let engine = Scripted::saying(&["x"]);
    let response = send(engine.app(), post("/v1/tokens/estimate", body.to_string())).await;
    assert_eq!(engine.running.load(Ordering::SeqCst), 0);
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn by_sizes() {
    let body = json!({"media": [
        {"type": "image", "height": 1365, "width": 2048},
        {"height": "28", "width": 28, "max_pixels": 3136},
        {"type": "video", "height": 240, "width": 320, "total_frames": 40, "frame_rate": 10, "fps": 2},
        {"type": "video", "height": 360, "width": 640, "total_frames": 175, "frame_rate": 25.0, "fps": "1"},
    ]});
    let app = Scripted::saying(&["x"]).app();
    for prefix in ["/v1", "/compatible-mode/v1"] {
        let response = send(app.clone(), post(&format!("{prefix}/tokens/estimate"), body.to_string())).await;
        insta::assert_snapshot!("estimate_by_sizes", read(response).await);
    }
    let high = json!({"media": [{"height": 1280, "width": 1280}], "vl_high_resolution_images": "True"});
    assert_eq!(estimate(high).await.1["media"][0]["tokens_with_markers"], 2118);
}

#[tokio::test]
async fn of_a_request() {
    let app = Scripted::saying(&["x"]).app();
    let response = send(app, post("/v1/tokens/estimate", chat(json!({})).to_string())).await;
    insta::assert_snapshot!(read(response).await);
}

#[tokio::test]
async fn of_a_request_it_is_what_the_answer_says() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/nano");
    let source = ocellus_engine::Source::folder(folder);
    let engine = ocellus_engine::Engine::load(&source, &Default::default(), &|_| {}).unwrap();
    let app = ocellus_server::app(State::new(Arc::new(engine), Settings::new("eye")).unwrap());
    let picture = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAADgAAAA4AQAAAACA/QazAAAAIElEQVR42mNgYP7/gcH+\
                   PwO96P9/GPj/H2CgGz3M/QcANunDPbwWxDcAAAAASUVORK5CYII=";
    let content =
        json!([{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": "What?"}]);
    let body = chat(json!({"messages": [{"role": "user", "content": content}], "max_tokens": 1})).to_string();
    let ask = async |path: &str| -> Value {
        let response = send(app.clone(), post(path, body.clone())).await;
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    };
    let (estimate, answer) = (ask("/v1/tokens/estimate").await, ask(CHAT).await);
    assert_eq!(estimate["image_tokens"], 4);
    assert_eq!(estimate["prompt_tokens"], answer["usage"]["prompt_tokens"], "{answer}");
    for kind in ["text_tokens", "image_tokens", "video_tokens"] {
        assert_eq!(estimate[kind], answer["usage"]["prompt_tokens_details"][kind], "{kind}");
    }
}

#[tokio::test]
async fn a_request_of_either_dialect_at_either_place() {
    let engine = Scripted::saying(&["x"]);
    let native = json!({
        "model": "eye", "input": {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]},
        "parameters": {"tools": [{"type": "function", "function": {"name": "look"}}]},
    });
    let ask =
        async |path: &str, body: &Value| read(send(engine.app(), post(path, body.to_string())).await).await;
    let expected = ask("/v1/tokens/estimate", &chat(json!({}))).await;
    assert!(expected.starts_with("200 "), "{expected}");
    for path in ["/v1/tokens/estimate", "/compatible-mode/v1/tokens/estimate", "/api/v1/tokens/estimate"] {
        assert_eq!(ask(path, &native).await, expected, "{path}");
        assert_eq!(engine.last_request().tools.len(), 1);
        assert_eq!(ask(path, &chat(json!({}))).await, expected, "{path}");
    }
    let refused = ask("/api/v1/tokens/estimate", &json!({"model": "eye", "input": {}})).await;
    assert!(refused.contains("{\"code\":\"InvalidParameter\",\"message\":\"Either"), "{refused}");
}

#[tokio::test]
async fn what_can_t_be_estimated() {
    let check = async |body: Value, part: &str| {
        let (status, answer) = estimate(body.clone()).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(status == 400 && message.contains(part), "{body}: {status} {answer}");
    };
    check(json!({}), "you must provide a model parameter.").await;
    check(json!({"media": {}}), "'media' must be Array").await;
    check(json!({"media": [], "messages": []}), "exclude each other").await;
    check(json!({"media": [7]}), "'media.0' must be Object").await;
    check(json!({"media": [{"width": 7}]}), "'media.0.height' is required").await;
    check(json!({"media": [{"height": 0, "width": 7}]}), "Range of media.0.height should be [1, 16777216]")
        .await;
    check(json!({"media": [{"height": 10, "width": 100}]}), "The image length and width").await;
    check(
        json!({"media": [{"type": "sound", "height": 100, "width": 100}]}),
        "must be one of image and video",
    )
    .await;
    check(json!({"media": [{"height": 100, "width": 100, "max_pixels": 1}]}), "Range of max_pixels").await;
    let video = |extra: Value| {
        let mut video =
            json!({"type": "video", "height": 240, "width": 320, "total_frames": 40, "frame_rate": 10});
        video.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"media": [video]})
    };
    check(video(json!({"total_frames": null})), "'media.0.total_frames' is required").await;
    check(video(json!({"total_frames": 1})), "the clip's number of frames is 1").await;
    check(video(json!({"frame_rate": 0})), "Range of media.0.frame_rate").await;
    check(video(json!({"fps": 11})), "Range of media.0.fps should be [0.1, 10]").await;
    check(json!({"media": vec![json!({"height": 28, "width": 28}); 513]}), "at most 512").await;
}
