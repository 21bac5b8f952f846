//! The chat template: messages become segments, that is control tokens, plain text and places for pictures
//! and clips.
//!
//! Qwen2.5-VL has two official templates: `chat_template.json` renders pictures and clips but no tools, the
//! one in `tokenizer_config.json` renders tools but only text. This is both in one: contents as the first,
//! tools as the second; where they overlap they agree. Plain text between two control tokens is always one
//! segment, because splitting it would change its tokens.

mod json;

use crate::{Error, Message, Part, Request, Role, ToolCall};

/// A conversation as the template sees it.
#[derive(Clone, Copy, Debug)]
pub struct Conversation<'a> {
    /// The turns in their order.
    pub messages: &'a [Message],
    /// Functions that the model may call: JSON objects, rendered with their keys in this order.
    pub tools: &'a [serde_json::Value],
    /// Put `Picture N: ` and `Video N: ` before pictures and clips, counted from 1 over the whole
    /// conversation.
    pub number_media: bool,
    /// End with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
}

/// A piece of a rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A control token, by its name.
    Control(&'static str),
    /// Plain text between two others. Control tokens spelled in it stay text.
    Text(String),
    /// The place of a picture's or clip's embeddings. The markers around it are segments of their own.
    Media {
        /// Its number among the pictures and clips of the conversation, from 0.
        index: usize,
        /// Which of both it is.
        kind: MediaKind,
    },
}

/// A picture or a clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    /// A still picture.
    Image,
    /// A clip.
    Video,
}

/// Every control token that a rendering may have. A vocabulary without one of them belongs to another model.
pub(crate) const CONTROLS: [&str; 6] =
    ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<tool_call>", "</tool_call>"];

const DEFAULT_SYSTEM: &str = "You are a helpful assistant.";

const TOOLS_BEFORE: &str = "\n\n# Tools\n\n\
    You may call one or more functions to assist with the user query.\n\n\
    You are provided with function signatures within <tools></tools> XML tags:\n<tools>";

const TOOLS_AFTER: &str = "\n</tools>\n\n\
    For each function call, return a json object with function name and arguments within ";

impl<'a> From<&'a Request> for Conversation<'a> {
    /// The request's conversation, with the assistant's turn opened.
    fn from(request: &'a Request) -> Self {
        Self {
            messages: &request.messages,
            tools: &request.tools,
            number_media: request.number_media,
            add_generation_prompt: true,
        }
    }
}

impl Conversation<'_> {
    /// Renders the conversation. An error when there are no messages, or when a tool or the arguments of a
    /// call are no JSON object.
    pub fn segments(&self) -> Result<Vec<Segment>, Error> {
        let mut turns = self.messages;
        let mut rendering = Rendering::new(self.number_media);
        let Some(first) = self.messages.first() else {
            return Err(Error::InvalidRequest("there are no messages, expected at least one".to_owned()));
        };
        rendering.open("system");
        if first.role == Role::System {
            rendering.parts(&first.parts);
            turns = &turns[1..];
        } else {
            rendering.text(DEFAULT_SYSTEM);
        }
        if !self.tools.is_empty() {
            rendering.tools(self.tools)?;
        }
        rendering.close();
        let mut follows_tool = false;
        for (index, message) in turns.iter().enumerate() {
            match message.role {
                Role::System => rendering.turn("system", message),
                Role::User => rendering.turn("user", message),
                Role::Assistant if message.tool_calls.is_empty() => rendering.turn("assistant", message),
                Role::Assistant => rendering.calls(message)?,
                Role::Tool => {
                    let is_last = turns.get(index + 1).is_none_or(|next| next.role != Role::Tool);
                    rendering.tool_result(message, ResultPlace { is_first: !follows_tool, is_last });
                }
            }
            follows_tool = message.role == Role::Tool;
        }
        if self.add_generation_prompt {
            rendering.open("assistant");
        }
        Ok(rendering.segments)
    }
}

/// Segments so far.
struct Rendering {
    segments: Vec<Segment>,
    number_media: bool,
    n_images: usize,
    n_videos: usize,
}

/// Where a tool's result stands among those that share one turn.
struct ResultPlace {
    is_first: bool,
    is_last: bool,
}

impl Rendering {
    fn new(number_media: bool) -> Self {
        Self { segments: Vec::new(), number_media, n_images: 0, n_videos: 0 }
    }

    fn turn(&mut self, role: &str, message: &Message) {
        self.open(role);
        self.parts(&message.parts);
        self.close();
    }

    fn open(&mut self, role: &str) {
        self.control("<|im_start|>");
        self.text(role);
        self.text("\n");
    }

    fn close(&mut self) {
        self.control("<|im_end|>");
        self.text("\n");
    }

    fn parts(&mut self, parts: &[Part]) {
        for part in parts {
            match part {
                Part::Text(text) => self.text(text),
                Part::Image(_) => self.media(MediaKind::Image),
                Part::Video(_) => self.media(MediaKind::Video),
            }
        }
    }

    fn media(&mut self, kind: MediaKind) {
        let index = self.n_images + self.n_videos;
        let (name, number) = match kind {
            MediaKind::Image => ("Picture", &mut self.n_images),
            MediaKind::Video => ("Video", &mut self.n_videos),
        };
        *number += 1;
        if self.number_media {
            let label = format!("{name} {number}: ");
            self.text(&label);
        }
        self.control("<|vision_start|>");
        self.segments.push(Segment::Media { index, kind });
        self.control("<|vision_end|>");
    }

    /// The description of the tools, at the end of the system's turn.
    fn tools(&mut self, tools: &[serde_json::Value]) -> Result<(), Error> {
        self.text(TOOLS_BEFORE);
        for tool in tools {
            if !tool.is_object() {
                return Err(Error::InvalidRequest(format!(
                    "a tool is {}, expected a JSON object",
                    kind_of(tool)
                )));
            }
            self.text("\n");
            self.text(&json::python_style(tool));
        }
        self.text(TOOLS_AFTER);
        self.control("<tool_call>");
        self.control("</tool_call>");
        self.text(" XML tags:\n");
        self.control("<tool_call>");
        self.text("\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n");
        self.control("</tool_call>");
        Ok(())
    }

    /// A turn in which the assistant calls functions, perhaps after saying something.
    fn calls(&mut self, message: &Message) -> Result<(), Error> {
        self.control("<|im_start|>");
        self.text("assistant");
        let says_nothing =
            message.parts.iter().all(|part| matches!(part, Part::Text(text) if text.is_empty()));
        if !says_nothing {
            self.text("\n");
            self.parts(&message.parts);
        }
        for ToolCall { name, arguments } in &message.tool_calls {
            if !arguments.is_object() {
                let found = kind_of(arguments);
                return Err(Error::InvalidRequest(format!(
                    "the arguments of a call of {name:?} are {found}, expected a JSON object"
                )));
            }
            self.text("\n");
            self.control("<tool_call>");
            // The official template doesn't escape the name.
            self.text(&format!(
                "\n{{\"name\": \"{name}\", \"arguments\": {}}}\n",
                json::python_style(arguments)
            ));
            self.control("</tool_call>");
        }
        self.close();
        Ok(())
    }

    /// Results that follow one another share one turn of the user.
    fn tool_result(&mut self, message: &Message, place: ResultPlace) {
        if place.is_first {
            self.control("<|im_start|>");
            self.text("user");
        }
        self.text("\n<tool_response>\n");
        self.parts(&message.parts);
        self.text("\n</tool_response>");
        if place.is_last {
            self.close();
        }
    }

    fn control(&mut self, name: &'static str) {
        self.segments.push(Segment::Control(name));
    }

    fn text(&mut self, text: &str) {
        match self.segments.last_mut() {
            _ if text.is_empty() => {}
            Some(Segment::Text(before)) => before.push_str(text),
            _ => self.segments.push(Segment::Text(text.to_owned())),
        }
    }
}

fn kind_of(value: &serde_json::Value) -> &'static str {
    match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "a boolean",
        serde_json::Value::Number(_) => "a number",
        serde_json::Value::String(_) => "a string",
        serde_json::Value::Array(_) => "a list",
        serde_json::Value::Object(_) => "an object",
    }
}

impl std::fmt::Display for Segment {
    /// What the official template writes for this segment.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Control(name) => name,
            Self::Text(text) => text,
            Self::Media { kind: MediaKind::Image, .. } => "<|image_pad|>",
            Self::Media { kind: MediaKind::Video, .. } => "<|video_pad|>",
        })
    }
}

#[cfg(test)]
mod tests;
