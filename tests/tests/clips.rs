//! Clips as lists of frames, through both dialects to the real engine: what they cost, and that their time arrives.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use ocellus_engine::{Engine, Options};
use ocellus_server::{Settings, State, app};
use ocellus_tests::house::nano;
use serde_json::{Value, json};
use tower::ServiceExt;

const NATIVE: &str = "/api/v1/services/aigc/multimodal-generation/generation";
const COMPATIBLE: &str = "/v1/chat/completions";

fn server() -> Router {
    let engine = Engine::start(nano().unwrap(), &Options::default()).unwrap();
    app(State::new(Arc::new(engine), Settings::new("nano")).unwrap())
}

/// A BMP of one colour in each row, as a data URI.
fn picture(width: usize, height: usize, shade: usize) -> String {
    let row = (width * 3).next_multiple_of(4);
    let mut bytes = b"BM".to_vec();
    let size = |value: usize| u32::try_from(value).unwrap().to_le_bytes();
    for value in [54 + row * height, 0, 54, 40, width, height] {
        bytes.extend(size(value));
    }
    bytes.extend([1, 0, 24, 0]);
    bytes.extend([0; 24]);
    for y in 0..height {
        bytes.extend(std::iter::repeat_n((y * shade) as u8, row));
    }
    format!("data:image/bmp;base64,{}", STANDARD.encode(bytes))
}

fn frames(count: usize, width: usize, height: usize) -> Value {
    (0..count).map(|number| picture(width, height, number + 1)).collect()
}

async fn ask(server: &Router, path: &str, body: &Value) -> (u16, Value) {
    let request = Request::post(path).body(Body::from(body.to_string())).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

fn native(part: Value) -> Value {
    let messages = json!([{"role": "user", "content": [part, {"text": "?"}]}]);
    json!({"model": "nano", "input": {"messages": messages}, "parameters": {"max_tokens": 1, "logprobs": true}})
}

fn compatible(part: Value) -> Value {
    let messages = json!([{"role": "user", "content": [part, {"type": "text", "text": "?"}]}]);
    json!({"model": "nano", "messages": messages, "max_tokens": 1})
}

/// Each pair of frames costs as much as one picture of their size, and the last of an odd number pairs with itself.
#[tokio::test]
async fn clips_cost_pairs_of_frames() {
    let server = server();
    let (_, text) = ask(&server, NATIVE, &native(json!({"text": ""}))).await;
    let text = text["usage"]["input_tokens"].as_u64().unwrap();
    for (count, width, height, expected) in [
        (4, 28, 28, 2 * 4),
        (4, 98, 182, 2 * 6 * 4),
        (5, 320, 240, 3 * 9 * 11),
        (7, 100, 70, 4 * 2 * 4),
        (8, 70, 126, 4 * 4 * 2),
    ] {
        let what = format!("{count} frames of {width}x{height}");
        let list = frames(count, width, height);
        let (status, answer) = ask(&server, NATIVE, &native(json!({"video": list, "fps": 2}))).await;
        let usage = &answer["usage"];
        assert_eq!((status, &usage["video_tokens"]), (200, &json!(expected)), "{what}: {answer}");
        // Two markers around it.
        assert_eq!(usage["input_tokens"], json!(text + expected + 2), "{what}: {answer}");
        assert!(usage.get("image_tokens").is_none(), "{what}: {answer}");

        let part = json!({"type": "video", "video": list});
        let (status, answer) = ask(&server, COMPATIBLE, &compatible(part)).await;
        let details = &answer["usage"]["prompt_tokens_details"];
        assert_eq!((status, &details["video_tokens"]), (200, &json!(expected)), "{what}: {answer}");
        assert_eq!(details["image_tokens"], 0, "{what}: {answer}");
    }
}

#[tokio::test]
async fn the_frame_rate_moves_the_answer() {
    let server = server();
    let list = frames(4, 56, 56);
    let first_token = async |fps: Value| {
        let (status, answer) = ask(&server, NATIVE, &native(json!({"video": list, "fps": fps}))).await;
        assert_eq!(status, 200, "{answer}");
        answer["output"]["choices"][0]["logprobs"]["content"][0]["logprob"].as_f64().unwrap()
    };
    let default = first_token(json!(null)).await;
    assert_eq!(default, first_token(json!("2.0")).await);
    assert_ne!(default, first_token(json!(0.25)).await);
}

#[tokio::test]
async fn broken_frames_are_the_client_s_fault() {
    let server = server();
    let mut list = frames(4, 56, 56);
    list[3] = json!("data:;base64,Qk0AAAA=");
    let (status, answer) = ask(&server, NATIVE, &native(json!({"video": list}))).await;
    assert_eq!((status, &answer["code"]), (400, &json!("InvalidParameter")), "{answer}");
    let (status, answer) = ask(&server, NATIVE, &native(json!({"video": frames(4, 10, 56)}))).await;
    assert_eq!(status, 400, "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("[height:56 or width:10 must be larger than 10]"), "{answer}");
}
