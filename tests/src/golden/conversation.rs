//! Conversations as the goldens spell them, in any of the dialects' forms, turned into the engine's messages.

use anyhow::{Context, bail};
use ocellus_engine::{ImagePart, Message, Part, Role, ToolCall, VideoPart};
use ocellus_vision_encoder::resize::PixelLimits;
use serde_json::Value;

/// The engine's messages for a JSON list of messages. Pictures and clips are placeholders without content.
///
/// # Errors
/// When a message has a form that no dialect has.
pub fn messages(json: &Value) -> anyhow::Result<Vec<Message>> {
    json.as_array().context("messages are not a list")?.iter().map(message).collect()
}

fn message(json: &Value) -> anyhow::Result<Message> {
    let role = match json["role"].as_str() {
        Some("system") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        other => bail!("a message of role {other:?}"),
    };
    let parts = match &json["content"] {
        Value::Null => Vec::new(),
        Value::String(text) => vec![Part::Text(text.clone())],
        Value::Array(parts) => parts.iter().map(part).collect::<anyhow::Result<_>>()?,
        other => bail!("a message's content is {other}"),
    };
    let calls = json["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
    let tool_calls = calls
        .iter()
        .map(|call| {
            let function = call.get("function").unwrap_or(call);
            let name = function["name"].as_str().context("a function without a name")?.to_owned();
            Ok(ToolCall { name, arguments: function["arguments"].clone() })
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(Message { role, parts, tool_calls })
}

/// A part is known by its type or, where it has none, by its key.
fn part(json: &Value) -> anyhow::Result<Part> {
    let has = |key: &str| json.get(key).is_some();
    let kind = json["type"].as_str();
    if kind == Some("image") || has("image") || has("image_url") {
        return Ok(Part::Image(ImagePart { bytes: [].into(), limits: PixelLimits::TRANSFORMERS }));
    }
    if kind == Some("video") || has("video") {
        return Ok(Part::Video(VideoPart {
            frames: Vec::new(),
            fps: 2.0,
            limits: PixelLimits::TRANSFORMERS,
        }));
    }
    match json["text"].as_str() {
        Some(text) => Ok(Part::Text(text.to_owned())),
        None => bail!("a part that is no text, picture or clip: {json}"),
    }
}
