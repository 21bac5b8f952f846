//! `/openapi.json` against the server that it describes.

use super::*;

const GENERATION: &str = "/api/v1/services/aigc/multimodal-generation/generation";

async fn document(app: &axum::Router) -> Value {
    let response = send(app.clone(), HttpRequest::get("/openapi.json").body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 200);
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn every_described_call_exists() {
    let app = Scripted::saying(&["x"]).app();
    let document = document(&app).await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut calls = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            calls += 1;
            let path = path.replace("{name}", "eye");
            let request = HttpRequest::builder().method(method.to_uppercase().as_str()).uri(&path);
            let answer = read(send(app.clone(), request.body(Body::from("{}")).unwrap()).await).await;
            assert!(!answer.starts_with("404 ") && !answer.starts_with("405 "), "{method} {path}: {answer}");
        }
    }
    assert!(calls >= 15, "{calls}");
}

/// Each bound of a number as the document has it: at the bound the server accepts, beyond it refuses.
async fn check_ranges(path: &str, parameters: &Value, body: impl Fn(Value) -> Value) -> usize {
    let app = Scripted::saying(&["x"]).app();
    let mut tried = 0;
    for (name, schema) in parameters.as_object().unwrap() {
        for (bound, outward) in
            [("minimum", -1.0), ("maximum", 1.0), ("exclusiveMinimum", 0.0), ("exclusiveMaximum", 0.0)]
        {
            let Some(limit) = schema[bound].as_f64() else { continue };
            tried += 1;
            let ask = async |value: f64| {
                send(app.clone(), post(path, body(json!({name: value})).to_string())).await.status().as_u16()
            };
            let exclusive = bound.starts_with("exclusive");
            assert_eq!(ask(limit).await, if exclusive { 400 } else { 200 }, "{path} {name} {bound}");
            assert_eq!(ask(limit + outward).await, 400, "{path} {name} beyond its {bound}");
        }
    }
    tried
}

#[tokio::test]
async fn ranges_are_the_server_s() {
    let document = document(&Scripted::saying(&["x"]).app()).await;
    let schemas = &document["components"]["schemas"];
    let of_a_chat = check_ranges(CHAT, &schemas["ChatRequest"]["properties"], chat).await;
    assert!(of_a_chat >= 19, "{of_a_chat}");
    let parameters = &schemas["GenerationRequest"]["properties"]["parameters"]["properties"];
    let of_a_generation = check_ranges(GENERATION, parameters, |parameters| {
        let messages = [json!({"role": "user", "content": "Hi"})];
        json!({"model": "eye", "input": {"messages": messages}, "parameters": parameters})
    });
    let of_a_generation = of_a_generation.await;
    // The largest seed is too large for a float here, and `fps` has two ends more.
    assert_eq!(of_a_generation, of_a_chat + 1);
}
