//! Every kind of answer in every form of both dialects, byte for byte, one snapshot for each kind: whole and streamed
//! for the compatible dialect; whole, cumulative and incremental for DashScope's own.
//!
//! What is about framing is scripted. What the engine must decide, where a character or a stop lies across tokens, is
//! said by the tiny model itself, which a schema leaves no choice of words.

use ocellus_engine::{Logprob, TokenLogprob};

use super::*;
use crate::real;

const NATIVE: &str = "/api/v1/services/aigc/multimodal-generation/generation";

/// The answers to one question in all forms. `content` is a list of parts in DashScope's spelling, which both dialects
/// take.
async fn every_form(app: &axum::Router, content: &Value, parameters: &Value) -> String {
    let messages = json!([{"role": "user", "content": content}]);
    let mut text = String::new();
    for streamed in [false, true] {
        let mut body = json!({"model": "qwen-vl-max", "messages": messages, "stream": streamed});
        body["stream_options"] = json!({"include_usage": true});
        body.as_object_mut().unwrap().extend(parameters.as_object().unwrap().clone());
        let answer = read(send(app.clone(), post(CHAT, body.to_string())).await).await;
        let form = if streamed { "streamed" } else { "whole" };
        text += &format!("=== compatible, {form}\n{answer}\n");
    }
    for (form, header, incremental) in
        [("whole", "", false), ("cumulative", "enable", false), ("incremental", "enable", true)]
    {
        let mut parameters = parameters.clone();
        parameters["incremental_output"] = json!(incremental);
        let body = json!({"model": "qwen-vl-max", "input": {"messages": messages}, "parameters": parameters});
        let request = HttpRequest::post(NATIVE).header("x-dashscope-sse", header);
        let answer = read(send(app.clone(), request.body(body.to_string().into()).unwrap()).await).await;
        text += &format!("=== DashScope, {form}\n{answer}\n");
    }
    text
}

fn hi() -> Value {
    json!([{"text": "Hi"}])
}

/// An answer of these pieces to a prompt of this kind.
fn scripted(prompt: PromptTokens, media: Vec<MediaSize>, pieces: &[&str]) -> Arc<Scripted> {
    let texts = pieces.iter().enumerate().map(|(index, text)| {
        let logprobs = vec![logprob(index as u32, text, -0.25), logprob(9, "x", -1.5)];
        let token = TokenLogprob { chosen: logprobs[0].clone(), top: logprobs };
        Event::Text(TextDelta { text: (*text).into(), completion_tokens: index + 1, logprobs: vec![token] })
    });
    let end = Finished {
        reason: FinishReason::Stop,
        prompt,
        completion_tokens: pieces.len() + 1,
        timings: Timings::default(),
    };
    let events = [Event::Started(Started { prompt, media })].into_iter().chain(texts);
    Scripted::new(events.chain([Event::Finished(end)]).map(Step::Event).collect())
}

fn logprob(id: u32, text: &str, logprob: f32) -> Logprob {
    Logprob { id, bytes: text.into(), logprob }
}

const TEXT: PromptTokens = PromptTokens { text: 20, image: 0, video: 0 };

fn about_text(pieces: &[&str]) -> axum::Router {
    scripted(TEXT, Vec::new(), pieces).app()
}

#[tokio::test]
async fn text() {
    let app = about_text(&["This", " is \"it\"", "\n\u{1f415}."]);
    insta::assert_snapshot!(every_form(&app, &hi(), &json!({})).await);
}

#[tokio::test]
async fn an_image() {
    let image = MediaSize { original: (1365, 2048), seen: (812, 1204), frames: 1, tokens: 1247 };
    let engine = scripted(PromptTokens { text: 29, image: 1247, video: 0 }, vec![image], &["A dog", "."]);
    let content = json!([{"image": "data:image/png;base64,aGk="}, {"text": "What is this?"}]);
    insta::assert_snapshot!(every_form(&engine.app(), &content, &json!({})).await);
}

#[tokio::test]
async fn a_list_of_frames() {
    let clip = MediaSize { original: (56, 84), seen: (56, 84), frames: 4, tokens: 12 };
    let engine = scripted(PromptTokens { text: 24, image: 0, video: 12 }, vec![clip], &["It moves", "."]);
    let frames = vec!["data:image/png;base64,aGk="; 4];
    let content = json!([{"video": frames, "fps": 2}, {"text": "What happens?"}]);
    insta::assert_snapshot!(every_form(&engine.app(), &content, &json!({})).await);
}

#[tokio::test]
async fn tools() {
    let call = "<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"dog\"}}\n</tool_call>";
    let (head, tail) = call.split_at(60);
    let app = about_text(&["Well.", "\n", head, tail]);
    let tools = json!([{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]);
    insta::assert_snapshot!(every_form(&app, &hi(), &json!({"tools": tools})).await);
}

#[tokio::test]
async fn logprobs() {
    let parameters = json!({"logprobs": true, "top_logprobs": 2});
    insta::assert_snapshot!(every_form(&about_text(&["This", " is it."]), &hi(), &parameters).await);
}

#[tokio::test]
async fn two_choices() {
    insta::assert_snapshot!(every_form(&about_text(&["This", " is it."]), &hi(), &json!({"n": 2})).await);
}

/// What the tiny model says when it may say nothing else than a JSON text.
async fn forced(text: &str, more: Value) -> String {
    let schema = json!({"const": text});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": schema}});
    let mut parameters = json!({"temperature": 0, "max_tokens": 40, "response_format": format});
    parameters.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let app = app(State::new(real::engine(), Settings::new("eye")).unwrap());
    every_form(&app, &hi(), &parameters).await
}

#[tokio::test]
async fn a_schema() {
    insta::assert_snapshot!(forced("one two three", json!({})).await);
}

/// A character of four bytes that no single token has: it comes whole, with its last token.
#[tokio::test]
async fn a_character_across_tokens() {
    insta::assert_snapshot!(forced("a\u{130e0}\u{1f415}\u{200d}\u{1f9ba}z", json!({})).await);
}

/// The stop begins in one token and ends in another: nothing of it is ever seen, and nothing before it is lost.
#[tokio::test]
async fn a_stop_across_tokens() {
    insta::assert_snapshot!(forced("one two three four", json!({"stop": ["zero", "wo thre"]})).await);
}

/// What looked like the beginning of a stop and was none comes after all, with the end of the answer at the latest.
#[tokio::test]
async fn no_stop_after_all() {
    insta::assert_snapshot!(forced("one two three", json!({"stop": ["two fo", "three\"four"]})).await);
}
