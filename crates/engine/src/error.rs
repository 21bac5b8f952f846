//! Why the engine can't do what it was asked, and why it could not be loaded.

use ocellus_weights::fields::FieldError;

use crate::MemoryPlan;

/// Why the engine can't do what it was asked. It can be cloned, because it travels to the caller as an
/// [`Event::Failed`](crate::Event::Failed).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The checkpoint's tokenizer can't be used.
    #[error("{file}: {reason}")]
    Tokenizer {
        /// The file at fault.
        file: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// The request contradicts itself or asks for what doesn't exist.
    #[error("{0}")]
    InvalidRequest(String),
    /// A conversation without a question.
    #[error("the messages hold no message of the user")]
    NoUserMessage,
    /// A picture or a frame can't be shown to the model.
    #[error("picture {}: {reason}", .index + 1)]
    Media {
        /// Its number in the conversation, from 0, pictures and clips counted together.
        index: usize,
        /// Why not.
        reason: MediaFault,
    },
    /// Prompt and answer don't fit into what the model can attend to.
    #[error("the prompt has at least {tokens} tokens, the context holds {limit}")]
    ContextLength {
        /// Tokens of the prompt, as far as they were counted.
        tokens: usize,
        /// Tokens that fit.
        limit: usize,
    },
    /// Too many requests wait already.
    #[error("{waiting} requests are waiting already, which is the limit")]
    Busy {
        /// Requests in the queue.
        waiting: usize,
    },
    /// The paged cache has no room left.
    #[error("the cache has {free} free blocks, {needed} more are needed")]
    CacheFull {
        /// Blocks that would have to be free.
        needed: usize,
        /// Blocks that are.
        free: usize,
    },
    /// The engine broke one of its own rules; a fault of ours.
    #[error("{0}")]
    Internal(String),
}

/// Why a picture can't be shown to the model. The texts are for the one who sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaFault {
    /// The picture is too small or too thin.
    #[error(
        "it has {height}x{width} pixels (height x width); both sides must be larger than 10, and the longer at most 200 times the shorter"
    )]
    Size {
        /// Upright height in pixels.
        height: usize,
        /// Upright width in pixels.
        width: usize,
    },
    /// The content is none of the accepted formats.
    #[error("{0}")]
    UnknownFormat(String),
    /// The content is broken or cut off.
    #[error("{0}")]
    Broken(String),
    /// The file or the decoded picture is over the budget.
    #[error("{0}")]
    TooLarge(String),
    /// A clip's frames or rate make no sense.
    #[error("{0}")]
    Clip(String),
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A needed file is not in the checkpoint.
    #[error("{file} is missing in {place}")]
    FileMissing {
        /// Its name.
        file: &'static str,
        /// Where it was looked for.
        place: String,
    },
    /// A field of a configuration file is nonsense.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// Two files contradict each other.
    #[error("{0}")]
    Contradiction(String),
    /// The weights can't be read.
    #[error(transparent)]
    Weights(#[from] ocellus_weights::Error),
    /// The tokenizer can't be used.
    #[error(transparent)]
    Tokenizer(#[from] Error),
    /// The device can't be had, or has no room.
    #[error(transparent)]
    Device(#[from] ocellus_kernels::Error),
    /// The cache can't be made.
    #[error(transparent)]
    Decoder(#[from] ocellus_decoder::Error),
    /// There is less memory than the model needs.
    #[error("the model needs {plan}; {:.2} GiB of memory are free: {advice}", *free as f64 / f64::from(1 << 30))]
    NoRoom {
        /// What it needs.
        plan: MemoryPlan,
        /// What there is, in bytes.
        free: usize,
        /// What to change.
        advice: String,
    },
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}
