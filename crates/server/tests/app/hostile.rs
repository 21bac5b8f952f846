//! Properties of any body at all: it is answered or refused in its dialect, never with a 5xx, and nothing panics.

use std::sync::OnceLock;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

const NATIVE: &str = "/api/v1/services/aigc/multimodal-generation/generation";
const ESTIMATE: &str = "/v1/tokens/estimate";

/// Sends a body to a route and looks at the answer.
fn check(path: &str, body: &[u8]) -> Result<(), TestCaseError> {
    static APP: OnceLock<axum::Router> = OnceLock::new();
    let make = || {
        Scripted::saying(&["x"])
            .app_with(|settings| settings.media_fetch = ocellus_server::fetch::Policy::Off)
    };
    let app = APP.get_or_init(make).clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (status, text) = runtime.block_on(async {
        let response = send(app, post(path, body.to_vec())).await;
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    });
    let shown = String::from_utf8_lossy(body);
    // A contained panic would be a 500 too.
    prop_assert!(status < 500, "{status} for {shown}");
    if status != 200 {
        let refusal: Value = serde_json::from_slice(&text).unwrap();
        let error = if path == NATIVE { &refusal } else { &refusal["error"] };
        let message = error["message"].as_str().unwrap_or_default();
        prop_assert!(!message.is_empty() && refusal["request_id"].is_string(), "{refusal} for {shown}");
    }
    Ok(())
}

/// Any JSON, with keys and words that the dialects know among others.
fn json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "model",
        "messages",
        "input",
        "parameters",
        "role",
        "user",
        "system",
        "tool",
        "assistant",
        "content",
        "type",
        "text",
        "image",
        "image_url",
        "video",
        "url",
        "fps",
        "min_pixels",
        "temperature",
        "top_k",
        "seed",
        "stop",
        "n",
        "tools",
        "tool_choice",
        "function",
        "name",
        "response_format",
        "json_schema",
        "schema",
        "logit_bias",
        "media",
        "height",
        "width",
        "data:image/png;base64,AAAA",
        "eye",
        "7",
        "",
        "\u{0}",
        "required",
        "json",
    ]);
    let word = word.prop_map(str::to_owned);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-5i64..300).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-3.0..3.0).prop_map(Value::from),
        word.clone().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map(word.clone(), inner, 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// A request with every kind of thing in it, for each route.
fn good(path: &str) -> Value {
    let messages = json!([
        {"role": "system", "content": "Answer in json."},
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}, {"image": PICTURE, "max_pixels": 3136},
            {"type": "video", "video": [PICTURE, PICTURE, PICTURE, PICTURE], "fps": 2}]},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function",
            "function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "A dog."},
    ]);
    let parameters = json!({
        "temperature": 0.5, "top_p": "0.5", "top_k": 3, "seed": 7, "n": 2, "max_tokens": 8, "logprobs": true,
        "top_logprobs": 2, "stop": ["a", "b"], "logit_bias": {"7": 1}, "vl_high_resolution_images": "True",
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
        "tool_choice": "auto", "coordinates": "original",
    });
    let mut body = json!({"model": "eye"});
    if path == NATIVE {
        body["input"] = json!({"messages": messages});
        body["parameters"] = parameters;
    } else {
        body.as_object_mut().unwrap().extend(parameters.as_object().unwrap().clone());
        body["messages"] = messages;
    }
    body
}

const PICTURE: &str = "data:image/png;base64,iVBORw0KGgo=";

/// The place of a number among all values, outermost first.
fn place(value: &mut Value, number: usize) -> &mut Value {
    fn count(value: &Value) -> usize {
        1 + match value {
            Value::Array(items) => items.iter().map(count).sum(),
            Value::Object(entries) => entries.values().map(count).sum(),
            _ => 0,
        }
    }
    let mut left = number % count(value);
    let mut here = value;
    while left > 0 {
        left -= 1;
        let inner: Vec<&mut Value> = match here {
            Value::Array(items) => items.iter_mut().collect(),
            Value::Object(entries) => entries.values_mut().collect(),
            _ => Vec::new(),
        };
        let mut next = None;
        for value in inner {
            let size = count(value);
            if left < size {
                next = Some(value);
                break;
            }
            left -= size;
        }
        here = next.unwrap();
    }
    here
}

fn route() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![CHAT, NATIVE, ESTIMATE])
}

#[test]
fn the_good_requests_are_good() {
    for path in [CHAT, NATIVE, ESTIMATE] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let app = Scripted::saying(&["x"]).app();
        let answer =
            runtime.block_on(async { read(send(app, post(path, good(path).to_string())).await).await });
        assert!(answer.starts_with("200 "), "{path}: {answer}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(path in route(), body in vec(any::<u8>(), 0..200)) {
        check(path, &body)?;
    }

    #[test]
    fn any_json(path in route(), body in json()) {
        check(path, body.to_string().as_bytes())?;
    }

    /// One to three values of a good request are others.
    #[test]
    fn a_good_request_with_other_values(
        path in route(),
        changes in vec((any::<prop::sample::Index>(), json()), 1..4),
    ) {
        let mut body = good(path);
        for (index, value) in changes {
            *place(&mut body, index.index(64)) = value;
        }
        check(path, body.to_string().as_bytes())?;
    }

    /// A few of its bytes are others, or missing.
    #[test]
    fn a_good_request_with_other_bytes(
        path in route(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in any::<prop::sample::Index>(),
        is_cut in prop::bool::weighted(0.2),
    ) {
        let mut body = good(path).to_string().into_bytes();
        for (index, byte) in changes {
            let at = index.index(body.len());
            body[at] = byte;
        }
        if is_cut {
            body.truncate(end.index(body.len()));
        }
        check(path, &body)?;
    }
}
