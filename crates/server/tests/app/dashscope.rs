//! DashScope's dialect: answers, event streams and refusals, byte for byte.

use ocellus_engine::{Error, Logprob, MediaFault, Part, TokenLogprob};
use ocellus_server::Refusal;

use super::*;

const GENERATE: &str = "/api/v1/services/aigc/multimodal-generation/generation";

/// A small request with these parameters.
fn generation(parameters: Value) -> Value {
    json!({
        "model": "qwen-vl-max",
        "input": {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]},
        "parameters": parameters,
    })
}

fn streaming(body: &Value) -> HttpRequest<Body> {
    let request = HttpRequest::post(GENERATE).header("x-dashscope-sse", "enable");
    request.body(body.to_string().into()).unwrap()
}

async fn whole(engine: &Arc<Scripted>, parameters: Value) -> String {
    read(send(engine.app(), post(GENERATE, generation(parameters).to_string())).await).await
}

async fn streamed(engine: &Arc<Scripted>, parameters: Value) -> String {
    read(send(engine.app(), streaming(&generation(parameters))).await).await
}

/// An answer to a prompt of text alone, of a picture, or of a clip.
fn answering(prompt: PromptTokens, media: Vec<MediaSize>) -> Arc<Scripted> {
    let text = |text: &str, completion_tokens| {
        Event::Text(TextDelta { text: text.into(), completion_tokens, logprobs: Vec::new() })
    };
    let reason = FinishReason::Stop;
    let finished = Finished { reason, prompt, completion_tokens: 3, timings: Timings::default() };
    let events = [Event::Started(Started { prompt, media }), text("This", 1), text(" image\n\"…\"", 2)];
    Scripted::new(events.into_iter().chain([Event::Finished(finished)]).map(Step::Event).collect())
}

fn answering_about_text() -> Arc<Scripted> {
    answering(PromptTokens { text: 20, image: 0, video: 0 }, Vec::new())
}

fn answering_about_a_picture_and_a_clip() -> Arc<Scripted> {
    let picture = MediaSize { original: (1365, 2048), seen: (812, 1204), frames: 1, tokens: 1247 };
    let clip = MediaSize { original: (56, 84), seen: (56, 84), frames: 4, tokens: 12 };
    answering(PromptTokens { text: 31, image: 1247, video: 12 }, vec![picture, clip])
}

#[tokio::test]
async fn an_answer_about_text() {
    insta::assert_snapshot!(whole(&answering_about_text(), json!(null)).await);
}

#[tokio::test]
async fn an_answer_about_pictures() {
    let engine = answering_about_a_picture_and_a_clip();
    // The body does not choose the stream.
    let parameters = json!({"incremental_output": true, "stream": true});
    insta::assert_snapshot!("whole", whole(&engine, parameters).await);
    let parameters = json!({"vl_enable_image_hw_output": "True"});
    insta::assert_snapshot!("whole_image_hw", whole(&engine, parameters).await);
}

#[tokio::test]
async fn a_cumulative_stream() {
    insta::assert_snapshot!("streamed", streamed(&answering_about_text(), json!(null)).await);
    let engine = answering_about_a_picture_and_a_clip();
    let parameters = json!({"vl_enable_image_hw_output": true});
    insta::assert_snapshot!("streamed_image_hw", streamed(&engine, parameters).await);
}

#[tokio::test]
async fn an_incremental_stream() {
    let engine = answering_about_a_picture_and_a_clip();
    let parameters = json!({"incremental_output": true});
    insta::assert_snapshot!("incremental", streamed(&engine, parameters).await);
    let parameters = json!({"incremental_output": true, "vl_enable_image_hw_output": true});
    insta::assert_snapshot!("incremental_image_hw", streamed(&engine, parameters).await);
}

#[tokio::test]
async fn an_answer_without_text() {
    let engine = Scripted::new([started(), finished(FinishReason::Length)].map(Step::Event).into());
    insta::assert_snapshot!("whole_empty", whole(&engine, json!({})).await);
    insta::assert_snapshot!("streamed_empty", streamed(&engine, json!({})).await);
}

#[tokio::test]
async fn logprobs() {
    let token = |id, text: &str| {
        let chosen = Logprob { id, bytes: text.into(), logprob: -0.5 };
        TokenLogprob { top: vec![chosen.clone()], chosen }
    };
    let text = |id, text: &str| {
        let logprobs = vec![token(id, text)];
        Event::Text(TextDelta { text: text.into(), completion_tokens: 1, logprobs })
    };
    let events = [started(), text(1, "a"), text(2, "b"), finished(FinishReason::Stop)];
    let engine = Scripted::new(events.map(Step::Event).into());
    let parameters = json!({"logprobs": true, "top_logprobs": "1"});
    insta::assert_snapshot!("logprobs_whole", whole(&engine, parameters.clone()).await);
    insta::assert_snapshot!("logprobs_streamed", streamed(&engine, parameters).await);
    let parameters = json!({"logprobs": true, "incremental_output": true});
    insta::assert_snapshot!("logprobs_incremental", streamed(&engine, parameters).await);
}

#[tokio::test(start_paused = true)]
async fn a_long_prefill_is_bridged_with_comments() {
    let script = [
        Step::Event(started()),
        Step::Wait(Duration::from_secs(40)),
        Step::Event(finished(FinishReason::Stop)),
    ];
    insta::assert_snapshot!("prefill", streamed(&Scripted::new(script.into()), json!({})).await);
}

#[tokio::test]
async fn a_failure_after_the_first_event() {
    let failed = Event::Failed(Error::Internal("the device at 0x7f is on fire".into()));
    let text = Event::Text(TextDelta { text: "The".into(), completion_tokens: 1, ..TextDelta::default() });
    let engine = Scripted::new([started(), text, failed].map(Step::Event).into());
    insta::assert_snapshot!("failure_streamed", streamed(&engine, json!({})).await);
    insta::assert_snapshot!("failure_whole", whole(&engine, json!({})).await);
}

#[tokio::test]
async fn a_refusal_before_the_first_event_is_a_plain_status() {
    for (error, status) in [
        (Error::Media { index: 0, reason: MediaFault::Broken("x".into()) }, 400),
        (Error::ContextLength { tokens: 9, limit: 5 }, 400),
        (Error::Busy { waiting: 64 }, 429),
        (Error::Internal("secret".into()), 500),
    ] {
        let engine = Scripted::new(vec![Step::Event(Event::Failed(error.clone()))]);
        for request in [streaming(&generation(json!({}))), post(GENERATE, generation(json!({})).to_string())]
        {
            let (head, body) = send(engine.app(), request).await.into_parts();
            let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
            assert_eq!(
                body,
                Refusal::from(&error)
                    .body(ocellus_server::Dialect::Native, body["request_id"].as_str().unwrap())
            );
            assert_eq!(
                (head.status.as_u16(), head.headers["content-type"].as_bytes()),
                (status, &b"application/json"[..])
            );
            assert_eq!(head.headers["x-request-id"].to_str().ok(), body["request_id"].as_str());
        }
    }
}

#[tokio::test]
async fn refusals() {
    let engine = Scripted::saying(&["x"]);
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)], body: String| {
        let mut request = HttpRequest::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(send(engine.app_with(keys), request.body(body.into()).unwrap()).await).await
    };
    let key = ("authorization", "Bearer sk-right");
    let body = generation(json!({})).to_string();
    let mut table = String::new();
    for (name, answer) in [
        ("no key", ask("POST", GENERATE, &[], "{".into()).await),
        ("wrong key", ask("POST", GENERATE, &[("authorization", "Bearer x")], "{".into()).await),
        ("asynchronous", ask("POST", GENERATE, &[key, ("x-dashscope-async", "enable")], body.clone()).await),
        ("wrong method", ask("GET", GENERATE, &[], String::new()).await),
        ("unknown path", ask("GET", "/api/v2/services", &[], String::new()).await),
        ("no JSON", ask("POST", GENERATE, &[key], "{".into()).await),
        ("deep", ask("POST", GENERATE, &[key], "[".repeat(200_000)).await),
        ("empty", ask("POST", GENERATE, &[key], "{}".into()).await),
        ("no input", ask("POST", GENERATE, &[key], r#"{"model":"eye"}"#.into()).await),
        ("unknown model", ask("POST", GENERATE, &[key], r#"{"model":"x","input":{}}"#.into()).await),
    ] {
        table += &format!("== {name}\n{answer}\n");
    }
    for (name, parameters) in [
        ("temperature", json!({"temperature": 2})),
        ("top_p", json!({"top_p": "0"})),
        ("seed", json!({"seed": -1})),
        ("max_tokens", json!({"max_tokens": 8193})),
    ] {
        let answer = ask("POST", GENERATE, &[key], generation(parameters).to_string()).await;
        let body = answer.lines().last().unwrap_or_default();
        table += &format!("== {name}\n{body}\n");
    }
    for (name, part) in [
        ("three frames", json!({"video": ["data:;base64,aGk=", "data:;base64,aGk=", "data:;base64,aGk="]})),
        ("frame rate", json!({"video": ["data:;base64,aGk="], "fps": 11})),
        ("video file", json!({"video": "https://example.org/a.mp4", "fps": 2})),
        ("local path", json!({"image": "file:///etc/passwd"})),
        ("unresolved upload", json!({"image": "oss://x/y.png"})),
    ] {
        let mut body = generation(json!({}));
        body["input"]["messages"][0]["content"] = json!([part, {"text": "?"}]);
        let answer = ask("POST", GENERATE, &[key], body.to_string()).await;
        let body = answer.lines().last().unwrap_or_default();
        table += &format!("== {name}\n{body}\n");
    }
    insta::assert_snapshot!("refusals", table);
    assert!(engine.requests.lock().unwrap().is_empty());
}

/// The guide's own samples: parameters as text beside the messages, and once in an object beside them.
#[tokio::test]
async fn what_the_engine_is_asked() {
    let engine = Scripted::saying(&["x"]);
    let body = json!({
        "model": "qwen-vl-max",
        "input": {
            "messages": [
                {"role": "system", "content": "S"},
                {"role": "user", "content": [{"image": "data:;base64,aGk="}, {"text": "U"}]},
                {"role": "assistant", "content": [{"text": "A", "image_hw": [[28, 28]]}]},
                {"role": "user", "content": [
                    {"video": ["data:;base64,YQ==", "data:;base64,Yg==", "data:;base64,Yw==", "data:;base64,ZA=="],
                     "fps": 4}, "V"]},
            ],
            "vl_high_resolution_images": "True", "temperature": "0", "top_k": "1", "seed": "3407",
            "parameters": {"max_tokens": 9},
        },
    });
    let answer = read(send(engine.app(), post(GENERATE, body.to_string())).await).await;
    assert!(answer.starts_with("200 "), "{answer}");
    let request = engine.last_request();
    let sampling =
        Sampling { temperature: 0.0, top_k: 1, seed: Some(3407), ..engine.info.default_sampling.clone() };
    assert_eq!((request.sampling, request.max_tokens), (sampling, Some(9)));
    let parts: Vec<&Part> = request.messages.iter().flat_map(|message| &message.parts).collect();
    let [
        Part::Text(system),
        Part::Image(image),
        Part::Text(first),
        Part::Text(reply),
        Part::Video(video),
        Part::Text(second),
    ] = parts[..]
    else {
        panic!("{parts:?}")
    };
    assert_eq!([system, first, reply, second].map(String::as_str), ["S", "U", "A", "V"]);
    assert_eq!((&image.bytes[..], image.limits.max_pixels), (&b"hi"[..], 16384 * 784));
    assert_eq!((video.frames.concat(), video.fps), (b"abcd".to_vec(), 4.0));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_answer() {
    let engine = Scripted::new(vec![Step::Event(started()), Step::Hang]);
    let response = send(engine.app(), streaming(&generation(json!({})))).await;
    assert_eq!(engine.running.load(Ordering::SeqCst), 1);
    drop(response);
    assert_eq!(engine.running.load(Ordering::SeqCst), 0);
}

/// Every value of a request in turn replaced by odd ones: an answer or a refusal, never a failure.
#[tokio::test]
async fn odd_values_in_every_place() {
    let engine = Scripted::saying(&["x"]);
    let app = engine.app();
    let body = json!({
        "model": "eye",
        "input": {
            "messages": [{"role": "user", "content": [
                {"text": "a"}, {"image": "data:;base64,aGk=", "min_pixels": 3136, "max_pixels": 3136},
                {"video": ["data:;base64,aGk=", "oss://a/b", "data:;base64,aGk=", "data:;base64,aGk="], "fps": 1}]}],
            "temperature": "0",
            "parameters": {"seed": 1},
        },
        "parameters": {"incremental_output": true, "vl_enable_image_hw_output": true, "stop": ["x"], "logprobs": true,
                       "top_logprobs": 1, "top_k": 1, "top_p": 0.5, "max_tokens": 1, "result_format": "message"},
    });
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(-1e300),
        json!(""),
        json!("\u{0}\u{fffd}"),
        json!("oss://"),
        json!("file:///etc/passwd"),
        json!([]),
        json!([[]]),
        json!({}),
        json!({"url": {"url": 1}}),
    ];
    let mut places = vec![String::new()];
    let mut next = 0;
    while let Some(place) = places.get(next).cloned() {
        let children: Vec<String> = match body.pointer(&place).unwrap() {
            Value::Object(object) => object.keys().cloned().collect(),
            Value::Array(items) => (0..items.len()).map(|index| index.to_string()).collect(),
            _ => Vec::new(),
        };
        places.extend(children.into_iter().map(|child| format!("{place}/{child}")));
        next += 1;
    }
    assert!(places.len() > 30);
    for place in &places {
        for value in &odd {
            let mut changed = body.clone();
            *changed.pointer_mut(place).unwrap() = value.clone();
            let status = send(app.clone(), streaming(&changed)).await.status().as_u16();
            assert!(matches!(status, 200 | 400 | 404), "{place} {value}: {status}");
        }
    }
}

#[tokio::test]
async fn several_choices() {
    let engine = Scripted::saying(&["A", "B"]);
    let answer = whole(&engine, json!({"n": "2", "seed": 7})).await;
    insta::assert_snapshot!("choices_whole", answer);
    let seeds =
        engine.requests.lock().unwrap().iter().map(|request| request.sampling.seed).collect::<Vec<_>>();
    assert_eq!(seeds, [Some(7), Some(8)]);
    let answer = streamed(&engine, json!({"n": 2})).await;
    let count = |part: &str| answer.matches(part).count();
    assert_eq!((count("event:result"), count("\"stop\"")), (6, 2), "{answer}");
    assert_eq!((count("\"index\":0"), count("\"index\":1")), (3, 3), "{answer}");
}

#[tokio::test]
async fn calls_of_functions() {
    let call = "<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"dog\"}}\n</tool_call>";
    let (head, tail) = call.split_at(60);
    let engine = Scripted::saying(&["Well. ", head, tail]);
    let redacted = |answer: String| answer.replace("call_<uuid>", "call_…");
    let tools = json!([{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]);
    // One answer only where functions may be called.
    let parameters = json!({"tools": tools, "n": 4});
    insta::assert_snapshot!("calls_whole", redacted(whole(&engine, parameters.clone()).await));
    assert_eq!(engine.last_request().tools.len(), 1);
    insta::assert_snapshot!("calls_streamed", redacted(streamed(&engine, parameters).await));
    let parameters = json!({"tools": tools, "incremental_output": true});
    insta::assert_snapshot!("calls_incremental", redacted(streamed(&engine, parameters).await));
}

#[tokio::test]
async fn what_only_this_server_tells() {
    let engine = answering_about_a_picture_and_a_clip();
    let app = engine.app_with(|settings| settings.extensions = true);
    let body = generation(json!({"incremental_output": true}));
    let answer = read(send(app.clone(), streaming(&body)).await).await;
    assert_eq!(answer.matches("\"ocellus\":{\"media\":[{\"kind\":\"image\"").count(), 1, "{answer}");
    let answer = read(send(app, post(GENERATE, body.to_string())).await).await;
    assert_eq!(answer.matches("\"ocellus\":{\"media\":[{\"kind\":\"image\"").count(), 1, "{answer}");
}

#[tokio::test]
async fn coordinates_of_the_original_picture() {
    let engine = Scripted::saying(&["[{\"bbox_2d\": [60", "2, 406, 1204, 812]}]"]);
    let answer = whole(&engine, json!({"coordinates": "original"})).await;
    assert!(answer.contains("[1024, 683, 2048, 1365]"), "{answer}");
    let refused = whole(&engine, json!({"coordinates": "other"})).await;
    assert!(refused.starts_with("400 "), "{refused}");
}

#[tokio::test]
async fn structured_output() {
    let engine = Scripted::saying(&["{}"]);
    let schema = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}});
    assert!(whole(&engine, json!({"response_format": schema})).await.starts_with("200 "));
    assert!(engine.last_request().constraint.is_some());
    assert!(whole(&engine, json!({"response_format": {"type": "xml"}})).await.starts_with("400 "));
}
