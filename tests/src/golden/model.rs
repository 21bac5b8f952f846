//! `model_<name>.json` and `.safetensors`: conversations through a checkpoint, from the messages to the last of 32
//! greedy tokens.

mod measures;
mod run;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use ocellus_decoder::positions::{Positions, Span};
use ocellus_engine::{Conversation, Formats, MediaKind, Model, Prompt, PromptParts, Segment, Source};
use ocellus_kernels::Device;
use ocellus_vision_encoder::patches::Patches;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

pub use self::{
    measures::{FAMILIES, Measures},
    run::{Answer, Media, answer, answer_embedded, embed, splice},
};
use super::{
    Folder, Gauge, conversation,
    files::Tensors,
    images::{Images, Steps},
};
use crate::checkpoint::{Naming, Recipe, Tokenizer};

/// Compares every conversation of every model of the folder; `None` when there is none.
///
/// # Errors
/// When a file can't be read.
pub fn compare_all(folder: &Folder) -> anyhow::Result<Option<Vec<Gauge>>> {
    let names = folder.model_names()?;
    if names.is_empty() {
        return Ok(None);
    }
    let images = Images::read(folder)?;
    let mut measures = Measures::default();
    for name in &names {
        // One checkpoint that can't be used says nothing of the others.
        if let Err(error) = compare_model(folder, name, images.as_ref(), &mut measures) {
            measures.conversation.refused(name, format!("{error:#}"));
        }
    }
    Ok(Some(measures.into_gauges()))
}

fn compare_model(
    folder: &Folder,
    name: &str,
    images: Option<&Images>,
    measures: &mut Measures,
) -> anyhow::Result<()> {
    let golden = ModelGolden::read(folder, name)?;
    let model = golden.open()?;
    for case in golden.cases() {
        let inputs = golden.inputs(case, &model, images, &Steps::default());
        let compared = inputs.and_then(|inputs| golden.compare(case, &model, &inputs, measures));
        if let Err(error) = compared {
            measures.conversation.refused(format!("{name}/{case}"), format!("{error:#}"));
        }
    }
    Ok(())
}

/// The golden numbers of one checkpoint, and the checkpoint.
pub struct ModelGolden {
    name: String,
    file: ModelFile,
    tensors: Tensors,
    checkpoint: PathBuf,
    /// Holds the weights while they are in use, when the folder has only their config.
    _written: Option<TempDir>,
}

#[derive(Deserialize)]
struct ModelFile {
    cases: BTreeMap<String, Case>,
}

#[derive(Deserialize)]
struct Case {
    messages: Value,
    images: Vec<String>,
    second_per_grid_ts: Vec<f64>,
    input_ids: Vec<u32>,
    image_grids: Vec<[usize; 3]>,
    video_grids: Vec<[usize; 3]>,
    rope_delta: i64,
    generated_ids: Vec<u32>,
}

/// What our own pipeline gives the model for a conversation.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Token ids with a run of placeholders for each picture and clip.
    pub ids: Vec<u32>,
    /// Pictures and clips in the order of the prompt.
    pub media: Vec<Media>,
    /// The prompt as stretches of text and vision.
    pub spans: Vec<Span>,
    /// Positions of the ids.
    pub positions: Positions,
}

impl ModelGolden {
    /// Reads `model_<name>.*` and finds the checkpoint, writing its random weights when it has none.
    ///
    /// # Errors
    /// When a file is missing or not of the expected form.
    pub fn read(folder: &Folder, name: &str) -> anyhow::Result<Self> {
        let stem = format!("model_{name}");
        let file = folder.json(&stem)?.with_context(|| format!("golden/{stem}.json is missing"))?;
        let mut checkpoint =
            folder.checkpoint(name).with_context(|| format!("no checkpoint folder {name} beside golden/"))?;
        let has_weights = fs::read_dir(&checkpoint)?
            .flatten()
            .any(|entry| entry.path().extension().is_some_and(|extension| extension == "safetensors"));
        let mut written = None;
        if !has_weights {
            // A config alone stands for the random weights that our generator gives it.
            let config = fs::read_to_string(checkpoint.join("config.json"))?;
            let target = TempDir::new()?;
            // Libraries that nest the config use the newer names of tensors as well.
            let is_nested = serde_json::from_str::<Value>(&config)?.get("text_config").is_some();
            let naming = if is_nested { Naming::New } else { Naming::Hub };
            let recipe = Recipe { naming, tokenizer: Tokenizer::Nano, ..Recipe::from_config(&config) };
            recipe.write(target.path(), &mut |_| {})?;
            checkpoint = target.path().to_owned();
            written = Some(target);
        }
        Ok(Self {
            name: name.to_owned(),
            file,
            tensors: folder.tensors(&stem)?,
            checkpoint,
            _written: written,
        })
    }

    /// The keys of the conversations.
    pub fn cases(&self) -> impl Iterator<Item = &str> {
        self.file.cases.keys().map(String::as_str)
    }

    /// Loads the checkpoint.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn open(&self) -> anyhow::Result<Model> {
        Ok(Model::load(&Source::folder(&self.checkpoint), &Device::cpu(), &|_| {})?)
    }

    /// Loads the checkpoint with its weights held as `formats` say.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn open_as(&self, formats: Formats) -> anyhow::Result<Model> {
        Ok(Model::load_as(&Source::folder(&self.checkpoint), formats, &Device::cpu(), &|_| {})?)
    }

    /// The golden tokens of a conversation's answer.
    ///
    /// # Errors
    /// When there is no such conversation.
    pub fn generated(&self, case: &str) -> anyhow::Result<&[u32]> {
        Ok(&self.case(case)?.generated_ids)
    }

    /// Loads a copy of the checkpoint whose config.json `edit` has changed.
    ///
    /// # Errors
    /// When the copy can't be written, or the config is nonsense by now.
    pub fn open_edited(&self, edit: impl FnOnce(&mut Value)) -> anyhow::Result<Model> {
        let copy = TempDir::new()?;
        for entry in fs::read_dir(&self.checkpoint)? {
            let entry = entry?;
            fs::copy(entry.path(), copy.path().join(entry.file_name()))?;
        }
        let path = copy.path().join("config.json");
        let mut config = serde_json::from_str(&fs::read_to_string(&path)?)?;
        edit(&mut config);
        fs::write(&path, config.to_string())?;
        // The weights stay mapped after their names are gone.
        Ok(Model::load(&Source::folder(copy.path()), &Device::cpu(), &|_| {})?)
    }

    /// The folder with the weights.
    pub fn checkpoint(&self) -> &Path {
        &self.checkpoint
    }

    /// A golden array of a conversation, by its name in the file.
    pub fn golden(&self, case: &str, tensor: &str) -> Option<&[f32]> {
        self.tensors.f32(&format!("{case}.{tensor}"))
    }

    /// Builds a conversation's inputs with our own template, tokenizer, preprocessing and positions.
    ///
    /// # Errors
    /// When a picture is missing, or one of our own crates refuses.
    pub fn inputs(
        &self,
        case: &str,
        model: &Model,
        images: Option<&Images>,
        steps: &Steps,
    ) -> anyhow::Result<Inputs> {
        let case = self.case(case)?;
        let messages = conversation::messages(&case.messages)?;
        let segments = Conversation {
            messages: &messages,
            tools: &[],
            number_media: false,
            add_generation_prompt: true,
        }
        .segments()?;

        // The golden lists pictures and clips apart; the prompt has them in the order of the conversation.
        let (mut pictures, mut clips) = (case.images.iter(), case.second_per_grid_ts.iter());
        let mut media: Vec<(Patches, f32)> = Vec::new();
        for segment in &segments {
            let Segment::Media { kind, .. } = segment else { continue };
            let images =
                images.context("golden/images.json is missing: what the pictures are is not known")?;
            media.push(match kind {
                MediaKind::Image => {
                    let key = pictures.next().context("fewer pictures than placeholders")?;
                    let patches = images.patches(key, steps)?;
                    (patches.with_context(|| format!("the exact pixels of {key} are not at hand"))?, 0.0)
                }
                MediaKind::Video => {
                    let seconds = clips.next().context("fewer clips than placeholders")?;
                    (images.clip_patches(steps)?, *seconds as f32)
                }
            });
        }

        let geometry = model.tower.config().geometry;
        let media_tokens: Vec<usize> =
            media.iter().map(|(patches, _)| patches.grid.tokens(geometry.merge_size)).collect();
        let prompt = Prompt::build(
            PromptParts {
                segments: &segments,
                media_tokens: &media_tokens,
                pads: model.pads,
                limit: model.decoder.config().max_position_embeddings,
            },
            &model.tokenizer,
        )?;
        let mut spans = Vec::new();
        let mut at = 0;
        for span in &prompt.media {
            let (patches, seconds_per_step) = &media[span.media];
            let grid = patches.grid;
            spans.push(Span::Text(span.start - at));
            spans.push(Span::Vision {
                t: grid.t,
                h: grid.h / geometry.merge_size,
                w: grid.w / geometry.merge_size,
                seconds_per_step: *seconds_per_step,
            });
            at = span.start + span.len;
        }
        spans.push(Span::Text(prompt.ids.len() - at));
        let positions = Positions::new(&spans, model.tower.config().tokens_per_second);
        let media = prompt
            .media
            .iter()
            .zip(media)
            .map(|(span, (patches, _))| Media { kind: span.kind, start: span.start, patches })
            .collect();
        Ok(Inputs { ids: prompt.ids, media, spans, positions })
    }

    /// Compares `inputs`, runs the model on them, and compares everything that the golden knows of the conversation.
    ///
    /// # Errors
    /// When the model refuses the inputs, or the golden is not of the expected form.
    pub fn compare(
        &self,
        case: &str,
        model: &Model,
        inputs: &Inputs,
        measures: &mut Measures,
    ) -> anyhow::Result<()> {
        if self.compare_inputs(case, inputs, measures)? {
            let answer = answer(model, inputs, self.generated_ids(case)?)?;
            self.compare_answer(case, &answer, measures)?;
        }
        Ok(())
    }

    /// Compares an answer that was computed from the conversation's inputs.
    ///
    /// # Errors
    /// When the golden is not of the expected form.
    pub fn compare_answer(&self, case: &str, answer: &Answer, measures: &mut Measures) -> anyhow::Result<()> {
        let name_of = |tensor: &str| format!("{case}.{tensor}");
        let at = format!("{}/{case}", self.name);
        measures.compare(&at, answer, self.generated_ids(case)?, &name_of, &self.tensors)
    }

    /// The greedy tokens of a conversation.
    ///
    /// # Errors
    /// When there is no such conversation, or it has no tokens.
    pub fn generated_ids(&self, case: &str) -> anyhow::Result<&[u32]> {
        let ids = &self.case(case)?.generated_ids;
        ensure!(!ids.is_empty(), "model_{}.json, {case}: no generated ids", self.name);
        Ok(ids)
    }

    /// Whether the ids are the golden's: of other ids the answer can't be compared.
    fn compare_inputs(&self, key: &str, inputs: &Inputs, measures: &mut Measures) -> anyhow::Result<bool> {
        let case = self.case(key)?;
        let at = format!("{}/{key}", self.name);
        let gauge = &mut measures.conversation;
        gauge.equal(format!("ids of {at}"), &inputs.ids, &case.input_ids);
        let grids = |kind| -> Vec<[usize; 3]> {
            let of_kind = inputs.media.iter().filter(|media| media.kind == kind);
            of_kind.map(|Media { patches: Patches { grid, .. }, .. }| [grid.t, grid.h, grid.w]).collect()
        };
        gauge.equal(format!("grids of {at}"), &grids(MediaKind::Image), &case.image_grids);
        gauge.equal(format!("clips of {at}"), &grids(MediaKind::Video), &case.video_grids);
        if let Some(golden) = self.tensors.integers(&format!("{key}.position_ids")) {
            let tokens = &inputs.positions.tokens;
            let ours: Vec<i64> = (0..3)
                .flat_map(|axis| tokens.iter().map(move |position| i64::from(position[axis])))
                .collect();
            gauge.equal(format!("positions of {at}"), &ours.as_slice(), &golden);
        }
        gauge.equal(format!("delta of {at}"), &inputs.positions.delta(), &case.rope_delta);
        Ok(inputs.ids == case.input_ids)
    }

    fn case(&self, key: &str) -> anyhow::Result<&Case> {
        self.file
            .cases
            .get(key)
            .with_context(|| format!("model_{}.json has no conversation {key}", self.name))
    }
}
