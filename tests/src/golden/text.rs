//! `text.json`: rendered conversations, their ids, and samples for the tokenizer.

use std::collections::BTreeSet;

use anyhow::Context;
use ocellus_engine::{Conversation, MediaKind, PadTokens, Prompt, PromptParts, Segment, Tokenizer};
use ocellus_vision_encoder::resize::{PixelLimits, smart_resize};
use ocellus_weights::Source;
use serde::Deserialize;
use serde_json::Value;

use super::{Folder, Gauge, Tolerance, conversation, indices::GEOMETRY};

/// The families' names.
pub const TEMPLATES: &str = "template renderings and ids";
/// See [`TEMPLATES`].
pub const SAMPLES: &str = "tokenizer samples";

/// The content of `text.json` and the vocabularies at hand.
pub struct Texts {
    file: TextFile,
    vocabularies: Vec<Vocabulary>,
}

#[derive(Deserialize)]
struct TextFile {
    templates: Vec<Template>,
    tokenizer_samples: Vec<Sample>,
    /// The example of the hosted guide, where the file has it.
    hosted_example: Option<HostedExample>,
}

#[derive(Deserialize)]
struct Template {
    name: String,
    add_generation_prompt: bool,
    add_vision_id: bool,
    tools: Option<Vec<Value>>,
    messages: Value,
    text: String,
    #[serde(flatten)]
    ids: Ids,
}

#[derive(Deserialize)]
struct Sample {
    text: String,
    #[serde(flatten)]
    ids: Ids,
}

/// Ids by the full vocabulary and by the one that the nano checkpoint has.
#[derive(Deserialize)]
struct Ids {
    ids: Option<Vec<u32>>,
    nano_ids: Option<Vec<u32>>,
}

/// A picture of 2048 x 1365 pixels with a short question.
#[derive(Deserialize)]
struct HostedExample {
    resized_hw: (usize, usize),
    image_tokens: usize,
    prompt_tokens: usize,
}

/// A tokenizer and the control tokens that it knows by name.
struct Vocabulary {
    tokenizer: Tokenizer,
    names: Vec<String>,
}

impl Texts {
    /// Reads the file and every tokenizer beside it.
    ///
    /// # Errors
    /// When one of them is not of the expected form.
    pub fn read(folder: &Folder) -> anyhow::Result<Option<Self>> {
        let Some(file) = folder.json("text")? else { return Ok(None) };
        let mut vocabularies: Vec<Vocabulary> = Vec::new();
        let mut seen = BTreeSet::new();
        for path in folder.tokenizers() {
            let vocabulary =
                Vocabulary::read(&Source::folder(&path)).with_context(|| path.display().to_string())?;
            // Checkpoints share vocabularies; the id of the first control token tells them apart.
            if seen.insert(vocabulary.first_id()) {
                vocabularies.push(vocabulary);
            }
        }
        Ok(Some(Self { file, vocabularies }))
    }

    /// Compares renderings, and the ids of prompts built part by part.
    ///
    /// # Errors
    /// When a message of the file has a form that no dialect has.
    pub fn templates(&self) -> anyhow::Result<Gauge> {
        let mut gauge = Gauge::new(TEMPLATES, Tolerance::Equal);
        for case in &self.file.templates {
            let at = format!(
                "{} (generation prompt {}, numbered {})",
                case.name, case.add_generation_prompt, case.add_vision_id
            );
            let messages = conversation::messages(&case.messages).with_context(|| at.clone())?;
            let segments = Conversation {
                messages: &messages,
                tools: case.tools.as_deref().unwrap_or_default(),
                number_media: case.add_vision_id,
                add_generation_prompt: case.add_generation_prompt,
            }
            .segments();
            let segments = match segments {
                Ok(segments) => segments,
                Err(error) => {
                    gauge.refused(&at, error);
                    continue;
                }
            };
            gauge.equal(&at, &spelled(&segments), &case.text);
            for golden in case.ids.all() {
                match self.vocabulary_of(golden) {
                    Some(vocabulary) => match vocabulary.prompt(&segments) {
                        Ok(ids) => gauge.equal(format!("ids of {at}"), &ids, golden),
                        Err(error) => gauge.refused(format!("ids of {at}"), format!("{error:#}")),
                    },
                    None => gauge.note("the full vocabulary is not at hand: its ids are not compared"),
                }
            }
        }
        if let Some(example) = &self.file.hosted_example {
            self.compare_hosted_example(example, &mut gauge)?;
        }
        Ok(gauge)
    }

    /// Compares the samples; control tokens spelled in them are control tokens here, as the reference reads them.
    ///
    /// # Errors
    /// When the tokenizer refuses a sample.
    pub fn samples(&self) -> anyhow::Result<Gauge> {
        let mut gauge = Gauge::new(SAMPLES, Tolerance::Equal);
        // An empty text has no ids that would tell the vocabulary: take the first template's.
        let first = self.file.templates.first();
        for sample in &self.file.tokenizer_samples {
            for (golden, owner) in [
                (&sample.ids.ids, first.and_then(|case| case.ids.ids.as_ref())),
                (&sample.ids.nano_ids, first.and_then(|case| case.ids.nano_ids.as_ref())),
            ] {
                let (Some(golden), Some(owner)) = (golden, owner) else { continue };
                match self.vocabulary_of(owner) {
                    Some(vocabulary) => {
                        gauge.equal(format!("{:?}", sample.text), &vocabulary.encode(&sample.text)?, golden);
                    }
                    None => gauge.note("the full vocabulary is not at hand: its ids are not compared"),
                }
            }
        }
        Ok(gauge)
    }

    /// The vocabulary that a rendered conversation's ids come from: each starts with the same control token.
    fn vocabulary_of(&self, ids: &[u32]) -> Option<&Vocabulary> {
        self.vocabularies.iter().find(|vocabulary| vocabulary.first_id().as_ref() == ids.first())
    }

    fn compare_hosted_example(&self, example: &HostedExample, gauge: &mut Gauge) -> anyhow::Result<()> {
        let size = smart_resize(1365, 2048, GEOMETRY.factor(), &PixelLimits::HOSTED)?;
        gauge.equal("size in the hosted example", &size, &example.resized_hw);
        let tokens = size.0 * size.1 / GEOMETRY.factor().pow(2);
        gauge.equal("image tokens in the hosted example", &tokens, &example.image_tokens);
        // Its prompt is the template of that question, in which the picture has one placeholder.
        let question = |case: &&Template| case.name == "dashscope_parts";
        let ids = self.file.templates.iter().find(question).and_then(|case| case.ids.ids.as_ref());
        if let Some(ids) = ids {
            let prompt = ids.len() - 1 + tokens;
            gauge.equal("prompt tokens in the hosted example", &prompt, &example.prompt_tokens);
        }
        Ok(())
    }
}

impl Ids {
    fn all(&self) -> impl Iterator<Item = &Vec<u32>> {
        self.ids.iter().chain(&self.nano_ids)
    }
}

impl Vocabulary {
    fn read(source: &Source) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct TokenizerFile {
            added_tokens: Vec<AddedToken>,
        }
        #[derive(Deserialize)]
        struct AddedToken {
            content: String,
        }
        let json = source.read_text("tokenizer.json")?.context("no tokenizer.json")?;
        let file: TokenizerFile = serde_json::from_str(&json)?;
        let names = file.added_tokens.into_iter().map(|token| token.content).collect();
        Ok(Self { tokenizer: Tokenizer::load(source)?, names })
    }

    fn first_id(&self) -> Option<u32> {
        self.tokenizer.control("<|im_start|>")
    }

    /// Ids of a text in which control tokens may be spelled.
    fn encode(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let next = self.names.iter().filter_map(|name| Some((rest.find(name.as_str())?, name))).min();
            let (plain, name) = next.map_or((rest, ""), |(at, name)| (&rest[..at], name.as_str()));
            ids.extend(self.tokenizer.encode(plain)?);
            ids.extend(self.tokenizer.control(name));
            rest = &rest[plain.len() + name.len()..];
        }
        Ok(ids)
    }

    /// Ids of a rendered conversation in which each picture and clip has one token.
    fn prompt(&self, segments: &[Segment]) -> anyhow::Result<Vec<u32>> {
        let pad = |name| self.tokenizer.control(name).with_context(|| format!("no token {name}"));
        let media = segments.iter().filter(|segment| matches!(segment, Segment::Media { .. })).count();
        let prompt = Prompt::build(
            PromptParts {
                segments,
                media_tokens: &vec![1; media],
                pads: PadTokens { image: pad("<|image_pad|>")?, video: pad("<|video_pad|>")? },
                limit: 1 << 20,
            },
            &self.tokenizer,
        )?;
        Ok(prompt.ids)
    }
}

/// The text that the template would give for these segments.
fn spelled(segments: &[Segment]) -> String {
    segments
        .iter()
        .map(|segment| match segment {
            Segment::Control(name) => name,
            Segment::Text(text) => text.as_str(),
            Segment::Media { kind: MediaKind::Image, .. } => "<|image_pad|>",
            Segment::Media { kind: MediaKind::Video, .. } => "<|video_pad|>",
        })
        .collect()
}
