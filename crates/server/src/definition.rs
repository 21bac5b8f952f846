//! Every parameter of a request, defined once: its name, what it does, its range and its default.
//!
//! The readers of both dialects take their ranges and messages from here, and `/openapi.json` is made of the tables at
//! the top: a parameter is taken where a table has it, and nowhere else.

use std::ops::Bound::{Excluded, Included, Unbounded};

use ocellus_engine::PixelLimits;
use serde_json::{Map, Value, json};

use crate::conversation::{DEFAULT_FRAME_RATE, MOST_MEDIA};
use crate::kind::{Boolean, Described, Integer, Number, Range, Ranged, Shaped, properties};
use crate::parameter::Bounds;

/// The body of a chat completion.
pub(crate) fn chat(bounds: &Bounds) -> Map<String, Value> {
    let own: [&dyn Described; 4] = [&MODEL, &MESSAGES, &STREAM, &STREAM_OPTIONS];
    shared(bounds).into_iter().chain(properties(&own)).collect()
}

/// The `parameters` of DashScope's own dialect.
pub(crate) fn generation(bounds: &Bounds) -> Map<String, Value> {
    let own: [&dyn Described; 3] = [&INCREMENTAL_OUTPUT, &VL_ENABLE_IMAGE_HW_OUTPUT, &FPS];
    shared(bounds).into_iter().chain(properties(&own)).collect()
}

/// An estimate by nothing but sizes.
pub(crate) fn estimate() -> Map<String, Value> {
    properties(&[&MEDIA, &VL_HIGH_RESOLUTION_IMAGES])
}

/// A picture or clip of an estimate. Without the sides there is no answer, so they can't be null either.
fn medium() -> Map<String, Value> {
    let numbers: [&dyn Described; 5] = [&MIN_PIXELS, &MAX_PIXELS, &TOTAL_FRAMES, &FRAME_RATE, &FPS];
    let mut medium = properties(&numbers);
    medium.extend(properties(&[&MEDIA_TYPE]));
    for mut side in properties(&[&HEIGHT, &WIDTH]) {
        side.1["type"] = json!(["integer", "string"]);
        medium.extend([side]);
    }
    medium
}

/// What both dialects take.
fn shared(bounds: &Bounds) -> Map<String, Value> {
    properties(&[
        &TEMPERATURE,
        &TOP_P,
        &TOP_K,
        &MIN_P,
        &REPETITION_PENALTY,
        &PRESENCE_PENALTY,
        &FREQUENCY_PENALTY,
        &max_tokens(bounds.max_completion_tokens),
        &max_completion_tokens(bounds.max_completion_tokens),
        &seed(bounds.largest_seed),
        &STOP,
        &LOGPROBS,
        &TOP_LOGPROBS,
        &LOGIT_BIAS,
        &VL_HIGH_RESOLUTION_IMAGES,
        &COORDINATES,
        &N,
        &RESPONSE_FORMAT,
        &TOOLS,
        &TOOL_CHOICE,
        &PARALLEL_TOOL_CALLS,
    ])
}

pub(crate) const MODEL: Shaped = Shaped {
    name: "model",
    schema: || json!({"type": "string", "description": "A name that the model answers to."}),
};

pub(crate) const TEMPERATURE: Number = Ranged {
    name: "temperature",
    about: "0 takes the likeliest token.",
    range: Range(Included(0.0), Excluded(2.0)),
    complaint: "Temperature should be in",
    default: None,
};

pub(crate) const TOP_P: Number = Ranged {
    name: "top_p",
    about: "Only the likeliest tokens of this share.",
    range: Range(Excluded(0.0), Included(1.0)),
    complaint: "Range of top_p should be",
    default: None,
};

pub(crate) const TOP_K: Integer = Ranged {
    name: "top_k",
    about: "Only so many tokens; 0, null and more than 100 switch it off.",
    range: Range(Included(0), Unbounded),
    complaint: "Parameter top_k be",
    default: None,
};

pub(crate) const MIN_P: Number = Ranged {
    name: "min_p",
    about: "Only tokens of this share of the likeliest one's.",
    range: Range(Included(0.0), Included(1.0)),
    complaint: "Range of min_p should be",
    default: None,
};

pub(crate) const REPETITION_PENALTY: Number = Ranged {
    name: "repetition_penalty",
    about: "Over prompt and answer; 1 switches it off.",
    range: Range(Excluded(0.0), Unbounded),
    complaint: "Repetition_penalty should be",
    default: None,
};

pub(crate) const PRESENCE_PENALTY: Number = Ranged {
    name: "presence_penalty",
    about: "For tokens that are in the answer.",
    range: Range(Included(-2.0), Included(2.0)),
    complaint: "Presence_penalty should be in",
    default: None,
};

pub(crate) const FREQUENCY_PENALTY: Number = Ranged {
    name: "frequency_penalty",
    about: "For each time a token is in the answer.",
    range: Range(Included(-2.0), Included(2.0)),
    complaint: "Frequency_penalty should be in",
    default: None,
};

/// Up to what the model and the operator allow.
pub(crate) fn max_tokens(most: usize) -> Integer {
    Ranged {
        name: "max_tokens",
        about: "The longest answer.",
        range: Range(Included(1), Included(most as i128)),
        complaint: "Range of max_tokens should be",
        default: Some(most as i128),
    }
}

/// The newer name, which messages don't use.
pub(crate) fn max_completion_tokens(most: usize) -> Integer {
    Ranged { name: "max_completion_tokens", about: "The same; it wins.", ..max_tokens(most) }
}

/// Up to what the route takes.
pub(crate) fn seed(largest: u64) -> Integer {
    Ranged {
        name: "seed",
        about: "The same seed gives the same answer.",
        range: Range(Included(0), Included(largest as i128)),
        complaint: "Range of seed should be",
        default: None,
    }
}

pub(crate) const STOP: Shaped = Shaped {
    name: "stop",
    schema: || json!({"description": "A text, texts, token ids, or lists of token ids that end the answer."}),
};

pub(crate) const LOGPROBS: Boolean =
    Boolean { name: "logprobs", about: "Tell how likely the tokens were.", default: false };

pub(crate) const TOP_LOGPROBS: Integer = Ranged {
    name: "top_logprobs",
    about: "And so many others.",
    range: Range(Included(0), Included(5)),
    complaint: "Range of top_logprobs should be",
    default: Some(0),
};

pub(crate) const LOGIT_BIAS: Shaped = Shaped {
    name: "logit_bias",
    schema: || {
        json!({"type": ["object", "null"], "description": "Token ids and what is added to their logits.",
            "additionalProperties": BIAS.schema()})
    },
};

/// A value of [`LOGIT_BIAS`], whose key is a token's id.
pub(crate) const BIAS: Number = Ranged {
    name: "logit_bias",
    about: "Added to the logit.",
    range: Range(Included(-100.0), Included(100.0)),
    complaint: "The values of 'logit_bias' should be in",
    default: None,
};

pub(crate) const VL_HIGH_RESOLUTION_IMAGES: Boolean = Boolean {
    name: "vl_high_resolution_images",
    about: "Pictures may take 16384 tokens in place of 1280.",
    default: false,
};

pub(crate) const COORDINATES: Shaped = Shaped {
    name: "coordinates",
    schema: || {
        json!({"enum": ["seen", "original", null], "default": "seen", "description":
            "`original` turns boxes and points of the answer into pixels of the picture that was sent."})
    },
};

pub(crate) const N: Integer = Ranged {
    name: "n",
    about: "Answers; 1 where functions may be called.",
    range: Range(Included(1), Included(4)),
    complaint: "Range of n should be",
    default: Some(1),
};

pub(crate) const RESPONSE_FORMAT: Shaped = Shaped {
    name: "response_format",
    schema: || {
        json!({"type": ["object", "null"], "properties": {
            "type": {"type": "string", "enum": ["text", "json_object", "json_schema"]},
            "json_schema": {"type": "object", "properties": {
                "name": {"type": "string"}, "schema": {"type": "object"}, STRICT.name: STRICT.schema(),
            }},
        }})
    },
};

pub(crate) const STRICT: Boolean = Boolean {
    name: "strict",
    about: "Refuse a schema of which something can't be enforced.",
    default: false,
};

pub(crate) const TOOLS: Shaped = Shaped {
    name: "tools",
    schema: || {
        json!({"type": ["array", "null"], "items": {"type": "object", "properties": {
            "type": {"const": "function"},
            "function": {"type": "object", "properties": {
                "name": {"type": "string"}, "description": {"type": "string"}, "parameters": {"type": "object"},
                STRICT.name: STRICT.schema(),
            }},
        }}})
    },
};

pub(crate) const TOOL_CHOICE: Shaped = Shaped {
    name: "tool_choice",
    schema: || json!({"description": "\"none\", \"auto\", \"required\", or a function by its name."}),
};

pub(crate) const PARALLEL_TOOL_CALLS: Boolean = Boolean {
    name: "parallel_tool_calls",
    about: "With false an answer that must call a function calls one.",
    default: true,
};

pub(crate) const STREAM: Boolean =
    Boolean { name: "stream", about: "Answer as server-sent events.", default: false };

pub(crate) const STREAM_OPTIONS: Shaped = Shaped {
    name: "stream_options",
    schema: || json!({"type": ["object", "null"], "properties": properties(&[&INCLUDE_USAGE])}),
};

pub(crate) const INCLUDE_USAGE: Boolean =
    Boolean { name: "include_usage", about: "End the stream with the usage.", default: false };

pub(crate) const INCREMENTAL_OUTPUT: Boolean = Boolean {
    name: "incremental_output",
    about: "Stream only what is new, in place of everything so far.",
    default: false,
};

pub(crate) const VL_ENABLE_IMAGE_HW_OUTPUT: Boolean = Boolean {
    name: "vl_enable_image_hw_output",
    about: "Add the sizes of the pictures that the model saw.",
    default: false,
};

pub(crate) const MESSAGES: Shaped = Shaped {
    name: "messages",
    schema: || {
        let url = json!({"description": "http(s) or data URL."});
        let mut part = properties(&[&FPS, &MIN_PIXELS, &MAX_PIXELS]);
        part.extend([
            (
                "type".into(),
                json!({"type": "string", "enum": ["text", "image_url", "image", "video_url", "video"]}),
            ),
            ("text".into(), json!({"type": "string"})),
            ("image_url".into(), json!({"type": ["object", "string"], "properties": {"url": url}})),
            ("image".into(), url.clone()),
            ("video_url".into(), json!({"type": ["object", "string"], "properties": {"url": url}})),
            (
                "video".into(),
                json!({"description": "4 to 512 frames, or a file.", "type": ["array", "string"]}),
            ),
        ]);
        let part = json!({"type": ["object", "string"], "properties": part});
        json!({"type": "array", "minItems": 1, "items": {"type": "object", "required": ["role"], "properties": {
            "role": {"type": "string", "enum": ["system", "developer", "user", "assistant", "tool"]},
            "content": {"type": ["string", "array", "null"], "items": part},
            "tool_calls": {"type": ["array", "null"], "items": {"type": "object", "properties": {
                "function": {"type": "object", "properties": {
                    "name": {"type": "string"}, "arguments": {"type": ["string", "object", "null"]},
                }},
            }}},
        }}})
    },
};

/// Beside the frames of a clip, and beside all messages for those that have none of their own.
pub(crate) const FPS: Number = Ranged {
    name: "fps",
    about: "Frames for each second.",
    range: Range(Included(0.1), Included(10.0)),
    complaint: "Range of fps should be",
    default: Some(DEFAULT_FRAME_RATE),
};

/// All that the model can see; without high resolution it is bounded again, and not refused.
const PIXELS: Range<i128> = Range(
    Included(PixelLimits::HOSTED.min_pixels as i128),
    Included(PixelLimits::HOSTED_HIGH_RESOLUTION.max_pixels as i128),
);

pub(crate) const MIN_PIXELS: Integer = Ranged {
    name: "min_pixels",
    about: "How small the model may see it.",
    range: PIXELS,
    complaint: "Range of min_pixels should be",
    default: None,
};

pub(crate) const MAX_PIXELS: Integer = Ranged {
    name: "max_pixels",
    about: "How large the model may see it.",
    range: PIXELS,
    complaint: "Range of max_pixels should be",
    default: None,
};

pub(crate) const MEDIA: Shaped = Shaped {
    name: "media",
    schema: || {
        json!({"type": "array", "maxItems": MOST_MEDIA,
            "items": {"type": "object", "required": [HEIGHT.name, WIDTH.name], "properties": medium()}})
    },
};

pub(crate) const MEDIA_TYPE: Shaped =
    Shaped { name: "type", schema: || json!({"enum": ["image", "video", null], "default": "image"}) };

/// Sides and counts beyond this are typing errors.
const LARGEST: i128 = 1 << 24;

pub(crate) const HEIGHT: Integer = Ranged {
    name: "height",
    about: "In pixels.",
    range: Range(Included(1), Included(LARGEST)),
    complaint: "Range of height should be",
    default: None,
};

pub(crate) const WIDTH: Integer = Ranged { name: "width", complaint: "Range of width should be", ..HEIGHT };

pub(crate) const TOTAL_FRAMES: Integer = Ranged {
    name: "total_frames",
    about: "Of a video file.",
    complaint: "Range of total_frames should be",
    ..HEIGHT
};

pub(crate) const FRAME_RATE: Number = Ranged {
    name: "frame_rate",
    about: "Of a video file.",
    range: Range(Excluded(0.0), Included(1000.0)),
    complaint: "Range of frame_rate should be",
    default: None,
};

#[cfg(test)]
mod tests;
