//! What a caller asks of the engine. Nothing here knows HTTP; both dialects are translated into these types.

use std::sync::Arc;

use ocellus_vision_encoder::resize::PixelLimits;

use crate::Constraint;

/// One conversation to continue.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The conversation in its own order. At least one message; a system message is inserted when the first
    /// one is not the system's.
    pub messages: Vec<Message>,
    /// Descriptions of functions the model may call: JSON objects, rendered with their keys in this order.
    pub tools: Vec<serde_json::Value>,
    /// Prefix pictures and clips with `Picture N: ` and `Video N: `.
    pub number_media: bool,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// At most this many tokens are generated; `None` means up to the end of the context.
    pub max_tokens: Option<usize>,
    /// What ends the answer. What is before the earliest match is kept, the match is not.
    pub stop: Vec<Stop>,
    /// What the answer has to be; `None`: anything.
    pub constraint: Option<Constraint>,
    /// Log-probabilities of each chosen token and of this many others. `None`: not wanted.
    pub logprobs: Option<usize>,
}

/// Something that ends an answer wherever it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A text, however it is divided into tokens.
    Text(String),
    /// Token ids in this order. Time for each token grows with the ids of all of these times the longest.
    Ids(Vec<u32>),
}

impl From<&str> for Stop {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// One turn of the conversation.
#[derive(Clone, Debug)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub parts: Vec<Part>,
    /// Functions that the assistant called in this turn.
    pub tool_calls: Vec<ToolCall>,
}

impl Message {
    /// A turn of text alone.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, parts: vec![Part::Text(text.into())], tool_calls: Vec::new() }
    }
}

/// Who speaks in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
    /// The result of a function.
    Tool,
}

/// A piece of a turn.
#[derive(Clone, Debug)]
pub enum Part {
    /// Plain text. Special tokens spelled in it stay text.
    Text(String),
    /// A still picture.
    Image(ImagePart),
    /// A clip given as its frames.
    Video(VideoPart),
}

/// A still picture, encoded.
#[derive(Clone, Debug)]
pub struct ImagePart {
    /// The file: BMP, JPEG, PNG, TIFF or WEBP, told by its content.
    pub bytes: Arc<[u8]>,
    /// How large the model may see it.
    pub limits: PixelLimits,
}

/// A clip given as a list of encoded frames.
#[derive(Clone, Debug)]
pub struct VideoPart {
    /// One file for each frame, in time order, all shown at the first frame's size.
    pub frames: Vec<Arc<[u8]>>,
    /// How many of these frames one second had.
    pub fps: f64,
    /// How large the model may see each frame.
    pub limits: PixelLimits,
}

/// A function that the assistant called.
#[derive(Clone, Debug)]
pub struct ToolCall {
    /// Which function.
    pub name: String,
    /// A JSON object, rendered with its keys in this order.
    pub arguments: serde_json::Value,
}

/// How the next token is chosen. All fields are valid by construction of the dialects; the sampler clamps
/// nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 chooses the likeliest token; larger is more random.
    pub temperature: f32,
    /// Only the likeliest tokens that together reach this probability; 1 switches it off.
    pub top_p: f32,
    /// Only this many of the likeliest tokens; 0 switches it off.
    pub top_k: usize,
    /// Only tokens at least this likely relative to the likeliest; 0 switches it off.
    pub min_p: f32,
    /// Added to the logits of these tokens before anything else; an id comes once at most.
    pub logit_bias: Vec<(u32, f32)>,
    /// Divides positive and multiplies negative logits of tokens in prompt and answer; 1 switches it off.
    pub repetition_penalty: f32,
    /// Taken from the logit of each token already in the answer; 0 switches it off.
    pub presence_penalty: f32,
    /// Taken from the logit once for each time a token is already in the answer; 0 switches it off.
    pub frequency_penalty: f32,
    /// The same seed gives the same text; `None` takes a new one for each request.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    /// The likeliest token, without penalties.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            logit_bias: Vec::new(),
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
        }
    }
}
