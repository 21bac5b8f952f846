//! A request's life in tokens: a [`Request`] comes in, a stream of [`Event`]s goes out, and one thread owns the
//! device in between. Prompts are built as token ids part by part, so text is never tokenized again after
//! placeholders are in; scheduler, block allocator and sampler are synchronous functions of plain numbers. Absent:
//! HTTP, and code that names a device.

mod blocks;
mod constraint;
mod detokenizer;
mod engine;
mod error;
mod estimate;
mod event;
mod load;
mod memory_plan;
mod model;
mod prepare;
mod prompt;
mod request;
mod runner;
mod sampler;
mod scheduler;
mod stop;
mod stop_ids;
mod template;
mod tokenizer;
mod weights;

pub use constraint::{Constraint, Function};
pub use engine::{Engine, Events, Info, Options};
pub use error::{Error, LoadError, MediaFault};
pub use estimate::{ClipNumbers, clip_tokens, picture_size, picture_tokens};
pub use event::{
    Event, FinishReason, Finished, Logprob, MediaSize, PromptTokens, Started, TextDelta, Timings,
    TokenLogprob,
};
pub use load::Load;
pub use memory_plan::{MemoryPlan, Place, Sizes};
pub use model::{Formats, Model, Progress};
pub use ocellus_kernels::return_freed_memory;
pub use ocellus_media::{Budget, Picture, decode_image, encode_png};
pub use ocellus_vision_encoder::resize::{PixelLimits, Rule};
pub use ocellus_weights::Source;
pub use prompt::{MediaSpan, PadTokens, Prompt, PromptParts};
pub use request::{ImagePart, Message, Part, Request, Role, Sampling, Stop, ToolCall, VideoPart};
pub use template::{Conversation, MediaKind, Segment};
pub use tokenizer::Tokenizer;
pub use weights::WeightFormat;
