//! Several choices, formats and functions: what the engine is asked, and the bytes of what it answers.

use ocellus_engine::{Constraint, Error, Function, Stop};

use super::*;

async fn answer(engine: &Arc<Scripted>, extra: Value) -> String {
    read(send(engine.app(), post(CHAT, chat(extra).to_string())).await).await
}

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "look", "description": "Looks closer.", "parameters":
        {"type": "object", "properties": {"bbox_2d": {"type": "array", "items": {"type": "integer"}}}}}}])
}

/// Two calls after a sentence, cut where tokens could cut them.
fn calling() -> Arc<Scripted> {
    Scripted::saying(&[
        "I look",
        " closer.",
        "\n",
        "<tool_call>",
        "\n{\"name\": \"lo",
        "ok\", \"arguments\": ",
        "{\"bbox_2d\": [1, ",
        "2, 3, 4]",
        "}",
        "}\n",
        "</tool_call>",
        "\n<tool_call>\n{\"name\": \"look\", \"arguments\": {}}\n</tool_call>",
    ])
}

#[tokio::test]
async fn two_choices_whole() {
    let engine = Scripted::saying(&["This is ", "a dog."]);
    insta::assert_snapshot!(answer(&engine, json!({"n": 2, "seed": 7})).await);
    let seeds: Vec<_> = engine.requests.lock().unwrap().iter().map(|request| request.sampling.seed).collect();
    assert_eq!(seeds, [Some(7), Some(8)]);
}

#[tokio::test]
async fn two_choices_streamed() {
    let engine = Scripted::saying(&["A", " dog."]);
    let extra = json!({"n": "2", "stream": true, "stream_options": {"include_usage": true}});
    let streamed = answer(&engine, extra).await;
    assert_eq!(streamed.matches("[DONE]").count(), 1);
    assert_eq!(streamed.matches("\"usage\":{").count(), 1);
    insta::assert_snapshot!(streamed);
    assert_eq!(engine.running.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_choice_that_fails_ends_them_all() {
    let failed = Event::Failed(Error::Internal("on fire".into()));
    let script: Vec<Step> = vec![Step::Event(started()), Step::Event(failed), Step::Hang];
    let engine = Scripted::new(script);
    let whole = answer(&engine, json!({"n": 4})).await;
    assert!(whole.starts_with("500 "), "{whole}");
    let streamed = answer(&engine, json!({"n": 4, "stream": true})).await;
    assert_eq!(streamed.matches("internal_error").count(), 1, "{streamed}");
    assert!(!streamed.contains("[DONE]"), "{streamed}");
    assert_eq!(engine.running.load(Ordering::SeqCst), 0);

    let busy = Event::Failed(Error::Busy { waiting: 1 });
    let engine = Scripted::new(vec![Step::Event(busy)]);
    assert!(answer(&engine, json!({"n": 2, "stream": true})).await.starts_with("429 "));
    assert_eq!(engine.running.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn calls_whole() {
    let engine = calling();
    // With functions there is one choice, whatever is asked for.
    insta::assert_snapshot!(answer(&engine, json!({"tools": tools(), "n": 3})).await);
    let requests = engine.requests.lock().unwrap();
    assert_eq!(requests.len(), 1);
    assert_eq!((&requests[0].tools, &requests[0].constraint), (tools().as_array().unwrap(), &None));
}

#[tokio::test]
async fn calls_streamed() {
    insta::assert_snapshot!(answer(&calling(), json!({"tools": tools(), "stream": true})).await);
}

#[tokio::test]
async fn a_call_at_the_limit_of_tokens() {
    let text = "<tool_call>\n{\"name\": \"look\", \"arguments\": {\"bbox_2d\": [1,";
    let text = Event::Text(TextDelta { text: text.into(), ..TextDelta::default() });
    let engine = Scripted::new([started(), text, finished(FinishReason::Length)].map(Step::Event).into());
    insta::assert_snapshot!(answer(&engine, json!({"tools": tools()})).await);
}

#[tokio::test]
async fn without_functions_nothing_is_a_call() {
    let engine = calling();
    for extra in [json!({}), json!({"tools": tools(), "tool_choice": "none"}), json!({"tools": []})] {
        let whole = answer(&engine, extra).await;
        assert!(whole.contains("</tool_call>") && !whole.contains("tool_calls"), "{whole}");
        assert!(engine.last_request().tools.is_empty());
    }
}

#[tokio::test]
async fn a_function_that_must_be_called() {
    let engine = calling();
    let choice = json!({"type": "function", "function": {"name": "look"}});
    let whole = answer(&engine, json!({"tools": tools(), "tool_choice": choice})).await;
    assert!(whole.starts_with("200 "), "{whole}");
    let function = Function {
        name: "look".into(),
        parameters: tools()[0]["function"]["parameters"].clone(),
        strict: false,
    };
    let constraint = Constraint::ToolCalls { functions: vec![function], most: 1 };
    assert_eq!(engine.last_request().constraint, Some(constraint));
}

#[tokio::test]
async fn log_probabilities_with_calls_are_all_there() {
    let token = |bytes: &[u8]| ocellus_engine::TokenLogprob {
        chosen: ocellus_engine::Logprob { id: 1, bytes: bytes.to_vec(), logprob: -0.5 },
        top: Vec::new(),
    };
    let parts: [&str; 4] =
        ["<tool_call>", "{\"name\": \"look\", \"arguments\": {\"a", "\": 1}}", "</tool_call>"];
    let texts = parts.iter().map(|part| {
        Event::Text(TextDelta {
            text: (*part).into(),
            completion_tokens: 1,
            logprobs: vec![token(part.as_bytes())],
        })
    });
    let script = [started()].into_iter().chain(texts).chain([finished(FinishReason::Stop)]);
    let engine = Scripted::new(script.map(Step::Event).collect());
    let streamed = answer(&engine, json!({"tools": tools(), "logprobs": true, "stream": true})).await;
    assert_eq!(streamed.matches("\"logprob\":-0.5").count(), 4, "{streamed}");
    let whole = answer(&engine, json!({"tools": tools(), "logprobs": true})).await;
    assert_eq!(whole.matches("\"logprob\":-0.5").count(), 4, "{whole}");
}

#[tokio::test]
async fn a_schema() {
    let engine = Scripted::saying(&["{\"n\"", ": 7", "}"]);
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "count", "schema": schema, "strict": true}});
    insta::assert_snapshot!(answer(&engine, json!({"response_format": format})).await);
    let constraint = Constraint::JsonSchema { schema, strict: true };
    assert_eq!(engine.last_request().constraint, Some(constraint));
}

#[tokio::test]
async fn a_schema_that_cannot_be_followed() {
    let text = "the schema can't be followed: Unimplemented keys: [\"not\"]";
    let failed = Event::Failed(Error::InvalidRequest(text.into()));
    let engine = Scripted::new(vec![Step::Event(failed)]);
    let format = json!({"type": "json_schema", "json_schema": {"schema": {"not": {}}, "strict": true}});
    insta::assert_snapshot!(answer(&engine, json!({"response_format": format, "stream": true})).await);
}

#[tokio::test]
async fn json_without_the_word() {
    let engine = Scripted::saying(&["{}"]);
    let extra = json!({"response_format": {"type": "json_object"}});
    insta::assert_snapshot!(answer(&engine, extra).await);
    let mut extra = json!({"response_format": {"type": "json_object"}});
    extra["messages"] = json!([{"role": "user", "content": "Say it in JSON."}]);
    answer(&engine, extra).await;
    assert_eq!(engine.last_request().constraint, Some(Constraint::JsonObject));
}

#[tokio::test]
async fn biases_and_stops_reach_the_engine() {
    let engine = Scripted::saying(&["x"]);
    answer(&engine, json!({"logit_bias": {"5": -100, "6": "1.5"}, "stop": [[1, 2], [3]]})).await;
    let request = engine.last_request();
    assert_eq!(request.sampling.logit_bias, [(5, -100.0), (6, 1.5)]);
    assert_eq!(request.stop, [Stop::Ids(vec![1, 2]), Stop::Ids(vec![3])]);
}
