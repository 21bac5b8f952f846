//! Answers: JSON and event streams, byte for byte.

use ocellus_engine::{Error, Logprob, Message, Part, Role, TokenLogprob};

use super::*;

async fn answer(engine: &Arc<Scripted>, extra: Value) -> String {
    read(send(engine.app(), post(CHAT, chat(extra).to_string())).await).await
}

#[tokio::test]
async fn whole() {
    let engine = Scripted::saying(&["This is ", "a dog."]);
    insta::assert_snapshot!(answer(&engine, json!({"model": "qwen-vl-max"})).await);
}

#[tokio::test]
async fn whole_at_its_limit() {
    let engine = Scripted::new(vec![Step::Event(started()), Step::Event(finished(FinishReason::Length))]);
    insta::assert_snapshot!(answer(&engine, json!({"stream": "false"})).await);
}

#[tokio::test]
async fn streamed() {
    // The empty piece, as of a token that is only a part of a character, gives no chunk.
    let engine = Scripted::saying(&["The", "", " image \"…\"\n", "\u{1f415}"]);
    insta::assert_snapshot!(answer(&engine, json!({"stream": true})).await);
}

#[tokio::test]
async fn streamed_with_usage() {
    let engine = Scripted::saying(&["The"]);
    let extra = json!({"stream": true, "stream_options": {"include_usage": true}, "model": "qwen-vl-plus"});
    insta::assert_snapshot!(answer(&engine, extra).await);
}

/// Two tokens that share the bytes of one character.
fn with_logprobs() -> Arc<Scripted> {
    let logprob = |id, bytes: &[u8], logprob| Logprob { id, bytes: bytes.to_vec(), logprob };
    let tokens = vec![
        TokenLogprob {
            chosen: logprob(1, b" \xc3", -0.25),
            top: vec![logprob(1, b" \xc3", -0.25), logprob(7, b"\n", -1.5)],
        },
        TokenLogprob {
            chosen: logprob(2, b"\xa4", -0.1),
            top: vec![logprob(2, b"\xa4", -0.1), logprob(8, b"x", f32::NEG_INFINITY)],
        },
    ];
    let text = Event::Text(TextDelta { text: " ä".into(), completion_tokens: 2, logprobs: tokens });
    Scripted::new([started(), text, finished(FinishReason::Stop)].map(Step::Event).into())
}

#[tokio::test]
async fn logprobs_whole() {
    let engine = with_logprobs();
    insta::assert_snapshot!(answer(&engine, json!({"logprobs": true, "top_logprobs": 2})).await);
    assert_eq!(engine.last_request().logprobs, Some(2));
}

#[tokio::test]
async fn logprobs_streamed() {
    let extra = json!({"logprobs": true, "top_logprobs": 2, "stream": true});
    insta::assert_snapshot!(answer(&with_logprobs(), extra).await);
}

#[tokio::test(start_paused = true)]
async fn a_long_prefill_is_bridged_with_comments() {
    let wait = Step::Wait(Duration::from_secs(40));
    let mut script = vec![Step::Event(started()), wait];
    script.push(Step::Event(finished(FinishReason::Stop)));
    insta::assert_snapshot!(answer(&Scripted::new(script), json!({"stream": true})).await);
}

#[tokio::test]
async fn a_failure_after_the_first_chunk() {
    let failed = Event::Failed(Error::Internal("the device at 0x7f is on fire".into()));
    let text = Event::Text(TextDelta { text: "The".into(), ..TextDelta::default() });
    let script: Vec<Step> = [started(), text, failed].map(Step::Event).into();
    insta::assert_snapshot!(
        "failure_streamed",
        answer(&Scripted::new(script.clone()), json!({"stream": true})).await
    );
    insta::assert_snapshot!("failure_whole", answer(&Scripted::new(script), json!({})).await);
}

#[tokio::test]
async fn an_answer_without_an_end() {
    let script = vec![Step::Event(started())];
    let streamed = answer(&Scripted::new(script.clone()), json!({"stream": true})).await;
    assert!(streamed.starts_with("200 OK") && streamed.contains("internal_error"), "{streamed}");
    assert!(!streamed.contains("[DONE]"), "{streamed}");
    for script in [script, Vec::new(), vec![Step::Event(finished(FinishReason::Stop))]] {
        let whole = answer(&Scripted::new(script), json!({})).await;
        assert!(whole.starts_with("500 ") && whole.contains("Internal server error."), "{whole}");
    }
}

#[tokio::test]
async fn a_panic_is_an_answer_too() {
    let answer = answer(&Scripted::new(vec![Step::Panic]), json!({})).await;
    assert!(answer.starts_with("500 ") && answer.contains("Internal server error."), "{answer}");
    assert!(!answer.contains("scripted"), "{answer}");
}

#[tokio::test]
async fn what_the_engine_is_asked() {
    let engine = Scripted::saying(&["x"]);
    let extra = json!({
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": [
            {"type": "text", "text": "U"}, {"type": "image_url", "image_url": {"url": "data:;base64,aGk="}}]}],
        "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "presence_penalty": 1, "frequency_penalty": -1,
        "repetition_penalty": 1.2, "seed": 7, "max_tokens": 9, "stop": ["a", "b"],
    });
    answer(&engine, extra).await;
    let request = engine.last_request();
    assert_eq!(
        request.sampling,
        Sampling {
            temperature: 0.5,
            top_p: 0.9,
            top_k: 5,
            min_p: 0.1,
            repetition_penalty: 1.2,
            presence_penalty: 1.0,
            frequency_penalty: -1.0,
            seed: Some(7),
            logit_bias: Vec::new(),
        }
    );
    assert_eq!(
        (request.max_tokens, request.stop, request.logprobs),
        (Some(9), vec!["a".into(), "b".into()], None)
    );
    let [Message { role: Role::System, .. }, Message { role: Role::User, parts, .. }] = &request.messages[..]
    else {
        panic!("{:?}", request.messages);
    };
    let [Part::Text(text), Part::Image(image)] = &parts[..] else { panic!("{parts:?}") };
    assert_eq!((text.as_str(), &image.bytes[..]), ("U", &b"hi"[..]));

    // What a request leaves out is the checkpoint's, and the length is bounded by the server's own limit.
    answer(&engine, json!({})).await;
    let request = engine.last_request();
    assert_eq!((request.sampling, request.max_tokens), (engine.info.default_sampling.clone(), Some(8192)));
}

#[tokio::test]
async fn models_and_health() {
    let engine = Scripted::saying(&[]);
    let get = async |path: &str| {
        let request = HttpRequest::get(path).body(Body::empty()).unwrap();
        read(send(engine.app(), request).await).await
    };
    insta::assert_snapshot!("models", get("/v1/models").await);
    insta::assert_snapshot!("model", get("/compatible-mode/v1/models/qwen-vl-max").await);
    insta::assert_snapshot!("model_unknown", get("/v1/models/a/b%20c").await);
    assert!(get("/v1/models/%ff").await.starts_with("404 "));
    insta::assert_snapshot!("health", get("/health").await);
}
