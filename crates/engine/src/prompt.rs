//! Segments become token ids part by part: text is encoded alone, control tokens are looked up, and each
//! picture or clip becomes as many pads as it has embeddings.

use crate::{Error, MediaKind, PromptTokens, Segment, Tokenizer};

/// The token ids of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// All ids. A picture or clip is a run of pads.
    pub ids: Vec<u32>,
    /// Where the runs of pads are, in the order of the prompt.
    pub media: Vec<MediaSpan>,
    /// How many tokens there are of each kind.
    pub tokens: PromptTokens,
}

/// The run of pads in whose place the embeddings of a picture or clip go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaSpan {
    /// Its number among the pictures and clips of the conversation, from 0.
    pub media: usize,
    /// Which of both it is.
    pub kind: MediaKind,
    /// Index of the first pad in [`Prompt::ids`].
    pub start: usize,
    /// Number of pads.
    pub len: usize,
}

/// Ids of the pads: `image_token_id` and `video_token_id` in `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PadTokens {
    /// Stands for one embedding of a picture.
    pub image: u32,
    /// Stands for one embedding of a clip.
    pub video: u32,
}

/// What a prompt is built from.
#[derive(Clone, Copy, Debug)]
pub struct PromptParts<'a> {
    /// The rendered conversation.
    pub segments: &'a [Segment],
    /// Embeddings of each picture and clip, by its number in the conversation.
    pub media_tokens: &'a [usize],
    /// Ids of the pads.
    pub pads: PadTokens,
    /// The longest prompt that is allowed, in tokens.
    pub limit: usize,
}

impl Prompt {
    /// Puts the ids together. Errors: the tokenizer lacks a control token, `media_tokens` doesn't have
    /// exactly one entry above 0 for each picture and clip, or the prompt is longer than the limit; the last
    /// is found before memory is spent on it.
    pub fn build(parts: PromptParts<'_>, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let PromptParts { segments, media_tokens, pads, limit } = parts;
        let mut prompt = Self { ids: Vec::new(), media: Vec::new(), tokens: PromptTokens::default() };
        for segment in segments {
            let before = prompt.ids.len();
            let room = limit.saturating_sub(before);
            match segment {
                Segment::Control(name) => {
                    let id = tokenizer.control(name).ok_or_else(|| Error::Tokenizer {
                        file: "the tokenizer".to_owned(),
                        reason: format!("has no token {name}, which the chat template needs"),
                    })?;
                    prompt.ids.push(id);
                }
                Segment::Text(text) => {
                    let ids = tokenizer.encode_within(text, room).map_err(|error| match error {
                        Error::ContextLength { tokens, .. } => too_long(before.saturating_add(tokens), limit),
                        other => other,
                    })?;
                    prompt.ids.extend_from_slice(&ids);
                }
                Segment::Media { index, kind } => {
                    let len = media_tokens.get(*index).copied().unwrap_or(0);
                    if len == 0 {
                        return Err(Error::Internal(format!("picture or clip {index} has no embeddings")));
                    }
                    if len > room {
                        return Err(too_long(before.saturating_add(len), limit));
                    }
                    let (pad, count) = match kind {
                        MediaKind::Image => (pads.image, &mut prompt.tokens.image),
                        MediaKind::Video => (pads.video, &mut prompt.tokens.video),
                    };
                    *count += len;
                    prompt.ids.resize(before + len, pad);
                    prompt.media.push(MediaSpan { media: *index, kind: *kind, start: before, len });
                }
            }
            if prompt.ids.len() > limit {
                return Err(too_long(prompt.ids.len(), limit));
            }
        }
        if prompt.media.len() != media_tokens.len() {
            return Err(Error::Internal(format!(
                "the template has {} pictures and clips, {} were prepared",
                prompt.media.len(),
                media_tokens.len()
            )));
        }
        prompt.tokens.text = prompt.ids.len() - prompt.tokens.image - prompt.tokens.video;
        Ok(prompt)
    }
}

fn too_long(tokens: usize, limit: usize) -> Error {
    Error::ContextLength { tokens, limit }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::byte_tokenizer;

    const PADS: PadTokens = PadTokens { image: 900, video: 901 };

    fn build(segments: &[Segment], media_tokens: &[usize], limit: usize) -> Result<Prompt, Error> {
        // "i" and "m" merge, so that text which is joined before it is encoded can be told from text which
        // isn't.
        let tokenizer = byte_tokenizer(&[("i", "m")]);
        Prompt::build(PromptParts { segments, media_tokens, pads: PADS, limit }, &tokenizer)
    }

    fn text(text: &str) -> Segment {
        Segment::Text(text.to_owned())
    }

    fn image(index: usize) -> Segment {
        Segment::Media { index, kind: MediaKind::Image }
    }

    fn video(index: usize) -> Segment {
        Segment::Media { index, kind: MediaKind::Video }
    }

    #[test]
    fn puts_ids_and_spans_together() {
        let segments =
            [Segment::Control("<|im_start|>"), text("him"), image(0), video(1), text("<|im_end|>"), image(2)];
        let prompt = build(&segments, &[2, 3, 1], 100).unwrap();
        let mut ids = vec![258, u32::from(b'h'), 256, 900, 900, 901, 901, 901];
        // Spelled in text, "<|im_end|>" is what its letters are.
        ids.extend("<|".bytes().map(u32::from).chain([256]).chain("_end|>".bytes().map(u32::from)));
        ids.push(900);
        let span = |media, kind, start, len| MediaSpan { media, kind, start, len };
        let media = vec![
            span(0, MediaKind::Image, 3, 2),
            span(1, MediaKind::Video, 5, 3),
            span(2, MediaKind::Image, ids.len() - 1, 1),
        ];
        let tokens = PromptTokens { text: ids.len() - 6, image: 3, video: 3 };
        assert_eq!(tokens.total(), ids.len());
        assert_eq!(prompt, Prompt { ids, media, tokens });
    }

    #[test]
    fn counts_the_markers_of_a_picture_as_text() {
        let segments = [Segment::Control("<|vision_start|>"), image(0), Segment::Control("<|vision_end|>")];
        let prompt = build(&segments, &[1247], 2000).unwrap();
        assert_eq!(prompt.tokens, PromptTokens { text: 2, image: 1247, video: 0 });
    }

    #[test]
    fn refuses_what_is_too_long_before_it_is_built() {
        let too_long = |tokens, limit| Err(Error::ContextLength { tokens, limit });
        assert_eq!(build(&[text("abc")], &[], 3).unwrap().ids.len(), 3);
        assert_eq!(build(&[text("abc")], &[], 2), too_long(3, 2));
        assert_eq!(build(&[Segment::Control("<|im_end|>")], &[], 0), too_long(1, 0));
        assert_eq!(build(&[text("ab"), image(0)], &[3], 4), too_long(5, 4));
        assert_eq!(build(&[text("ab"), image(0), text("c")], &[2], 4), too_long(5, 4));
        assert_eq!(build(&[text("ab"), image(0)], &[usize::MAX], 4), too_long(usize::MAX, 4));
    }

    #[test]
    fn refuses_contradictions() {
        let check = |segments: &[Segment], media_tokens: &[usize], message: &str| {
            assert_eq!(build(segments, media_tokens, 100).unwrap_err().to_string(), message);
        };
        check(&[image(0)], &[], "picture or clip 0 has no embeddings");
        check(&[image(0), video(1)], &[1, 0], "picture or clip 1 has no embeddings");
        check(&[image(0)], &[1, 1], "the template has 1 pictures and clips, 2 were prepared");
        let message = "the tokenizer: has no token <|fim_pad|>, which the chat template needs";
        check(&[Segment::Control("<|fim_pad|>")], &[], message);
    }
}
