//! What the engine tells while it answers: one [`Event::Started`], any number of [`Event::Text`], one
//! [`Event::Finished`]; or [`Event::Failed`] in place of whatever would have come next.

use std::time::Duration;

use crate::Error;

/// One step of an answer.
#[derive(Clone, Debug)]
pub enum Event {
    /// The prompt is built and the pictures are decoded; nothing can be refused for its content any more.
    Started(Started),
    /// New text.
    Text(TextDelta),
    /// The answer is complete. The stream ends.
    Finished(Finished),
    /// The request can't be answered. The stream ends.
    Failed(Error),
}

/// What is known before the first token.
#[derive(Clone, Debug)]
pub struct Started {
    /// Tokens of the prompt, by kind.
    pub prompt: PromptTokens,
    /// Each picture and clip in the order of the prompt.
    pub media: Vec<MediaSize>,
}

/// Tokens of a prompt, by kind. Markers around pictures and clips count as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromptTokens {
    /// Text, markers and the chat template.
    pub text: usize,
    /// Merged patches of pictures.
    pub image: usize,
    /// Merged patches of clips.
    pub video: usize,
}

impl PromptTokens {
    /// All tokens of the prompt.
    pub fn total(&self) -> usize {
        self.text + self.image + self.video
    }
}

/// How large a picture or clip was, and how large the model sees it. Sizes are `(height, width)` in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaSize {
    /// Upright size in the file.
    pub original: (usize, usize),
    /// Size after the resize.
    pub seen: (usize, usize),
    /// Frames; 1 for a picture.
    pub frames: usize,
    /// Tokens in the prompt, markers excluded.
    pub tokens: usize,
}

/// New text of the answer: whole characters, never a part of a stop text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextDelta {
    /// The text.
    pub text: String,
    /// Tokens generated so far, this text's included.
    pub completion_tokens: usize,
    /// One entry for each token since the last delta, when log-probabilities were asked for.
    pub logprobs: Vec<TokenLogprob>,
}

/// A generated token and how likely it was, before penalties and temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The chosen token.
    pub chosen: Logprob,
    /// The likeliest tokens, largest first.
    pub top: Vec<Logprob>,
}

/// A token, its bytes and its natural log-probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprob {
    /// The token's id.
    pub id: u32,
    /// The bytes it stands for; they may be a part of a character.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// The end of an answer.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Why it ended.
    pub reason: FinishReason,
    /// Tokens of the prompt, by kind.
    pub prompt: PromptTokens,
    /// Tokens generated; a token that ends the turn counts.
    pub completion_tokens: usize,
    /// Where the time went.
    pub timings: Timings,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn, or a stop text came.
    Stop,
    /// The limit of tokens or the end of the context was reached.
    Length,
}

/// Where the time of a request went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Decoding, resizing and cutting the pictures into patches.
    pub decode_images: Duration,
    /// Waiting for the device.
    pub queue: Duration,
    /// The vision tower.
    pub encode: Duration,
    /// The decoder over the prompt, to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}
