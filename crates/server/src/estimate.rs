//! `POST …/tokens/estimate`: how many tokens a request would take, without running the model.
//!
//! The body is either a whole request of either dialect, told apart by `input`, which is prepared exactly as if it were answered, or `{"media": […]}` with
//! nothing but sizes: `{"type": "image", "height": h, "width": w}` with `min_pixels` and `max_pixels` as in a request,
//! `{"type": "video", "height": h, "width": w, "total_frames": n, "frame_rate": r, "fps": f}`. The numbers are those of
//! the hosted guide's calculators.

use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use ocellus_engine::{
    ClipNumbers, MediaFault, MediaSize, PromptTokens, Request as EngineRequest, clip_tokens, picture_tokens,
};
use serde::Serialize;
use serde_json::Value;

use crate::conversation::{Conversation, DEFAULT_FRAME_RATE, MOST_MEDIA, picture_limits};
use crate::dashscope::{self, GenerationRequest};
use crate::definition::{
    FPS, FRAME_RATE, HEIGHT, MEDIA, MEDIA_TYPE, TOTAL_FRAMES, VL_HIGH_RESOLUTION_IMAGES, WIDTH,
};
use crate::extension::SeenMedia;
use crate::kind::{Integer, Numeric, Ranged};
use crate::openai::{self, ChatRequest};
use crate::parameter::Fields;
use crate::{Refusal, State, body};

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct Estimate {
    object: &'static str,
    /// Tokens of the whole prompt; only for a chat request.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens: Option<usize>,
    /// Text, template and the two markers around each picture and clip; only for a chat request.
    #[serde(skip_serializing_if = "Option::is_none")]
    text_tokens: Option<usize>,
    image_tokens: usize,
    video_tokens: usize,
    media: Vec<EstimatedMedia>,
}

#[derive(Debug, Serialize)]
struct EstimatedMedia {
    #[serde(flatten)]
    media: SeenMedia,
    /// What the hosted guide's calculators print.
    tokens_with_markers: usize,
}

impl Estimate {
    fn new(media: &[MediaSize]) -> Self {
        let of_kind = |video: bool| {
            media.iter().filter(|media| (media.frames > 1) == video).map(|media| media.tokens).sum::<usize>()
        };
        let estimated = |media: &MediaSize| EstimatedMedia {
            media: SeenMedia::from(media),
            tokens_with_markers: media.tokens.saturating_add(2),
        };
        Self {
            object: "tokens.estimate",
            prompt_tokens: None,
            text_tokens: None,
            image_tokens: of_kind(false),
            video_tokens: of_kind(true),
            media: media.iter().map(estimated).collect(),
        }
    }

    fn of_prompt(prompt: PromptTokens, media: &[MediaSize]) -> Self {
        Self {
            prompt_tokens: Some(prompt.total()),
            text_tokens: Some(prompt.text),
            image_tokens: prompt.image,
            video_tokens: prompt.video,
            ..Self::new(media)
        }
    }
}

/// The handler.
pub(crate) async fn estimate(
    Shared(state): Shared<Arc<State>>,
    request: Request,
) -> Result<axum::Json<Estimate>, Refusal> {
    let (parts, rest) = request.into_parts();
    let Ok(_place) = state.places.clone().try_acquire_owned() else {
        body::drain(&parts.headers, rest).await;
        return Err(Refusal::Busy);
    };
    let bytes = body::read(&parts.headers, rest).await?;
    let question = match off_thread(&state, move |state| read(&bytes, state)).await? {
        Asked::Sizes(estimate) => return Ok(axum::Json(estimate)),
        Asked::Question(question) => question,
    };
    let reader = state.uploads.reader(&parts.headers);
    let conversation = question.conversation.resolve(&state.uploads, reader, state.fetcher.limits()).await?;
    let request = EngineRequest {
        messages: conversation.fetch(&state.fetcher).await?,
        tools: question.tools,
        ..EngineRequest::default()
    };
    // Pictures are decoded to be counted, so only few at a time.
    let _turn = state.estimates.acquire().await.map_err(|_| Refusal::EngineFailure)?;
    let counted =
        off_thread(&state, move |state| state.engine.count(&request).map_err(|error| Refusal::from(&error)));
    let counted = counted.await?;
    Ok(axum::Json(Estimate::of_prompt(counted.prompt, &counted.media)))
}

/// Off the threads that serve connections.
async fn off_thread<R: Send + 'static>(
    state: &Arc<State>,
    work: impl FnOnce(&State) -> Result<R, Refusal> + Send + 'static,
) -> Result<R, Refusal> {
    let state = state.clone();
    tokio::task::spawn_blocking(move || work(&state)).await.unwrap_or_else(|error| {
        tracing::error!(%error, "an estimate panicked");
        Err(Refusal::EngineFailure)
    })
}

/// What counts of a request, whatever dialect it came in.
struct Question {
    conversation: Conversation,
    tools: Vec<Value>,
}

/// What a body asks for.
enum Asked {
    Question(Box<Question>),
    Sizes(Estimate),
}

fn read(bytes: &[u8], state: &State) -> Result<Asked, Refusal> {
    let value: Value = serde_json::from_slice(bytes).map_err(|_| Refusal::BodyMalformed)?;
    let fields = Fields::new(value.as_object().ok_or(Refusal::BodyMalformed)?);
    match fields.get(MEDIA.name) {
        None if fields.get("input").is_some() => {
            let request = GenerationRequest::parse(bytes, &state.names, &dashscope::bounds(state))?;
            let (conversation, tools) = (request.conversation, request.structure.tools);
            Ok(Asked::Question(Box::new(Question { conversation, tools })))
        }
        None => {
            let request = ChatRequest::parse(bytes, &state.names, &openai::bounds(state))?;
            let (conversation, tools) = (request.conversation, request.structure.tools);
            Ok(Asked::Question(Box::new(Question { conversation, tools })))
        }
        Some(Value::Array(_)) if fields.get("messages").or(fields.get("input")).is_some() => {
            Err(bad("'media' and 'messages' exclude each other".into()))
        }
        Some(Value::Array(media)) => {
            if media.len() > MOST_MEDIA {
                return Err(Refusal::TooManyMedia { count: media.len(), limit: MOST_MEDIA });
            }
            let high_resolution = fields.boolean(&VL_HIGH_RESOLUTION_IMAGES)?;
            let media = media.iter().enumerate();
            let sizes = media.map(|(index, item)| size(&format!("media.{index}"), item, high_resolution));
            Ok(Asked::Sizes(Estimate::new(&sizes.collect::<Result<Vec<_>, _>>()?)))
        }
        Some(_) => Err(Refusal::WrongType { name: "media".into(), expected: "Array" }),
    }
}

/// One picture or clip by its numbers.
pub(crate) fn size(at: &str, item: &Value, high_resolution: bool) -> Result<MediaSize, Refusal> {
    let item = item.as_object().ok_or_else(|| wrong_type(at, "Object"))?;
    let fields = Fields::new(item);
    let required = |name: &str| bad(format!("'{at}.{name}' is required"));
    let whole = |definition: &Integer| -> Result<usize, Refusal> {
        let value = number(at, &fields, definition)?.ok_or_else(|| required(definition.name))?;
        Ok(usize::try_from(value).unwrap_or(usize::MAX))
    };
    let (height, width) = (whole(&HEIGHT)?, whole(&WIDTH)?);
    let seen = match fields.get(MEDIA_TYPE.name) {
        None => picture_tokens(height, width, &picture_limits(&fields, high_resolution)?),
        Some(Value::String(kind)) if kind == "image" => {
            picture_tokens(height, width, &picture_limits(&fields, high_resolution)?)
        }
        Some(Value::String(kind)) if kind == "video" => {
            let (frame_rate, fps) = (number(at, &fields, &FRAME_RATE)?, number(at, &fields, &FPS)?);
            clip_tokens(&ClipNumbers {
                height,
                width,
                total_frames: whole(&TOTAL_FRAMES)?,
                frame_rate: frame_rate.ok_or_else(|| required(FRAME_RATE.name))?,
                fps: fps.unwrap_or(DEFAULT_FRAME_RATE),
            })
        }
        Some(_) => return Err(bad(format!("'{at}.type' must be one of image and video"))),
    };
    seen.map_err(|fault: MediaFault| Refusal::from(&fault))
}

/// A number of a picture or clip; there may be many, so the refusal says which.
fn number<T: Numeric>(at: &str, fields: &Fields<'_>, definition: &Ranged<T>) -> Result<Option<T>, Refusal> {
    let Ranged { name, range, .. } = definition;
    fields.number_at(name, definition, || format!("Range of {at}.{name} should be {range}"))
}

fn wrong_type(name: &str, expected: &'static str) -> Refusal {
    Refusal::WrongType { name: name.into(), expected }
}

fn bad(message: String) -> Refusal {
    Refusal::BadValue { message }
}
