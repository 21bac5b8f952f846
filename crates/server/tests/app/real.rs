//! The HTTP surface with a real engine and the random nano model behind it: what must hold whatever a model says.

use std::sync::OnceLock;

use ocellus_engine::{Engine, Options, Source};

use super::*;

pub(crate) fn engine() -> Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    let load = || {
        let source = Source::folder(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/nano"));
        let options = Options { context_tokens: Some(2048), ..Options::default() };
        Arc::new(Engine::load(&source, &options, &|_| {}).unwrap())
    };
    ENGINE.get_or_init(load).clone()
}

/// Sends a request that draws from the whole vocabulary. Gives the status and the body.
async fn send_real(extra: &Value) -> (u16, String) {
    let mut body = chat(json!({"temperature": 1.0, "top_p": 1, "top_k": 0, "seed": 1, "max_tokens": 100}));
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let app = app(State::new(engine(), Settings::new("eye")).unwrap());
    let response = send(app, post(CHAT, body.to_string())).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn whole(extra: &Value) -> Value {
    let (status, body) = send_real(extra).await;
    assert_eq!(status, 200, "{extra}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// The chunks of a stream, without the final `[DONE]`, which must be there.
async fn chunks(extra: &Value) -> Vec<Value> {
    let mut extra = extra.clone();
    extra["stream"] = json!(true);
    let (status, body) = send_real(&extra).await;
    assert_eq!(status, 200, "{extra}: {body}");
    let frames = body.strip_suffix("data: [DONE]\n\n").unwrap_or_else(|| panic!("no end: {body}"));
    frames
        .split_terminator("\n\n")
        .filter_map(|frame| frame.strip_prefix("data: "))
        .map(|json| serde_json::from_str(json).unwrap())
        .collect()
}

/// What a stream says in choice `index`.
fn text_of(chunks: &[Value], index: usize) -> String {
    let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
    let mine = choices.filter(|choice| choice["index"] == index);
    mine.map(|choice| choice["delta"]["content"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn streamed_choices_say_what_whole_ones_say() {
    let extra = json!({"n": 3, "stream_options": {"include_usage": true}});
    let (whole, chunks) = (whole(&extra).await, chunks(&extra).await);
    for index in 0..3 {
        let said = &whole["choices"][index]["message"]["content"];
        assert_eq!(&json!(text_of(&chunks, index)), said);
        // A choice is what its seed alone gives.
        let alone = self::whole(&json!({"seed": 1 + index})).await;
        assert_eq!(&alone["choices"][0]["message"]["content"], said);
    }
    assert_ne!(whole["choices"][0], whole["choices"][1]);
    assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
    let alone = self::whole(&json!({})).await;
    assert_eq!(whole["usage"]["prompt_tokens"], alone["usage"]["prompt_tokens"]);
    assert_eq!(whole["usage"]["completion_tokens"], 300);
}

#[tokio::test]
async fn characters_are_never_cut_and_stops_never_seen() {
    let whole = whole(&json!({})).await;
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    let characters: Vec<char> = text.chars().collect();
    assert!(text.len() > characters.len(), "no character has several bytes: {text}");
    let streamed = chunks(&json!({})).await;
    assert_eq!(text_of(&streamed, 0), text);

    for start in (0..characters.len() - 6).step_by(characters.len() / 8) {
        let stop: String = characters[start..start + 4].iter().collect();
        let before = &text[..text.find(&stop).unwrap()];
        let streamed = chunks(&json!({"stop": stop})).await;
        assert_eq!(text_of(&streamed, 0), before, "stop {stop:?}");
        assert_eq!(streamed.last().unwrap()["choices"][0]["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn a_named_function_is_always_called() {
    let function = |name: &str| {
        json!({"type": "function", "function": {"name": name, "strict": true, "parameters": {
            "type": "object", "properties": {"side": {"enum": ["left", "right"]}}, "required": ["side"],
            "additionalProperties": false}}})
    };
    let tools = json!([function("look"), function("point")]);
    for seed in 0..6 {
        let choice = json!({"type": "function", "function": {"name": "point"}});
        let extra = json!({"tools": tools, "tool_choice": choice, "seed": seed});
        let choice = whole(&extra).await["choices"][0].take();
        assert_eq!(
            (&choice["finish_reason"], &choice["message"]["content"]),
            (&json!("tool_calls"), &json!(""))
        );
        let calls = choice["message"]["tool_calls"].as_array().unwrap();
        assert_eq!((calls.len(), &calls[0]["function"]["name"]), (1, &json!("point")));
        let arguments = calls[0]["function"]["arguments"].as_str().unwrap();
        let side = serde_json::from_str::<Value>(arguments).unwrap()["side"].take();
        assert!(side == "left" || side == "right", "{arguments}");

        let streamed = chunks(&extra).await;
        let deltas: Vec<&Value> =
            streamed.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].get(0)).collect();
        let joined: String =
            deltas.iter().map(|call| call["function"]["arguments"].as_str().unwrap()).collect();
        assert_eq!((joined.as_str(), &deltas[0]["function"]["name"]), (arguments, &json!("point")));
        assert!(deltas[1..].iter().all(|call| call.get("id").is_none()));
    }
}

#[tokio::test]
async fn a_call_goes_back_with_its_result() {
    let call =
        json!({"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{\"at\": 1}"}});
    let answered = whole(&json!({
        "tools": [{"type": "function", "function": {"name": "look"}}],
        "messages": [{"role": "user", "content": "Look."}, {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "A dog."}],
    }))
    .await;
    assert_eq!(answered["choices"][0]["message"]["role"], "assistant");
}

#[tokio::test]
async fn a_schema_is_followed_or_refused() {
    let format = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": true}}});
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 3, "maximum": 99},
        "kind": {"enum": ["dog", "cat"]}}, "required": ["n", "kind"], "additionalProperties": false});
    let answered = whole(&format(schema)).await;
    let text = answered["choices"][0]["message"]["content"].as_str().unwrap();
    let value: Value = serde_json::from_str(text).unwrap();
    assert!((3..=99).contains(&value["n"].as_i64().unwrap()), "{text}");
    assert!(value["kind"] == "dog" || value["kind"] == "cat", "{text}");

    for schema in [
        json!({"type": "integer", "minimum": 5, "maximum": 3}),
        json!({"type": "object", "not": {}}),
        json!({"type": "string", "description": "x".repeat(70_000)}),
        json!({"$ref": "http://127.0.0.1:9/x"}),
    ] {
        let mut extra = format(schema);
        extra["stream"] = json!(true);
        let (status, body) = send_real(&extra).await;
        assert_eq!(status, 400, "{body}");
        assert!(body.contains("the schema "), "{body}");
    }
    let (status, body) = send_real(&json!({"logit_bias": {"4000000000": 1}})).await;
    assert!(status == 400 && body.contains("there is no token 4000000000"), "{body}");
}
