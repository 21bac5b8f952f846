//! `/openapi.json` against the server that it describes.

use super::*;

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
#[tokio::test]
async fn ranges_are_the_server_s() {
    let app = Scripted::saying(&["x"]).app();
    let document = document(&app).await;
    let schemas = &document["components"]["schemas"];
    let parameters = schemas["ChatRequest"]["properties"].as_object().unwrap();
    let mut tried = 0;
    for (name, schema) in parameters {
        for (bound, outward) in
            [("minimum", -1.0), ("maximum", 1.0), ("exclusiveMinimum", 0.0), ("exclusiveMaximum", 0.0)]
        {
            let Some(limit) = schema[bound].as_f64() else { continue };
            tried += 1;
            let ask = async |value: f64| {
                send(app.clone(), post(CHAT, chat(json!({name: value})).to_string())).await.status().as_u16()
            };
            let exclusive = bound.starts_with("exclusive");
            assert_eq!(ask(limit).await, if exclusive { 400 } else { 200 }, "{name} {bound}");
            assert_eq!(ask(limit + outward).await, 400, "{name} beyond its {bound}");
        }
    }
    assert!(tried >= 18, "{tried}");
}
