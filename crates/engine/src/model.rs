//! A checkpoint as a whole: the two models, the tokenizer, and the constants that tie them together.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
};

use ocellus_decoder::Decoder;
use ocellus_kernels::Device;
use ocellus_vision_encoder::{Tower, config, patches::Normalization, resize::PixelLimits};
use ocellus_weights::{
    Checkpoint, PackedWeights, Source,
    fields::{FieldError, Fields},
    write_packed,
};

use crate::{
    LoadError, MemoryPlan, Options, PadTokens, Place, Sampling, Sizes, Tokenizer, WeightFormat,
    constraint::Grammars, engine::DEFAULT_CONTEXT_TOKENS, template,
};

/// Everything that was loaded from one checkpoint.
#[derive(Debug)]
pub struct Model {
    /// Pictures to embeddings.
    pub tower: Tower,
    /// Embeddings to logits.
    pub decoder: Decoder,
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Mean and deviation of the colours.
    pub normalization: Normalization,
    /// The placeholders of pictures and clips.
    pub pads: PadTokens,
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
    /// Sampling as `generation_config.json` says.
    pub default_sampling: Sampling,
    /// Where it computes.
    pub device: Device,
    /// Bytes of all tensors as they are stored.
    pub weights_bytes: usize,
    /// How they are held.
    pub formats: Formats,
    /// The vocabulary for answers that must follow a grammar.
    pub(crate) grammars: Grammars,
}

/// How the weights of the two models are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// The decoder's.
    pub decoder: WeightFormat,
    /// The vision tower's; `None` takes bf16 where the decoder is quantized and the decoder's otherwise.
    pub tower: Option<WeightFormat>,
}

impl Formats {
    /// What the file of weights packed so is called. Both formats are resolved.
    pub fn file_name(self) -> String {
        let tower = self.tower.unwrap_or(self.decoder.of_tower());
        format!("ocellus-{}-vision-{tower}.safetensors", self.decoder)
    }
}

impl Default for Formats {
    /// Arithmetic in f32.
    fn default() -> Self {
        Self { decoder: WeightFormat::F32, tower: None }
    }
}

/// A stage of loading, for a progress display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Configuration and tokenizer.
    Tokenizer,
    /// Headers of the weight files.
    Weights,
    /// What the model will need of memory, which has room for it.
    Planned {
        /// What for.
        plan: MemoryPlan,
        /// Bytes that are free.
        free: usize,
        /// Whose.
        place: Place,
    },
    /// The vision tower's tensors.
    VisionTower,
    /// The decoder's tensors.
    Decoder,
    /// Packed weights are written to a file.
    Writing {
        /// Bytes that were written so far.
        written: usize,
        /// Bytes in all.
        size: usize,
    },
}

impl Model {
    /// Loads a checkpoint in the official layout, for arithmetic in f32.
    ///
    /// # Errors
    /// [`LoadError`] naming what is missing, broken or contradictory, and where.
    pub fn load(source: &Source, device: &Device, progress: &dyn Fn(Progress)) -> Result<Self, LoadError> {
        Self::load_as(source, Formats::default(), device, progress)
    }

    /// The same with weights held as `formats` say.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_as(
        source: &Source,
        formats: Formats,
        device: &Device,
        progress: &dyn Fn(Progress),
    ) -> Result<Self, LoadError> {
        Self::load_or_pack(source, formats, None, device, progress)
    }

    /// Packs the weights of a checkpoint as `formats` say and writes them into `folder`, from where
    /// [`Model::load_as`] takes them when it is the checkpoint's own. Gives the path of the file.
    ///
    /// # Errors
    /// As [`Model::load`], when a format is not a packed one, or when the file can't be written.
    pub fn pack(
        source: &Source,
        formats: Formats,
        folder: &Path,
        progress: &dyn Fn(Progress),
    ) -> Result<PathBuf, LoadError> {
        let model = Self::load_or_pack(source, formats, Some(folder), &Device::host(), progress)?;
        Ok(folder.join(model.formats.file_name()))
    }

    fn load_or_pack(
        source: &Source,
        formats: Formats,
        write_to: Option<&Path>,
        device: &Device,
        progress: &dyn Fn(Progress),
    ) -> Result<Self, LoadError> {
        progress(Progress::Tokenizer);
        let fields = required(source, "config.json")?;
        let vision_config = config::Config::from_fields(&fields)?;
        let decoder_config = ocellus_decoder::Config::from_fields(&fields)?;
        if vision_config.out_hidden_size != decoder_config.hidden_size {
            return Err(LoadError::Contradiction(format!(
                "config.json: vision_config.out_hidden_size is {}, expected the decoder's hidden_size {}",
                vision_config.out_hidden_size, decoder_config.hidden_size
            )));
        }
        let preprocessor = optional(source, "preprocessor_config.json")?;
        let normalization = config::normalization(&preprocessor, &vision_config.geometry)?;
        let tokenizer = Tokenizer::load(source)?;
        check_vocabulary(&tokenizer, decoder_config.vocab_size)?;
        let pads = pads(&fields, &tokenizer, decoder_config.vocab_size)?;
        let generation = optional(source, "generation_config.json")?;
        let eos_token_ids = eos_token_ids(&generation, &fields, decoder_config.vocab_size)?;
        let default_sampling = default_sampling(&generation)?;

        progress(Progress::Weights);
        let checkpoint = Checkpoint::open(source)?;
        let decoder_format = formats.decoder.resolve(&checkpoint);
        let tower_format = formats.tower.unwrap_or(decoder_format.of_tower()).resolve(&checkpoint);
        let formats = Formats { decoder: decoder_format, tower: Some(tower_format) };
        let mut loader = checkpoint.loader(device);
        match write_to {
            Some(_) => loader = loader.remembering(),
            None => {
                let packed = PackedWeights::open(source, &formats.file_name(), &checkpoint)?;
                loader = loader.with_packed(packed);
            }
        }
        progress(Progress::VisionTower);
        let visual = loader.scope_any(&["model.visual", "visual"])?.with_format(tower_format.tower_layers());
        let tower = Tower::load(&visual, &vision_config, device)?;
        progress(Progress::Decoder);
        let of_decoder = ocellus_decoder::Formats {
            layers: decoder_format.layers(),
            vocabulary: decoder_format.vocabulary(),
        };
        let decoder = Decoder::load(&loader, &decoder_config, of_decoder, device)?;
        // Tables of rotary frequencies, which old libraries saved, are computed here.
        loader.ignore(|name| {
            name.ends_with("rotary_emb.inv_freq") || name.ends_with("rotary_pos_emb.inv_freq")
        });
        let made = loader.made();
        loader.finish()?;
        if let Some(folder) = write_to {
            let size: usize =
                made.iter().filter_map(|(_, weight)| weight.packed_bytes()).map(<[u8]>::len).sum();
            let written = Cell::new(0);
            let path = folder.join(formats.file_name());
            write_packed(&path, &checkpoint, &made, &|bytes| {
                written.set(written.get() + bytes);
                progress(Progress::Writing { written: written.get(), size });
            })?;
        }
        Ok(Self {
            tower,
            decoder,
            tokenizer,
            normalization,
            pads,
            eos_token_ids,
            default_sampling,
            device: device.clone(),
            weights_bytes: checkpoint.size_in_bytes(),
            formats,
            grammars: Grammars::default(),
        })
    }
}

/// Pixels that one token of the official models stands for.
const TOKEN_PIXELS: usize = 28 * 28;

/// Tokens of the largest picture that is taken. No more are embedded at a time where pictures go together.
pub(crate) const LARGEST_PICTURE_TOKENS: usize =
    PixelLimits::HOSTED_HIGH_RESOLUTION.max_pixels / TOKEN_PIXELS;

/// What the checkpoint will need, from its configuration and the headers of its files; nothing is loaded. Refuses when
/// that is more than what is `free`.
pub(crate) fn plan(
    source: &Source,
    options: &Options,
    place: Place,
    free: usize,
) -> Result<MemoryPlan, LoadError> {
    let fields = required(source, "config.json")?;
    let checkpoint = Checkpoint::open(source)?;
    let decoder_format = options.formats.decoder.resolve(&checkpoint);
    let tower_format = options.formats.tower.unwrap_or(decoder_format.of_tower()).resolve(&checkpoint);
    let formats = Formats { decoder: decoder_format, tower: Some(tower_format) };
    within(&fields, formats, options, place, checkpoint.size_in_bytes(), free)
}

/// The same from the content of `config.json` alone, for a checkpoint in bf16 of that many bytes.
pub(crate) fn plan_of_config(
    config: &str,
    stored_bytes: usize,
    options: &Options,
    place: Place,
    free: usize,
) -> Result<MemoryPlan, LoadError> {
    let fields = Fields::parse("config.json", config)?;
    let stored = |format| if format == WeightFormat::Auto { WeightFormat::Bf16 } else { format };
    let Formats { decoder, tower } = options.formats;
    let formats = Formats { decoder: stored(decoder), tower: tower.map(stored) };
    within(&fields, formats, options, place, stored_bytes, free)
}

fn within(
    fields: &Fields,
    formats: Formats,
    options: &Options,
    place: Place,
    stored_bytes: usize,
    free: usize,
) -> Result<MemoryPlan, LoadError> {
    with_sizes(fields, formats, options, place, stored_bytes, |sizes| {
        let plan = MemoryPlan::new(sizes);
        if plan.total() <= free {
            return Ok(plan);
        }
        Err(LoadError::NoRoom { plan, free, advice: sizes.advice(free) })
    })?
}

impl MemoryPlan {
    /// What a checkpoint will need of the host's memory, from its configuration alone: the content of its
    /// `config.json`, and the bytes of its weights as they are stored.
    ///
    /// # Errors
    /// When the configuration is none of a model that we know.
    pub fn of_config(config: &str, format: WeightFormat, stored_bytes: usize) -> Result<Self, LoadError> {
        let fields = Fields::parse("config.json", config)?;
        let formats = Formats { decoder: format, tower: None };
        with_sizes(&fields, formats, &Options::default(), Place::Host, stored_bytes, Self::new)
    }
}

/// Calls `use_sizes` with what decides how much memory a model needs.
fn with_sizes<T>(
    fields: &Fields,
    formats: Formats,
    options: &Options,
    place: Place,
    stored_bytes: usize,
    use_sizes: impl FnOnce(&Sizes<'_>) -> T,
) -> Result<T, LoadError> {
    let tower = config::Config::from_fields(fields)?;
    let decoder = ocellus_decoder::Config::from_fields(fields)?;
    // The host's memory is shared, and gives a rare picture of the highest resolution what it needs for a moment; a
    // device's must have room for it.
    let picture_tokens = match place {
        Place::Device => LARGEST_PICTURE_TOKENS,
        Place::Host => PixelLimits::HOSTED.max_pixels / TOKEN_PIXELS,
    };
    Ok(use_sizes(&Sizes {
        decoder: &decoder,
        tower: &tower,
        decoder_format: formats.decoder,
        tower_format: formats.tower.unwrap_or(formats.decoder.of_tower()),
        context_tokens: options
            .context_tokens
            .unwrap_or(DEFAULT_CONTEXT_TOKENS)
            .min(decoder.max_position_embeddings),
        chunk_tokens: options.prefill_chunk.max(1),
        picture_tokens: picture_tokens.max(options.picture_batch.unwrap_or(0)),
        sequences: options.parallel.max(1),
        place,
        stored_bytes,
    }))
}

fn required(source: &Source, file: &'static str) -> Result<Fields, LoadError> {
    let text =
        source.read_text(file)?.ok_or_else(|| LoadError::FileMissing { file, place: source.describe() })?;
    Ok(Fields::parse(file, &text)?)
}

fn optional(source: &Source, file: &'static str) -> Result<Fields, LoadError> {
    let text = source.read_text(file)?;
    Ok(Fields::parse(file, text.as_deref().unwrap_or("{}"))?)
}

/// Refuses a tokenizer of another model, whose ids would have no embedding, or which the template has no tokens of.
fn check_vocabulary(tokenizer: &Tokenizer, vocab_size: usize) -> Result<(), LoadError> {
    let ids = tokenizer.vocab_size();
    if ids > vocab_size {
        return Err(LoadError::Contradiction(format!(
            "the tokenizer has ids up to {}, expected less than {vocab_size} (vocab_size in config.json)",
            ids - 1
        )));
    }
    match template::CONTROLS.iter().find(|name| tokenizer.control(name).is_none()) {
        Some(name) => Err(LoadError::Contradiction(format!(
            "the tokenizer has no added token {name}, which the chat template needs"
        ))),
        None => Ok(()),
    }
}

fn pads(config: &Fields, tokenizer: &Tokenizer, vocab_size: usize) -> Result<PadTokens, LoadError> {
    let id = |field: &str, token: &str| -> Result<u32, LoadError> {
        let id = config.integer(field, 0..=vocab_size - 1)? as u32;
        match tokenizer.control(token) {
            Some(found) if found == id => Ok(id),
            found => {
                let found = found.map_or_else(|| "no id".to_owned(), |id| format!("id {id}"));
                Err(config.error(field, &format!("the tokenizer's {token}, which has {found}")).into())
            }
        }
    };
    Ok(PadTokens {
        image: id("image_token_id", "<|image_pad|>")?,
        video: id("video_token_id", "<|video_pad|>")?,
    })
}

/// One id or a list, in `generation_config.json` or else in `config.json`.
fn eos_token_ids(generation: &Fields, config: &Fields, vocab_size: usize) -> Result<Vec<u32>, FieldError> {
    const FIELD: &str = "eos_token_id";
    let nested = config.object("text_config")?;
    let owner =
        [Some(generation), Some(config), nested.as_ref()].into_iter().flatten().find(|f| f.has(FIELD));
    let owner = owner.ok_or_else(|| generation.error(FIELD, "the ids of the tokens that end an answer"))?;
    let range = 0..=vocab_size - 1;
    let ids = match owner.integer(FIELD, range.clone()) {
        Ok(id) => vec![id],
        Err(_) => owner.integers(FIELD, range.clone()).ok().flatten().unwrap_or_default(),
    };
    // Without one, every answer would go on to the end of the context.
    if ids.is_empty() {
        let expected = format!("an integer from 0 to {}, or a list of such", range.end());
        return Err(owner.error(FIELD, &expected));
    }
    Ok(ids.into_iter().map(|id| id as u32).collect())
}

/// What the library would do with this `generation_config.json`; its defaults where the file is silent.
fn default_sampling(generation: &Fields) -> Result<Sampling, FieldError> {
    let repetition_penalty = generation.number_or("repetition_penalty", 1.0, 1e-3..=1e3)? as f32;
    if !generation.boolean_or("do_sample", false)? {
        return Ok(Sampling { repetition_penalty, ..Sampling::default() });
    }
    Ok(Sampling {
        temperature: generation.number_or("temperature", 1.0, 0.0..=1e3)? as f32,
        top_p: generation.number_or("top_p", 1.0, 1e-6..=1.0)? as f32,
        top_k: generation.integer_or("top_k", 50, 0..=1_000_000)?,
        repetition_penalty,
        ..Sampling::default()
    })
}
