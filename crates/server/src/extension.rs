//! What only this server tells: how large each picture and clip of a request was and how large the model saw it, as
//! the key `ocellus` of an answer. Clients of either dialect skip keys that they don't know.

use ocellus_engine::{MediaSize, Started};
use serde::Serialize;

/// The value of the key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Extension {
    /// In the order of the prompt.
    media: Vec<SeenMedia>,
}

/// A picture or clip. Boxes and points in an answer refer to the size that was seen, unless the request asked for
/// original coordinates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SeenMedia {
    kind: &'static str,
    /// The upright picture, in pixels.
    original: Size,
    /// After the resize, in pixels.
    seen: Size,
    /// Original pixels of one seen pixel.
    scale: Scale,
    /// In the prompt, without the two markers around them.
    tokens: usize,
    /// 1 for a picture.
    frames: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Size {
    height: usize,
    width: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Scale {
    x: f64,
    y: f64,
}

impl Extension {
    /// Nothing for a request without pictures and clips.
    pub(crate) fn new(started: &Started) -> Option<Self> {
        let media: Vec<_> = started.media.iter().map(SeenMedia::from).collect();
        (!media.is_empty()).then_some(Self { media })
    }
}

impl From<&MediaSize> for SeenMedia {
    fn from(media: &MediaSize) -> Self {
        let size = |(height, width)| Size { height, width };
        let ratio = |original: usize, seen: usize| original as f64 / seen.max(1) as f64;
        Self {
            // A clip has several frames, or it is refused.
            kind: if media.frames > 1 { "video" } else { "image" },
            original: size(media.original),
            seen: size(media.seen),
            scale: Scale {
                x: ratio(media.original.1, media.seen.1),
                y: ratio(media.original.0, media.seen.0),
            },
            tokens: media.tokens,
            frames: media.frames,
        }
    }
}
