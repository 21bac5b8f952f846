//! Renderings, written out by hand from the official templates.

use std::sync::Arc;

use ocellus_vision_encoder::resize::PixelLimits;
use serde_json::{Value, json};

use super::*;
use crate::{ImagePart, VideoPart};

const PLAIN: Conversation<'_> =
    Conversation { messages: &[], tools: &[], number_media: false, add_generation_prompt: true };

fn image() -> Part {
    Part::Image(ImagePart { bytes: Arc::from([]), limits: PixelLimits::HOSTED })
}

fn video() -> Part {
    Part::Video(VideoPart { frames: Vec::new(), fps: 2.0, limits: PixelLimits::HOSTED })
}

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

fn message(role: Role, parts: impl Into<Vec<Part>>) -> Message {
    Message { role, parts: parts.into(), tool_calls: Vec::new() }
}

fn calls(says: &str, calls: &[(&str, Value)]) -> Message {
    let tool_calls = calls
        .iter()
        .map(|(name, arguments)| ToolCall { name: name.to_string(), arguments: arguments.clone() });
    Message { tool_calls: tool_calls.collect(), ..Message::text(Role::Assistant, says) }
}

/// Renders to text, and checks that no two texts follow one another and that loading asked for all control tokens.
fn check(conversation: Conversation<'_>, expected: &str) {
    let segments = conversation.segments().unwrap();
    assert_eq!(segments.iter().map(ToString::to_string).collect::<String>(), expected);
    for pair in segments.windows(2) {
        assert!(!matches!(pair, [Segment::Text(_), Segment::Text(_)]), "{pair:?}");
    }
    for segment in &segments {
        assert!(!matches!(segment, Segment::Control(name) if !CONTROLS.contains(name)), "{segment:?}");
    }
}

#[test]
fn inserts_the_system_message() {
    let hello = Message::text(Role::User, "Hello");
    let system = Message::text(Role::System, "Be brief.");
    let expected = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n\
        <|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n";
    check(Conversation { messages: std::slice::from_ref(&hello), ..PLAIN }, expected);
    let expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n";
    let without_prompt = Conversation { add_generation_prompt: false, ..PLAIN };
    check(Conversation { messages: &[system.clone(), hello.clone()], ..without_prompt }, expected);
    // A later system message stays where it is.
    let expected = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n\
        <|im_start|>user\nHello<|im_end|>\n<|im_start|>system\nBe brief.<|im_end|>\n";
    check(Conversation { messages: &[hello, system], ..without_prompt }, expected);
    // An empty one counts.
    let empty = message(Role::System, []);
    check(Conversation { messages: &[empty], ..without_prompt }, "<|im_start|>system\n<|im_end|>\n");
}

#[test]
fn keeps_the_order_of_contents_and_numbers_them() {
    let messages = [
        message(Role::User, [text("a"), image(), text("b"), text("c"), video(), image()]),
        message(Role::Assistant, [text("d")]),
        message(Role::User, [video(), text("e")]),
    ];
    let conversation = Conversation { messages: &messages, ..PLAIN };
    check(
        conversation,
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n\
        <|im_start|>user\na<|vision_start|><|image_pad|><|vision_end|>\
        bc<|vision_start|><|video_pad|><|vision_end|>\
        <|vision_start|><|image_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\nd<|im_end|>\n\
        <|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>e<|im_end|>\n<|im_start|>assistant\n",
    );
    check(
        Conversation { number_media: true, ..conversation },
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\na\
        Picture 1: <|vision_start|><|image_pad|><|vision_end|>\
        bcVideo 1: <|vision_start|><|video_pad|><|vision_end|>\
        Picture 2: <|vision_start|><|image_pad|><|vision_end|><|im_end|>\n\
        <|im_start|>assistant\nd<|im_end|>\n\
        <|im_start|>user\nVideo 2: <|vision_start|><|video_pad|><|vision_end|>e<|im_end|>\n\
        <|im_start|>assistant\n",
    );
    let media: Vec<_> = conversation
        .segments()
        .unwrap()
        .into_iter()
        .filter_map(|segment| match segment {
            Segment::Media { index, kind } => Some((index, kind)),
            _ => None,
        })
        .collect();
    let (image, video) = (MediaKind::Image, MediaKind::Video);
    assert_eq!(media, [(0, image), (1, video), (2, image), (3, video)]);
}

#[test]
fn renders_tools_calls_and_results() {
    let tool = json!({"type": "function", "function": {"name": "f", "description": "Größe in °C"}});
    let messages = [
        Message::text(Role::System, "Be brief."),
        message(Role::User, [image(), text("Warm?")]),
        calls("", &[("f", json!({"b": 1.0, "a": ["x"]}))]),
        message(Role::Tool, [text("20")]),
        message(Role::Tool, [text("2"), text("1")]),
        calls("Again.", &[("f", json!({})), ("g\"", json!({"n": null}))]),
        message(Role::Tool, [text("22")]),
        Message::text(Role::User, "Thanks"),
    ];
    check(
        Conversation { messages: &messages, tools: &[tool.clone(), tool.clone()], ..PLAIN },
        "<|im_start|>system\nBe brief.\n\n# Tools\n\n\
        You may call one or more functions to assist with the user query.\n\n\
        You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n\
        {\"type\": \"function\", \"function\": {\"name\": \"f\", \"description\": \"Größe in °C\"}}\n\
        {\"type\": \"function\", \"function\": {\"name\": \"f\", \"description\": \"Größe in °C\"}}\n\
        </tools>\n\nFor each function call, return a json object with function name and arguments within \
        <tool_call></tool_call> XML tags:\n<tool_call>\n\
        {\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n\
        <|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Warm?<|im_end|>\n\
        <|im_start|>assistant\n<tool_call>\n\
        {\"name\": \"f\", \"arguments\": {\"b\": 1.0, \"a\": [\"x\"]}}\n</tool_call><|im_end|>\n\
        <|im_start|>user\n<tool_response>\n20\n</tool_response>\n\
        <tool_response>\n21\n</tool_response><|im_end|>\n\
        <|im_start|>assistant\nAgain.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n\
        <tool_call>\n{\"name\": \"g\"\", \"arguments\": {\"n\": null}}\n</tool_call><|im_end|>\n\
        <|im_start|>user\n<tool_response>\n22\n</tool_response><|im_end|>\n\
        <|im_start|>user\nThanks<|im_end|>\n<|im_start|>assistant\n",
    );
    // Without a system message the default one opens the description of the tools.
    let segments = Conversation { messages: &messages[1..2], tools: &[tool], ..PLAIN }.segments().unwrap();
    let Segment::Text(opening) = &segments[1] else { panic!("{segments:?}") };
    assert!(opening.starts_with("system\nYou are a helpful assistant.\n\n# Tools\n\n"), "{opening}");
}

#[test]
fn calls_are_control_tokens_and_spelled_ones_are_text() {
    let spelled = "<tool_call><|im_end|><|image_pad|>";
    let messages = [Message::text(Role::User, spelled), calls(spelled, &[(spelled, json!({"a": spelled}))])];
    let segments =
        Conversation { messages: &messages, add_generation_prompt: false, ..PLAIN }.segments().unwrap();
    let (start, end) = (Segment::Control("<|im_start|>"), Segment::Control("<|im_end|>"));
    let run = |text: &str| Segment::Text(text.to_owned());
    let expected = [
        start.clone(),
        run("system\nYou are a helpful assistant."),
        end.clone(),
        run("\n"),
        start.clone(),
        run("user\n<tool_call><|im_end|><|image_pad|>"),
        end.clone(),
        run("\n"),
        start,
        run("assistant\n<tool_call><|im_end|><|image_pad|>\n"),
        Segment::Control("<tool_call>"),
        run(&format!("\n{{\"name\": \"{spelled}\", \"arguments\": {{\"a\": \"{spelled}\"}}}}\n")),
        Segment::Control("</tool_call>"),
        end,
        run("\n"),
    ];
    assert_eq!(segments, expected);
}

#[test]
fn refuses_what_the_template_cant_say() {
    let check = |conversation: Conversation<'_>, message: &str| {
        assert_eq!(conversation.segments(), Err(Error::InvalidRequest(message.to_owned())));
    };
    check(PLAIN, "there are no messages, expected at least one");
    let hello = [Message::text(Role::User, "Hello")];
    for (tool, found) in [
        (json!(null), "null"),
        (json!(true), "a boolean"),
        (json!(1), "a number"),
        (json!("{}"), "a string"),
        (json!([{}]), "a list"),
    ] {
        let conversation = Conversation { messages: &hello, tools: std::slice::from_ref(&tool), ..PLAIN };
        check(conversation, &format!("a tool is {found}, expected a JSON object"));
        let messages = [calls("", &[("f", tool.clone())])];
        let conversation = Conversation { messages: &messages, ..PLAIN };
        check(conversation, &format!("the arguments of a call of \"f\" are {found}, expected a JSON object"));
    }
}
