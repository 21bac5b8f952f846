//! Every shape of `messages`, and every message about one that is wrong.

use serde_json::json;

use super::*;
use crate::Dialect;
use crate::fetch::{Limits, Policy};

/// What the engine would get, in short: `role: part part [calls]`.
async fn read(messages: &Value, high_resolution: bool) -> Result<String, Refusal> {
    let fetcher = Fetcher::new(Policy::Off, Limits::default()).unwrap();
    let messages = Conversation::read(Some(messages), high_resolution)?.fetch(&fetcher).await?;
    let area = |limits: &PixelLimits| format!("{}..{}", limits.min_pixels, limits.max_pixels);
    let part = |part: &Part| match part {
        Part::Text(text) => format!(" {text:?}"),
        Part::Image(image) => {
            format!(" image({} {})", String::from_utf8_lossy(&image.bytes), area(&image.limits))
        }
        Part::Video(video) => {
            let frames = video.frames.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect::<Vec<_>>();
            format!(" video({} @{} {})", frames.join(","), video.fps, area(&video.limits))
        }
    };
    let call = |call: &ToolCall| format!(" {}({})", call.name, call.arguments);
    let turn = |message: &Message| {
        let role = format!("{:?}:", message.role);
        let parts: String = message.parts.iter().map(part).collect();
        let calls: String = message.tool_calls.iter().map(call).collect();
        role + &parts + &calls
    };
    Ok(messages.iter().map(turn).collect::<Vec<_>>().join("; "))
}

#[track_caller]
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[track_caller]
fn check(messages: Value, expected: &str) {
    assert_eq!(block_on(read(&messages, false)).as_deref(), Ok(expected), "{messages}");
}

#[track_caller]
fn refused(messages: Value, expected: &str) {
    let shown = messages.to_string().chars().take(120).collect::<String>();
    let refusal = block_on(read(&messages, false)).expect_err(&shown);
    let body = refusal.body(Dialect::Compatible, "");
    assert_eq!(body["error"]["message"], expected, "{shown}");
    assert_eq!(refusal.status(), 400, "{shown}");
}

/// A user's turn.
fn user(content: Value) -> Value {
    json!([{"role": "user", "content": content}])
}

/// `hi` as a data URI.
const HI: &str = "data:image/png;base64,aGk=";
const HI_IMAGE: &str = "image(hi 3136..1003520)";

#[test]
fn contents_in_all_spellings() {
    check(user(json!("Hi")), r#"User: "Hi""#);
    check(user(json!("")), r#"User: """#);
    check(user(json!(["Hi", "there"])), r#"User: "Hi" "there""#);
    check(user(json!([{"type": "text", "text": "Hi"}])), r#"User: "Hi""#);
    check(user(json!([{"text": "Hi"}])), r#"User: "Hi""#);
    check(user(json!([])), "User:");
    for image in [
        json!({"type": "image_url", "image_url": {"url": HI}}),
        json!({"type": "image_url", "image_url": {"url": HI, "detail": "low"}}),
        json!({"type": "image_url", "image_url": HI}),
        json!({"type": "image", "image": HI}),
        json!({"image_url": {"url": HI}}),
        json!({"image": HI}),
        json!({"type": null, "image": HI, "text": null}),
    ] {
        check(user(json!([image])), &format!("User: {HI_IMAGE}"));
    }
    // Order is kept.
    check(
        user(json!([{"text": "A"}, {"image": HI}, "B", {"image": HI}])),
        &format!(r#"User: "A" {HI_IMAGE} "B" {HI_IMAGE}"#),
    );
}

#[test]
fn roles() {
    check(
        json!([{"role": "system", "content": ["S"]}, {"role": "user", "content": "U"},
               {"role": "assistant", "content": [{"text": "A"}]}, {"role": "user", "content": "V"}]),
        r#"System: "S"; User: "U"; Assistant: "A"; User: "V""#,
    );
    check(
        json!([{"role": "developer", "content": "S"}, {"role": "user", "content": "U", "name": "me"}]),
        r#"System: "S"; User: "U""#,
    );
    let at = "'messages.0.role' must be one of system, user, assistant, tool and developer";
    refused(json!([{"role": "function", "content": "x"}]), at);
    refused(json!([{"role": "User", "content": "x"}]), at);
    refused(json!([{"role": 1, "content": "x"}]), at);
    refused(json!([{"content": "x"}]), at);
    refused(json!(["x"]), "'messages.0' must be Object");
    refused(
        json!([{"role": "system", "content": "x"}]),
        "The input messages do not contain elements with the role of user.",
    );
}

#[test]
fn tool_calls_and_their_results() {
    let call = |function: Value| json!([{"id": "call_1", "type": "function", "function": function}]);
    let history = |calls: Value| {
        json!([{"role": "user", "content": "U"}, {"role": "assistant", "content": null, "tool_calls": calls},
               {"role": "tool", "content": "1", "tool_call_id": "call_1"}, {"role": "tool", "content": "2"}])
    };
    for arguments in [json!("{\"b\":1,\"a\":2}"), json!({"b": 1, "a": 2})] {
        check(
            history(call(json!({"name": "f", "arguments": arguments}))),
            r#"User: "U"; Assistant: f({"b":1,"a":2}); Tool: "1"; Tool: "2""#,
        );
    }
    for arguments in [json!(""), json!(null), json!("{}")] {
        check(
            history(call(json!({"name": "f", "arguments": arguments}))),
            r#"User: "U"; Assistant: f({}); Tool: "1"; Tool: "2""#,
        );
    }
    let at = "messages.1.tool_calls.0.function";
    for arguments in [json!("{"), json!("[]"), json!(7)] {
        refused(
            history(call(json!({"name": "f", "arguments": arguments}))),
            &format!("'{at}.arguments' must be a JSON object, as String"),
        );
    }
    refused(history(call(json!({"arguments": "{}"}))), &format!("'{at}.name' must be String"));
    refused(history(call(json!("f"))), &format!("'{at}' must be Object"));
    refused(history(json!(["f"])), &format!("'{at}' must be Object"));
    refused(history(json!({})), "'messages.1.tool_calls' must be Array");
    refused(history(json!([])), "'messages.1.content' is required");
    let unasked =
        "messages with role \"tool\" must be a response to a preceeding message with \"tool_calls\".";
    refused(json!([{"role": "user", "content": "U"}, {"role": "tool", "content": "1"}]), unasked);
    refused(json!([{"role": "tool", "content": "1"}, {"role": "user", "content": "U"}]), unasked);
}

#[test]
fn messages_and_contents_of_no_shape() {
    let missing = "Either \"prompt\" or \"messages\" must exist and cannot both be none.";
    refused(json!(null), missing);
    refused(json!([]), "[] is too short - 'messages'");
    refused(json!({}), "'messages' must be Array");
    refused(json!("Hi"), "'messages' must be Array");
    refused(json!([{"role": "user"}]), "'messages.0.content' is required");
    refused(user(json!(null)), "'messages.0.content' is required");
    refused(user(json!(7)), "'messages.0.content' must be String or Array");
    refused(user(json!({"text": "Hi"})), "'messages.0.content' must be String or Array");
    refused(user(json!([7])), "'messages.0.content.0' must be String or Object");
    refused(user(json!(["a", null])), "'messages.0.content.1' must be String or Object");
    let kinds = "'messages.0.content.0.type' must be one of text, image_url, image, video_url and video";
    refused(user(json!([{}])), kinds);
    refused(user(json!([{"type": "input_audio", "input_audio": {}}])), kinds);
    refused(user(json!([{"type": 7}])), "'messages.0.content.0.type' must be String");
    refused(user(json!([{"type": "text"}])), "'messages.0.content.0.text' must be String");
    refused(user(json!([{"text": 7}])), "'messages.0.content.0.text' must be String");
    refused(
        user(json!([{"type": "image_url"}])),
        "'messages.0.content.0.image_url' must be String or Object",
    );
    refused(
        user(json!([{"type": "image_url", "image": HI}])),
        "'messages.0.content.0.image_url' must be String or Object",
    );
    refused(user(json!([{"image_url": {}}])), "'messages.0.content.0.image_url.url' must be String");
    refused(user(json!([{"image_url": {"url": 7}}])), "'messages.0.content.0.image_url.url' must be String");
    refused(user(json!([{"image": [HI]}])), "'messages.0.content.0.image' must be String or Object");
    refused(
        user(Value::Array(vec![json!({"image": HI}); 513])),
        "The request has 513 images and videos; at most 512 are accepted.",
    );
}

/// `n` frames.
fn frames(n: usize) -> Value {
    Value::Array(vec![json!(HI); n])
}

#[test]
fn clips_as_lists_of_frames() {
    let expected = "User: video(hi,hi,hi,hi @2 3136..12845056)";
    for video in [
        json!({"video": frames(4)}),
        json!({"video": frames(4), "fps": null}),
        json!({"type": "video", "video": frames(4)}),
        json!({"type": "video", "video": [HI, {"url": HI}, HI, HI], "fps": 2}),
    ] {
        check(user(json!([video])), expected);
    }
    for (fps, read) in [(json!(0.1), "0.1"), (json!(10), "10"), (json!("0.5"), "0.5"), (json!("1e0"), "1")] {
        let video = json!({"video": frames(4), "fps": fps, "min_pixels": 4000, "max_pixels": "100352"});
        check(user(json!([video])), &format!("User: video(hi,hi,hi,hi @{read} 4000..100352)"));
    }
    for fps in [json!(0.09), json!(10.01), json!(0), json!(-1), json!("11"), json!(1e300)] {
        refused(user(json!([{"video": frames(4), "fps": fps}])), "Range of fps should be [0.1, 10.0]");
    }
    for fps in [json!("fast"), json!("nan"), json!("inf"), json!([2]), json!({}), json!(true), json!("")] {
        refused(user(json!([{"video": frames(4), "fps": fps}])), "'fps' must be Float");
    }
    for count in [0, 1, 3, 513] {
        let video = json!({"type": "video", "video": frames(count)});
        refused(user(json!([video])), "the range of sequence images shoule be (4, 512)");
    }
    assert!(block_on(read(&user(json!([{"video": frames(512)}])), false)).is_ok());
    refused(
        user(Value::Array(vec![json!({"video": frames(512)}); 5])),
        "The request names 2560 files; at most 2048 are accepted.",
    );
    refused(
        user(json!([{"video": [HI, HI, 7, HI]}])),
        "'messages.0.content.0.video.2' must be String or Object",
    );
    refused(
        user(json!([{"video": [HI, HI, HI, "/etc/passwd"]}])),
        "The provided URL does not appear to be valid. Ensure it is correctly formatted.",
    );
    refused(user(json!([{"video": 7}])), "'messages.0.content.0.video' must be String or Array");
    refused(user(json!([{"type": "video"}])), "'messages.0.content.0.video' must be String or Array");
}

#[test]
fn video_files_are_refused_by_name() {
    let decoding = |at: &str| {
        format!(
            "Decoding a video file ('messages.0.content.{at}'; send its frames as a list of images instead) is not \
             supported by this server yet."
        )
    };
    let url = "https://example.org/a.mp4";
    refused(user(json!([{"type": "video_url", "video_url": {"url": url}}])), &decoding("0.video_url"));
    refused(user(json!(["a", {"video": url, "fps": 2}])), &decoding("1.video"));
    refused(user(json!([{"video": url, "fps": 20}])), "Range of fps should be [0.1, 10.0]");
    refused(
        user(json!([{"video": "/root/a.mp4"}])),
        "The provided URL does not appear to be valid. Ensure it is correctly formatted.",
    );
}

#[test]
fn urls_that_can_t_be_followed() {
    let invalid = "The provided URL does not appear to be valid. Ensure it is correctly formatted.";
    for url in [
        "",
        " ",
        "image.png",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://example.org/a.png",
        "gopher://example.org/",
        "javascript:alert(1)",
        "oss://bucket/a.png",
        "http://",
        "https://",
        "http://user@example.org/a.png",
        "http://user:secret@example.org/a.png",
        "http://:secret@example.org/a.png",
        "http://exa mple.org/a.png",
        "http://example.org:99999/a.png",
        "http://[::1/a.png",
        "http://256.256.256.256/a.png",
        "data:image/png,hi",
    ] {
        refused(user(json!([{"image": url}])), invalid);
    }
    refused(
        user(json!([{"image": "data:image/png;base64,*"}])),
        "Failed to decode the image during the data inspection.",
    );
    refused(
        user(json!([{"image": "https://example.org/a.png"}])),
        "Failed to download multimodal content. This server does not fetch URLs; send the file as a data URI.",
    );
}

#[test]
fn pixel_limits() {
    let image = |extra: Value| {
        let mut part = json!({"type": "image_url", "image_url": {"url": HI}});
        part.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        user(json!([part]))
    };
    check(image(json!({"max_pixels": 12_845_056})), "User: image(hi 3136..12845056)");
    check(image(json!({"max_pixels": "3136"})), "User: image(hi 3136..3136)");
    check(image(json!({"min_pixels": 4000, "max_pixels": null})), "User: image(hi 4000..1003520)");
    let (min, max) =
        ("Range of min_pixels should be [3136, 12845056]", "Range of max_pixels should be [3136, 12845056]");
    refused(image(json!({"min_pixels": 3135})), min);
    refused(image(json!({"max_pixels": 12_845_057})), max);
    refused(image(json!({"max_pixels": -1})), max);
    refused(image(json!({"max_pixels": "big"})), "'max_pixels' must be Integer");
    refused(
        image(json!({"min_pixels": 5000, "max_pixels": 4000})),
        "min_pixels (5000) must not exceed max_pixels (4000)",
    );
    // High resolution overrules the picture's own upper limit.
    let high = block_on(read(&image(json!({"max_pixels": 4000, "min_pixels": 5000})), true));
    assert_eq!(high.as_deref(), Ok("User: image(hi 5000..12845056)"));
}
