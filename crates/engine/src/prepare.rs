//! From a request to what the device needs: pictures decoded, resized and cut into patches, the prompt as ids,
//! and every token's position. Runs on threads of its own, so that a large picture holds up nobody's answer.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use ocellus_decoder::positions::{Positions, Span};
use ocellus_media::{Budget, Picture, decode_image};
use ocellus_vision_encoder::{
    patches::Patches,
    preprocess::Preprocessor,
    resize::{PixelLimits, Rule, smart_resize},
};

use crate::{
    Conversation, Error, ImagePart, MediaFault, MediaSize, Model, Part, Prompt, PromptParts, Request, Role,
    Stop, VideoPart,
    constraint::{Grammar, Vocabulary},
};

/// A request that the runner can start with.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) prompt: Prompt,
    pub(crate) positions: Positions,
    /// One for each picture and clip, in the order of the prompt.
    pub(crate) patches: VecDeque<Patches>,
    pub(crate) sizes: Vec<MediaSize>,
    pub(crate) decode_images: Duration,
    /// What the answer has to be.
    pub(crate) grammar: Option<Grammar>,
}

/// What bounds a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) media: Budget,
    /// The longest prompt, in tokens; one more token must fit behind it.
    pub(crate) prompt_tokens: usize,
}

impl Prepared {
    /// Decodes, counts, cuts and tokenizes.
    pub(crate) fn new(request: &Request, model: &Model, bounds: &Bounds) -> Result<Self, Error> {
        if !request.messages.iter().any(|message| message.role == Role::User) {
            return Err(Error::NoUserMessage);
        }
        check_ids(request, model)?;
        let vocabulary = Vocabulary { tokenizer: &model.tokenizer, eos_token_ids: &model.eos_token_ids };
        let grammar = request.constraint.as_ref();
        let grammar = grammar.map(|constraint| model.grammars.compile(constraint, vocabulary)).transpose()?;
        let started = Instant::now();
        let mut media = Media { model, bounds, seen: Vec::new(), tokens: 0 };
        let parts = request.messages.iter().flat_map(|message| &message.parts);
        for part in parts {
            match part {
                Part::Text(_) => {}
                Part::Image(image) => media.image(image)?,
                Part::Video(video) => media.video(video)?,
            }
        }
        let decode_images = started.elapsed();
        let (sizes, patches): (Vec<_>, Vec<_>) =
            media.seen.iter().map(|seen| (seen.size, &seen.patches)).unzip();
        let segments = Conversation::from(request).segments()?;
        let prompt = Prompt::build(
            PromptParts {
                segments: &segments,
                media_tokens: &sizes.iter().map(|size| size.tokens).collect::<Vec<_>>(),
                pads: model.pads,
                limit: bounds.prompt_tokens,
            },
            &model.tokenizer,
        )?;
        let steps: Vec<f32> = media.seen.iter().map(|seen| seen.seconds_per_step).collect();
        let positions = positions(&prompt, &patches, &steps, model);
        let patches = media.seen.into_iter().map(|seen| seen.patches).collect();
        Ok(Self { prompt, positions, patches, sizes, decode_images, grammar })
    }
}

/// Refuses ids that name no token: whoever sent them meant another vocabulary.
fn check_ids(request: &Request, model: &Model) -> Result<(), Error> {
    let size = model.decoder.config().vocab_size;
    let biased = request.sampling.logit_bias.iter().map(|(id, _)| id);
    let stops = request.stop.iter().filter_map(|stop| match stop {
        Stop::Ids(ids) => Some(ids),
        Stop::Text(_) => None,
    });
    match biased.chain(stops.flatten()).find(|id| **id as usize >= size) {
        Some(id) => Err(Error::InvalidRequest(format!("there is no token {id}; ids end at {}", size - 1))),
        None => Ok(()),
    }
}

/// Positions of all tokens of a prompt.
fn positions(prompt: &Prompt, patches: &[&Patches], seconds_per_step: &[f32], model: &Model) -> Positions {
    let config = model.tower.config();
    let merge = config.geometry.merge_size;
    let mut spans = Vec::with_capacity(2 * prompt.media.len() + 1);
    let mut end = 0;
    for span in &prompt.media {
        let grid = patches[span.media].grid;
        spans.push(Span::Text(span.start - end));
        spans.push(Span::Vision {
            t: grid.t,
            h: grid.h / merge,
            w: grid.w / merge,
            seconds_per_step: seconds_per_step[span.media],
        });
        end = span.start + span.len;
    }
    spans.push(Span::Text(prompt.ids.len() - end));
    Positions::new(&spans, config.tokens_per_second)
}

/// The pictures and clips of a request, as they become ready.
struct Media<'a> {
    model: &'a Model,
    bounds: &'a Bounds,
    seen: Vec<Seen>,
    tokens: usize,
}

/// A picture or clip as the model will see it.
struct Seen {
    patches: Patches,
    size: MediaSize,
    seconds_per_step: f32,
}

impl Media<'_> {
    fn image(&mut self, image: &ImagePart) -> Result<(), Error> {
        let picture = decode(&image.bytes, &self.bounds.media, self.seen.len());
        self.frames(std::iter::once(picture), 1, &image.limits, 0.0)
    }

    fn video(&mut self, video: &VideoPart) -> Result<(), Error> {
        const MAX_FRAMES: usize = 768;
        let frames = video.frames.len();
        if frames == 0 || frames > MAX_FRAMES {
            let text = format!("the clip has {frames} frames, expected 1 to {MAX_FRAMES}");
            return Err(self.fault(MediaFault::Clip(text)));
        }
        if !(video.fps.is_finite() && video.fps > 0.0) {
            let text = format!("the clip has {} frames per second, expected more than 0", video.fps);
            return Err(self.fault(MediaFault::Clip(text)));
        }
        let temporal = self.model.tower.config().geometry.temporal_patch_size;
        let seconds_per_step = (temporal as f64 / video.fps) as f32;
        let (budget, index) = (self.bounds.media, self.seen.len());
        let pictures = video.frames.iter().map(|bytes| decode(bytes, &budget, index));
        self.frames(pictures, frames, &video.limits, seconds_per_step)
    }

    /// Resizes frames to the first one's target size and cuts them into patches.
    fn frames(
        &mut self,
        mut pictures: impl Iterator<Item = Result<Picture, Error>>,
        count: usize,
        limits: &PixelLimits,
        seconds_per_step: f32,
    ) -> Result<(), Error> {
        let geometry = self.model.tower.config().geometry;
        let internal = |error: ocellus_vision_encoder::Error| Error::Internal(error.to_string());
        let Some(first) = pictures.next().transpose()? else {
            return Err(Error::Internal("a clip without frames came this far".to_owned()));
        };
        let original = (first.height, first.width);
        if refused_by_hosted(limits.rule, first.height, first.width) {
            return Err(self.fault(MediaFault::Size { height: first.height, width: first.width }));
        }
        let seen = smart_resize(first.height, first.width, geometry.factor(), limits)
            .map_err(|_| self.fault(MediaFault::Size { height: first.height, width: first.width }))?;
        let (height, width) = seen;
        let steps = count.div_ceil(geometry.temporal_patch_size);
        let tokens =
            (height / geometry.factor()).saturating_mul(width / geometry.factor()).saturating_mul(steps);
        // Refused before anything of that size is allocated.
        self.tokens = self.tokens.saturating_add(tokens);
        if self.tokens > self.bounds.prompt_tokens {
            return Err(Error::ContextLength { tokens: self.tokens, limit: self.bounds.prompt_tokens });
        }
        let mut preprocessor =
            Preprocessor::new(count, seen, &geometry, &self.model.normalization).map_err(internal)?;
        // One decoded frame is alive at a time.
        for picture in std::iter::once(Ok(first)).chain(pictures) {
            let picture = picture?;
            preprocessor.push(&picture.rgb, (picture.height, picture.width)).map_err(internal)?;
        }
        let patches = preprocessor.finish().map_err(internal)?;
        let size = MediaSize { original, seen, frames: count, tokens };
        self.seen.push(Seen { patches, size, seconds_per_step });
        Ok(())
    }

    fn fault(&self, reason: MediaFault) -> Error {
        Error::Media { index: self.seen.len(), reason }
    }
}

/// Decodes picture number `index`.
pub(crate) fn decode(bytes: &Arc<[u8]>, budget: &Budget, index: usize) -> Result<Picture, Error> {
    use ocellus_media::Error::{
        NeedsCodec, TooManyBytes, TooManyPixels, TooMuchMemory, Unrecognised, Unsupported,
    };
    decode_image(bytes, budget).map_err(|error| {
        let text = error.to_string();
        let reason = match error {
            TooManyBytes { .. } | TooManyPixels { .. } | TooMuchMemory { .. } => MediaFault::TooLarge(text),
            NeedsCodec { .. } | Unsupported { .. } | Unrecognised { .. } => MediaFault::UnknownFormat(text),
            _ => MediaFault::Broken(text),
        };
        Error::Media { index, reason }
    })
}

/// Whether the hosted service would refuse the size: a side of at most 10 pixels, or thinner than 200 to 1.
pub(crate) fn refused_by_hosted(rule: Rule, height: usize, width: usize) -> bool {
    const SHORTEST: usize = 10;
    const THINNEST: usize = 200;
    let (short, long) = (height.min(width), height.max(width));
    rule == Rule::Hosted && (short <= SHORTEST || long > short.saturating_mul(THINNEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosted_restrictions_come_with_the_hosted_rule_only() {
        let check = |rule, height, width, refused| {
            assert_eq!(refused_by_hosted(rule, height, width), refused, "{rule:?} {height}x{width}");
        };
        check(Rule::Hosted, 10, 100, true);
        check(Rule::Hosted, 100, 10, true);
        check(Rule::Hosted, 11, 11, false);
        check(Rule::Hosted, 11, 2200, false);
        check(Rule::Hosted, 11, 2201, true);
        check(Rule::Transformers, 1, 1, false);
    }
}
