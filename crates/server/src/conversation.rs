//! The messages of a request, in the spellings of both dialects: first parsed with media by reference, then with every
//! file fetched.

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use ocellus_engine::{ImagePart, Message, Part, PixelLimits, Role, ToolCall, VideoPart};
use reqwest::Url;
use serde_json::Value;

use crate::Refusal;
use crate::data_uri;
use crate::definition::{FPS, MAX_PIXELS, MIN_PIXELS};
use crate::fetch::{Fetcher, Limits, parse_url};
use crate::kind::Integer;
use crate::parameter::Fields;
use crate::uploads::{Owner, Uploads};

/// Most pictures and clips of a request.
pub(crate) const MOST_MEDIA: usize = 512;

/// Most files of a request, every frame of every clip counted.
const MOST_FILES: usize = 4 * MOST_MEDIA;

/// How many frames a clip may have.
const FRAMES: RangeInclusive<usize> = 4..=512;

/// How many frames one second has when nothing is said.
pub(crate) const DEFAULT_FRAME_RATE: f64 = 2.0;

/// Files of one request that are fetched at the same time.
const FETCHES: usize = 8;

/// A conversation that has been checked, apart from the files it names.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    turns: Vec<Turn>,
}

#[derive(Clone, Debug)]
struct Turn {
    role: Role,
    parts: Vec<TurnPart>,
    tool_calls: Vec<ToolCall>,
}

#[derive(Clone, Debug)]
enum TurnPart {
    Text(String),
    Image { file: File, limits: PixelLimits },
    Video { frames: Vec<File>, fps: f64, limits: PixelLimits },
}

/// Where the bytes of a file are.
#[derive(Clone, Debug)]
enum File {
    Here(Arc<[u8]>),
    Remote(Url),
    /// Uploaded before, under this key.
    Uploaded(String),
}

impl Conversation {
    /// Reads `messages`. With `high_resolution`, pictures may take as much as the model can see, whatever their own
    /// `max_pixels` say.
    pub(crate) fn read(messages: Option<&Value>, high_resolution: bool) -> Result<Self, Refusal> {
        Self::read_at_rate(messages, high_resolution, DEFAULT_FRAME_RATE)
    }

    /// The same, with the rate at which the frames of a clip were taken that says nothing of it itself.
    pub(crate) fn read_at_rate(
        messages: Option<&Value>,
        high_resolution: bool,
        frame_rate: f64,
    ) -> Result<Self, Refusal> {
        let messages = match messages {
            None | Some(Value::Null) => return Err(Refusal::MessagesMissing),
            Some(Value::Array(messages)) if messages.is_empty() => return Err(Refusal::MessagesEmpty),
            Some(Value::Array(messages)) => messages,
            Some(_) => return Err(Refusal::WrongType { name: "messages".into(), expected: "Array" }),
        };
        let reader = Reader { high_resolution, frame_rate };
        let mut turns: Vec<Turn> = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            let turn = reader.turn(&format!("messages.{index}"), message)?;
            if turn.role == Role::Tool {
                let asked = turns.iter().rev().find(|turn| turn.role != Role::Tool);
                if asked.is_none_or(|turn| turn.tool_calls.is_empty()) {
                    return Err(Refusal::ToolMessageUnasked);
                }
            }
            turns.push(turn);
        }
        if !turns.iter().any(|turn| turn.role == Role::User) {
            return Err(Refusal::NoUserMessage);
        }
        let files = turns.iter().flat_map(|turn| &turn.parts).map(TurnPart::files).filter(|&files| files > 0);
        let (count, files) = files.fold((0, 0), |(count, all), files| (count + 1, all + files));
        if count > MOST_MEDIA {
            return Err(Refusal::TooManyMedia { count, limit: MOST_MEDIA });
        }
        if files > MOST_FILES {
            return Err(bad(format!("The request names {files} files; at most {MOST_FILES} are accepted.")));
        }
        Ok(Self { turns })
    }

    /// Reads the files that were uploaded before. A request without a `reader` may name none: an `oss://` URL is no
    /// URL then.
    pub(crate) async fn resolve(
        mut self,
        uploads: &Uploads,
        reader: Option<Owner>,
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        let mut total = 0;
        for file in self.files_mut() {
            if let File::Uploaded(key) = &*file {
                let reader = reader.as_ref().ok_or(Refusal::UrlInvalid)?;
                let bytes = uploads.read(key, reader, limits.file_bytes).await?;
                total += bytes.len();
                if total > limits.request_bytes {
                    return Err(Refusal::MediaTooLarge);
                }
                *file = File::Here(bytes.into());
            }
        }
        Ok(self)
    }

    /// Fetches every file that is elsewhere, several at a time. The first one at fault in the order of the
    /// conversation decides the refusal.
    pub(crate) async fn fetch(mut self, fetcher: &Fetcher) -> Result<Vec<Message>, Refusal> {
        let limits = *fetcher.limits();
        let urls: Vec<Url> = self.files_mut().filter_map(|file| file.url().cloned()).collect();
        let fetches = stream::iter(urls).map(|url| fetcher.get(url)).buffered(FETCHES).try_fold(
            (Vec::new(), 0),
            async |(mut files, total), bytes| {
                let total = total + bytes.len();
                if total > limits.request_bytes {
                    return Err(Refusal::MediaTooLarge);
                }
                files.push(Arc::<[u8]>::from(bytes));
                Ok((files, total))
            },
        );
        let fetched = tokio::time::timeout(limits.request_timeout, fetches).await;
        let (fetched, _) = fetched.unwrap_or(Err(Refusal::DownloadTimedOut))?;
        let remote = self.files_mut().filter(|file| file.url().is_some());
        for (file, bytes) in remote.zip(fetched) {
            *file = File::Here(bytes);
        }
        self.turns.into_iter().map(Turn::into_message).collect()
    }

    /// The files in the order of the conversation.
    fn files_mut(&mut self) -> impl Iterator<Item = &mut File> {
        self.turns.iter_mut().flat_map(|turn| &mut turn.parts).flat_map(|part| match part {
            TurnPart::Text(_) => &mut [],
            TurnPart::Image { file, .. } => std::slice::from_mut(file),
            TurnPart::Video { frames, .. } => frames.as_mut_slice(),
        })
    }
}

impl TurnPart {
    /// How many files it names.
    fn files(&self) -> usize {
        match self {
            Self::Text(_) => 0,
            Self::Image { .. } => 1,
            Self::Video { frames, .. } => frames.len(),
        }
    }

    fn into_part(self) -> Result<Part, Refusal> {
        Ok(match self {
            Self::Text(text) => Part::Text(text),
            Self::Image { file, limits } => Part::Image(ImagePart { bytes: file.into_bytes()?, limits }),
            Self::Video { frames, fps, limits } => {
                let frames = frames.into_iter().map(File::into_bytes).collect::<Result<_, _>>()?;
                Part::Video(VideoPart { frames, fps, limits })
            }
        })
    }
}

impl File {
    /// The bytes, once they are here.
    fn into_bytes(self) -> Result<Arc<[u8]>, Refusal> {
        match self {
            Self::Here(bytes) => Ok(bytes),
            Self::Remote(_) => Err(Refusal::DownloadFailed),
            Self::Uploaded(_) => Err(Refusal::UrlInvalid),
        }
    }

    fn url(&self) -> Option<&Url> {
        match self {
            Self::Remote(url) => Some(url),
            Self::Here(_) | Self::Uploaded(_) => None,
        }
    }
}

impl Turn {
    fn into_message(self) -> Result<Message, Refusal> {
        let parts = self.parts.into_iter().map(TurnPart::into_part).collect::<Result<_, _>>()?;
        Ok(Message { role: self.role, parts, tool_calls: self.tool_calls })
    }
}

/// Reads JSON into turns. `at` is the place in the request, for messages.
struct Reader {
    high_resolution: bool,
    frame_rate: f64,
}

impl Reader {
    fn turn(&self, at: &str, message: &Value) -> Result<Turn, Refusal> {
        let message = message.as_object().ok_or_else(|| wrong_type(at, "Object"))?;
        let fields = Fields::new(message);
        let role = match fields.get("role") {
            Some(Value::String(role)) => match role.as_str() {
                // The newer name for the same thing.
                "system" | "developer" => Role::System,
                "user" => Role::User,
                "assistant" => Role::Assistant,
                "tool" => Role::Tool,
                _ => return Err(bad_role(at)),
            },
            _ => return Err(bad_role(at)),
        };
        let tool_calls = match role {
            Role::Assistant => tool_calls(at, fields.get("tool_calls"))?,
            _ => Vec::new(),
        };
        let at = format!("{at}.content");
        let parts = match fields.get("content") {
            Some(Value::String(text)) => vec![TurnPart::Text(text.clone())],
            Some(Value::Array(parts)) => {
                let parts = parts.iter().enumerate();
                parts
                    .map(|(index, part)| self.part(&format!("{at}.{index}"), part))
                    .collect::<Result<_, _>>()?
            }
            None if !tool_calls.is_empty() => Vec::new(),
            None => return Err(bad(format!("'{at}' is required"))),
            Some(_) => return Err(wrong_type(&at, "String or Array")),
        };
        Ok(Turn { role, parts, tool_calls })
    }

    /// One part: `{"type":"text","text":t}`, `{"type":"image_url","image_url":{"url":u}}`,
    /// `{"type":"video","video":[u,…],"fps":f}`, the native `{"text":t}`, `{"image":u}` and `{"video":[u,…],"fps":f}`,
    /// and a bare text.
    fn part(&self, at: &str, part: &Value) -> Result<TurnPart, Refusal> {
        let object = match part {
            Value::String(text) => return Ok(TurnPart::Text(text.clone())),
            Value::Object(object) => object,
            _ => return Err(wrong_type(at, "String or Object")),
        };
        let fields = Fields::new(object);
        let named = match fields.get("type") {
            Some(Value::String(kind)) => Some(kind.as_str()),
            Some(_) => return Err(wrong_type(&format!("{at}.type"), "String")),
            None => None,
        };
        const KINDS: [&str; 5] = ["text", "image_url", "image", "video_url", "video"];
        let kind = named.or_else(|| KINDS.into_iter().find(|key| fields.get(key).is_some()));
        match kind {
            Some("text") => match fields.get("text") {
                Some(Value::String(text)) => Ok(TurnPart::Text(text.clone())),
                _ => Err(wrong_type(&format!("{at}.text"), "String")),
            },
            Some(key @ ("image_url" | "image")) => {
                // `{"type":"image","image_url":…}` is neither dialect's; the key is the type's.
                let file = file(&format!("{at}.{key}"), fields.get(key))?;
                Ok(TurnPart::Image { file, limits: self.limits(&fields, PixelLimits::HOSTED)? })
            }
            Some(key @ ("video_url" | "video")) => {
                self.video(&format!("{at}.{key}"), fields.get(key), &fields)
            }
            _ => Err(bad(format!("'{at}.type' must be one of text, image_url, image, video_url and video"))),
        }
    }

    /// A clip: its frames as a list of pictures, of which `fps` were taken each second.
    fn video(&self, at: &str, value: Option<&Value>, fields: &Fields<'_>) -> Result<TurnPart, Refusal> {
        let fps = fields.number(&FPS)?;
        let frames = match value {
            Some(Value::Array(frames)) => frames,
            Some(Value::String(_) | Value::Object(_)) => {
                // What is no URL at all has its own message.
                file(at, value)?;
                let what =
                    format!("Decoding a video file ('{at}'; send its frames as a list of images instead)");
                return Err(Refusal::NotSupported { what });
            }
            _ => return Err(wrong_type(at, "String or Array")),
        };
        if !FRAMES.contains(&frames.len()) {
            return Err(Refusal::FrameCount);
        }
        let frames = frames.iter().enumerate();
        let frames = frames.map(|(index, frame)| file(&format!("{at}.{index}"), Some(frame)));
        Ok(TurnPart::Video {
            frames: frames.collect::<Result<_, _>>()?,
            fps: fps.unwrap_or(self.frame_rate),
            // The hosted service publishes no rule for lists; the model's own utilities resize each frame like a
            // single picture that may be as large as the model can see.
            limits: self.limits(fields, PixelLimits::HOSTED_HIGH_RESOLUTION)?,
        })
    }

    /// How large the model may see a picture. The rule is the hosted one, so that tokens are counted as hosted.
    fn limits(&self, fields: &Fields<'_>, default: PixelLimits) -> Result<PixelLimits, Refusal> {
        let largest = PixelLimits::HOSTED_HIGH_RESOLUTION.max_pixels;
        let pixels = |definition: &Integer| -> Result<Option<usize>, Refusal> {
            Ok(fields.number(definition)?.and_then(|value| usize::try_from(value).ok()))
        };
        let (min, max) = (pixels(&MIN_PIXELS)?, pixels(&MAX_PIXELS)?);
        let max_pixels = if self.high_resolution { largest } else { max.unwrap_or(default.max_pixels) };
        let min_pixels = min.unwrap_or(default.min_pixels);
        if min_pixels > max_pixels {
            return Err(bad(format!("min_pixels ({min_pixels}) must not exceed max_pixels ({max_pixels})")));
        }
        Ok(PixelLimits { min_pixels, max_pixels, ..default })
    }
}

/// How large the model may see a picture described by these fields.
pub(crate) fn picture_limits(fields: &Fields<'_>, high_resolution: bool) -> Result<PixelLimits, Refusal> {
    Reader { high_resolution, frame_rate: DEFAULT_FRAME_RATE }.limits(fields, PixelLimits::HOSTED)
}

/// A file's URL: a text, or an object with the text under `url`.
fn file(at: &str, value: Option<&Value>) -> Result<File, Refusal> {
    let text = match value {
        Some(Value::String(text)) => text,
        Some(Value::Object(object)) => match object.get("url") {
            Some(Value::String(text)) => text,
            _ => return Err(wrong_type(&format!("{at}.url"), "String")),
        },
        _ => return Err(wrong_type(at, "String or Object")),
    };
    if data_uri::is_data_uri(text) {
        return Ok(File::Here(data_uri::decode(text)?.into()));
    }
    if let Some(key) = text.trim().strip_prefix("oss://") {
        return Ok(File::Uploaded(key.to_owned()));
    }
    Ok(File::Remote(parse_url(text)?))
}

/// The calls in an assistant's turn: `[{"type":"function","function":{"name":n,"arguments":"{…}"}}]`.
fn tool_calls(at: &str, calls: Option<&Value>) -> Result<Vec<ToolCall>, Refusal> {
    let at = format!("{at}.tool_calls");
    let calls = match calls {
        None => return Ok(Vec::new()),
        Some(Value::Array(calls)) => calls,
        Some(_) => return Err(wrong_type(&at, "Array")),
    };
    let read = |(index, call): (usize, &Value)| {
        let at = format!("{at}.{index}.function");
        let function =
            call.get("function").and_then(Value::as_object).ok_or_else(|| wrong_type(&at, "Object"))?;
        let name = match function.get("name") {
            Some(Value::String(name)) if !name.is_empty() => name.clone(),
            _ => return Err(wrong_type(&format!("{at}.name"), "String")),
        };
        let arguments = match function.get("arguments") {
            // Functions without parameters are written in all of these ways.
            None | Some(Value::Null) => Value::Object(serde_json::Map::new()),
            Some(Value::String(text)) if text.trim().is_empty() => Value::Object(serde_json::Map::new()),
            Some(Value::String(text)) => serde_json::from_str(text).unwrap_or(Value::Null),
            Some(other) => other.clone(),
        };
        if !arguments.is_object() {
            return Err(wrong_type(&format!("{at}.arguments"), "a JSON object, as String"));
        }
        Ok(ToolCall { name, arguments })
    };
    calls.iter().enumerate().map(read).collect()
}

fn wrong_type(name: &str, expected: &'static str) -> Refusal {
    Refusal::WrongType { name: name.into(), expected }
}

fn bad(message: String) -> Refusal {
    Refusal::BadValue { message }
}

fn bad_role(at: &str) -> Refusal {
    bad(format!("'{at}.role' must be one of system, user, assistant, tool and developer"))
}

#[cfg(test)]
mod tests;
