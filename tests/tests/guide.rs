//! The hosted guide's own example: a picture of 2048x1365 pixels is 1247 tokens, in the words of the guide. Its whole
//! prompt has 1276 under the real vocabulary, which `scripts/check guide` counts; here the nano vocabulary counts the
//! text.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use axum::http::Request;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::BodyExt;
use ocellus_engine::{Engine, Options};
use ocellus_server::{Settings, State, app};
use ocellus_tests::{house::nano, picture};
use serde_json::{Value, json};
use tower::ServiceExt;

const SYSTEM: &str = "You are a helpful assistant.";
const QUESTION: &str = "What scene is depicted in the image?";

/// The guide's estimate for a picture that is too large (its Python sample `token_calculate`, without the two
/// markers that it adds): shrink to 1280 tokens at most, in whole tokens of 28x28 pixels.
fn guide_tokens(height: f64, width: f64) -> usize {
    let shrink = (height * width / (1280.0 * 28.0 * 28.0)).sqrt();
    ((height / shrink / 28.0).floor() * (width / shrink / 28.0).floor()) as usize
}

#[tokio::test]
async fn the_picture_has_1247_tokens_and_the_text_what_the_vocabulary_says() {
    assert_eq!(guide_tokens(1365.0, 2048.0), 1247);
    let model = nano().unwrap();
    // The template as the model card prints it. The picture itself stands between its markers.
    let rendered = format!(
        "<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<|vision_start|><|vision_end|>{QUESTION}<|im_end|>\n\
         <|im_start|>assistant\n"
    );
    let text_tokens = model.tokenizer.encode_rendered(&rendered).unwrap().len();

    let engine = Engine::start(model, &Options::default()).unwrap();
    let app = app(State::new(Arc::new(engine), Settings::new("eye")).unwrap());
    let url = format!("data:image/png;base64,{}", STANDARD.encode(picture::png(1365, 2048)));
    let body = json!({"model": "eye", "max_tokens": 2, "messages": [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]},
    ]});
    let request = Request::post("/compatible-mode/v1/chat/completions").body(body.to_string()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&bytes).unwrap();
    let expected = json!({
        "prompt_tokens": text_tokens + 1247, "completion_tokens": 2, "total_tokens": text_tokens + 1249,
        "prompt_tokens_details": {"text_tokens": text_tokens, "image_tokens": 1247, "video_tokens": 0, "cached_tokens": 0},
        "completion_tokens_details": {"text_tokens": 2},
    });
    assert_eq!(answer["usage"], expected);
}
