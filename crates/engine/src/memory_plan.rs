//! What a model will need of memory, the host's or that of a device that has its own, known before anything is loaded:
//! a function of sizes.
//!
//! Of devices weights, cache and the sampler's tables are exact. Activations are upper bounds of what the operations ask
//! for at one time.

use std::fmt;

use ocellus_decoder::Config as Decoder;
use ocellus_kernels::{linear, sampling::Sampler};
use ocellus_vision_encoder::Config as Tower;

use crate::WeightFormat;

/// Rows of weights are filled up to whole multiples of this many features.
const FEATURES: usize = 64;
/// Bytes of an f32, and of a bf16.
const WIDE: usize = 4;
const NARROW: usize = 2;
/// Buffers come in sizes up to an eighth larger than what is asked for, and the driver takes some room for itself.
const SPARE_BYTES: usize = 512 << 20;
/// On the host: the program, tokenizer and grammars, and pictures while they are decoded.
const HOST_SPARE_BYTES: usize = 256 << 20;
/// The reference of attention makes this many scores at a time, and holds them scaled and as weights beside that.
const MOST_SCORES: usize = 1 << 26;
const SCORE_COPIES: usize = 3;
/// A shorter context is of little use.
const SHORTEST_CONTEXT: usize = 1024;

/// What decides how much memory is needed.
#[derive(Clone, Copy, Debug)]
pub struct Sizes<'a> {
    /// The language model.
    pub decoder: &'a Decoder,
    /// The vision tower.
    pub tower: &'a Tower,
    /// How the decoder's weights are held.
    pub decoder_format: WeightFormat,
    /// How the tower's weights are held.
    pub tower_format: WeightFormat,
    /// Tokens that the cache has room for.
    pub context_tokens: usize,
    /// Prompt tokens that are computed at a time.
    pub chunk_tokens: usize,
    /// Tokens of the largest picture, or of those that are embedded together.
    pub picture_tokens: usize,
    /// Sequences that are computed side by side.
    pub sequences: usize,
    /// Whose memory.
    pub place: Place,
    /// Bytes of all weights as they are stored.
    pub stored_bytes: usize,
}

/// Whose memory a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A device's own.
    Device,
    /// The machine's.
    Host,
}

/// Bytes by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Both models.
    pub weights: usize,
    /// Keys and values of all tokens.
    pub cache: usize,
    /// Embedded pictures that wait until their prompts are computed: all tokens at most.
    pub embedded: usize,
    /// Activations of one chunk of a prompt.
    pub activations: usize,
    /// Activations of the largest picture.
    pub picture: usize,
    /// What choosing tokens takes, logits included.
    pub choices: usize,
    /// Room that is lost to rounding, and the driver's own.
    pub spare: usize,
}

impl MemoryPlan {
    /// The plan for `sizes`.
    pub fn new(sizes: &Sizes<'_>) -> Self {
        let wide = sizes.place == Place::Host && sizes.decoder_format == WeightFormat::F32;
        let element = if wide { WIDE } else { NARROW };
        let weights = match (sizes.place, sizes.decoder_format) {
            // Mapped as they are stored.
            (Place::Host, WeightFormat::Auto | WeightFormat::F32) => sizes.stored_bytes,
            _ => decoder_weights(sizes.decoder, sizes.decoder_format, sizes.place)
                .saturating_add(tower_weights(sizes.tower, sizes.tower_format, sizes.place)),
        };
        Self {
            weights,
            cache: cache(sizes.decoder, sizes.context_tokens, element),
            embedded: sizes.context_tokens.saturating_mul(WIDE * sizes.tower.out_hidden_size),
            activations: chunk(sizes.decoder, sizes.chunk_tokens, element).saturating_add(if wide {
                scores(sizes.decoder.num_attention_heads, sizes.chunk_tokens, sizes.context_tokens)
            } else {
                0
            }),
            picture: picture(sizes.tower, sizes.picture_tokens, element).saturating_add(if wide {
                let patches = sizes.picture_tokens.saturating_mul(sizes.tower.geometry.merge_size.pow(2));
                scores(sizes.tower.num_heads, patches, patches)
            } else {
                0
            }),
            choices: choices(sizes.decoder.vocab_size, sizes.sequences, sizes.place),
            spare: match sizes.place {
                Place::Device => SPARE_BYTES,
                Place::Host => HOST_SPARE_BYTES,
            },
        }
    }

    /// All of it. Prompts and pictures are not computed at the same time, so the larger of the two counts.
    pub fn total(&self) -> usize {
        let at_work = self.activations.max(self.picture);
        [self.weights, self.cache, self.embedded, at_work, self.choices, self.spare]
            .into_iter()
            .fold(0, usize::saturating_add)
    }
}

impl Sizes<'_> {
    /// What to change so that it fits in `free` bytes: narrower weights, a shorter context, both, or another model.
    pub fn advice(&self, free: usize) -> String {
        let formats = [WeightFormat::Bf16, WeightFormat::Int8, WeightFormat::Int4];
        let narrower =
            formats.into_iter().filter(|format| self.is_narrower(*format)).map(|format| self.with(format));
        let candidates: Vec<Self> = std::iter::once(*self).chain(narrower).collect();
        let mut fitting: Vec<String> = Vec::new();
        for sizes in &candidates {
            let plan = MemoryPlan::new(sizes);
            let needs = format!("needs {:.2} GiB", gib(plan.total()));
            let weights = format!("--weights {}", sizes.decoder_format);
            let same = sizes.decoder_format == self.decoder_format;
            if plan.total() <= free {
                fitting.push(format!("{weights} {needs}"));
            } else if let Some(context) = sizes.fitting_context(free) {
                let context = format!("--context {context}");
                fitting.push(if same {
                    format!("{context} would fit")
                } else {
                    format!("{weights} {context} would fit")
                });
            }
        }
        if fitting.is_empty() {
            let least =
                candidates.iter().map(|sizes| MemoryPlan::new(sizes).total()).min().unwrap_or(usize::MAX);
            return format!(
                "a smaller model is needed; this one takes {:.2} GiB at least, in the narrowest weights (--weights int4) at this context",
                gib(least)
            );
        }
        fitting.join("; ")
    }

    /// Of a context with this many tokens there is room for.
    fn fitting_context(&self, free: usize) -> Option<usize> {
        let plan = MemoryPlan::new(self);
        let of_context = plan.cache.saturating_add(plan.embedded);
        let per_token = of_context / self.context_tokens.max(1);
        let rest = plan.total().checked_sub(of_context)?;
        let fitting = free.saturating_sub(rest) / per_token.max(1) / 256 * 256;
        (SHORTEST_CONTEXT..self.context_tokens).contains(&fitting).then_some(fitting)
    }

    fn is_narrower(&self, format: WeightFormat) -> bool {
        let width = |format| match format {
            WeightFormat::Auto | WeightFormat::F32 => 4,
            WeightFormat::Bf16 => 3,
            WeightFormat::Int8 => 2,
            WeightFormat::Int4 => 1,
        };
        width(format) < width(self.decoder_format)
    }

    fn with(&self, format: WeightFormat) -> Self {
        let exact = matches!(self.tower_format, WeightFormat::Auto | WeightFormat::F32);
        let tower_format = if exact { format.of_tower() } else { self.tower_format };
        Self { decoder_format: format, tower_format, ..*self }
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} GiB: weights {:.2}, cache {:.2}, embedded pictures {:.2}, the larger of a prompt's chunk {:.2} and a \
             picture {:.2}, choosing tokens {:.2}, spare {:.2}",
            gib(self.total()),
            gib(self.weights),
            gib(self.cache),
            gib(self.embedded),
            gib(self.activations),
            gib(self.picture),
            gib(self.choices),
            gib(self.spare)
        )
    }
}

fn gib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Bytes of a matrix `(rows, features)`.
fn matrix(rows: usize, features: usize, format: WeightFormat, place: Place) -> usize {
    match place {
        // What is stored in f32 is refused by devices with memory of their own.
        Place::Device if format.layers() == linear::Format::Exact => {
            linear::device_bytes(rows, features, WeightFormat::Bf16.layers())
        }
        Place::Device => linear::device_bytes(rows, features, format.layers()),
        Place::Host => {
            let weights = rows.saturating_mul(features.next_multiple_of(FEATURES));
            // Groups of 32 integers have a scale. In sixteenths of a byte.
            let sixteenths = match format {
                WeightFormat::Auto | WeightFormat::F32 | WeightFormat::Bf16 => 32,
                WeightFormat::Int8 => 17,
                WeightFormat::Int4 => 9,
            };
            (weights / 16).saturating_mul(sixteenths)
        }
    }
}

/// Bytes of the two matrices of a gate, which alternate on devices by groups of eight rows.
fn gate_up(rows: usize, features: usize, format: WeightFormat, place: Place) -> usize {
    matrix(2 * rows.next_multiple_of(8), features, format, place)
}

fn decoder_weights(config: &Decoder, format: WeightFormat, place: Place) -> usize {
    let &Decoder {
        hidden_size, intermediate_size, num_attention_heads, num_key_value_heads, head_dim, ..
    } = config;
    let queries = num_attention_heads * head_dim;
    let layer = matrix(queries + 2 * num_key_value_heads * head_dim, hidden_size, format, place)
        + matrix(hidden_size, queries, format, place)
        + gate_up(intermediate_size, hidden_size, format, place)
        + matrix(hidden_size, intermediate_size, format, place);
    // The table of embeddings and the output layer never have 4 bits.
    let of_vocabulary = if format == WeightFormat::Int4 { WeightFormat::Int8 } else { format };
    let tables = if config.tie_word_embeddings { 1 } else { 2 };
    layer * config.num_hidden_layers + tables * matrix(config.vocab_size, hidden_size, of_vocabulary, place)
}

fn tower_weights(config: &Tower, format: WeightFormat, place: Place) -> usize {
    let &Tower { hidden_size, intermediate_size, out_hidden_size, ref geometry, .. } = config;
    let block = matrix(4 * hidden_size, hidden_size, format, place)
        + gate_up(intermediate_size, hidden_size, format, place)
        + matrix(hidden_size, intermediate_size, format, place);
    let merged = hidden_size * geometry.merge_size.pow(2);
    block * config.depth
        + matrix(hidden_size, geometry.patch_values(), format, place)
        + matrix(merged + out_hidden_size, merged, format, place)
}

fn cache(config: &Decoder, tokens: usize, element: usize) -> usize {
    let token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * element;
    token.saturating_mul(tokens)
}

/// The residual twice in f32, what is normalised, queries with keys and values before and after the rotation, what
/// attention gives, and what is between the feed-forward's products.
fn chunk(config: &Decoder, tokens: usize, element: usize) -> usize {
    let queries = config.num_attention_heads * config.head_dim;
    let qkv = queries + 2 * config.num_key_value_heads * config.head_dim;
    let features = 2 * config.hidden_size + qkv + 2 * queries + config.intermediate_size;
    let token = 2 * WIDE * config.hidden_size + element * features + 2 * WIDE * config.head_dim;
    token.saturating_mul(tokens)
}

/// Logits as the last product gives them and as they are kept, and on devices the sampler's tables.
fn choices(vocabulary: usize, sequences: usize, place: Place) -> usize {
    let logits = sequences.saturating_mul(2 * WIDE * vocabulary);
    match place {
        Place::Device => logits.saturating_add(Sampler::device_bytes(sequences, vocabulary)),
        Place::Host => logits,
    }
}

/// What the reference of attention holds at a time; the faster ways hold a few rows.
fn scores(heads: usize, queries: usize, keys: usize) -> usize {
    SCORE_COPIES * WIDE * heads.saturating_mul(queries).saturating_mul(keys).min(MOST_SCORES)
}

/// As [`chunk`], for all patches of a picture, whose pixels come as f32 and are rounded.
fn picture(config: &Tower, tokens: usize, element: usize) -> usize {
    let head_dim = config.hidden_size / config.num_heads.max(1);
    let inside = 7 * config.hidden_size + config.intermediate_size;
    let patch = 2 * WIDE * config.hidden_size + element * inside + 2 * WIDE * head_dim;
    let pixels = (WIDE + element) * config.geometry.patch_values();
    let patches = tokens.saturating_mul(config.geometry.merge_size.pow(2));
    patches.saturating_mul(patch + pixels)
}

#[cfg(test)]
mod tests {
    use ocellus_weights::fields::Fields;

    use super::*;

    fn configs(name: &str) -> (Decoder, Tower) {
        let path = format!("{}/../../models/{name}/config.json", env!("CARGO_MANIFEST_DIR"));
        let fields = Fields::parse("config.json", &std::fs::read_to_string(path).unwrap()).unwrap();
        (Decoder::from_fields(&fields).unwrap(), Tower::from_fields(&fields).unwrap())
    }

    /// Calls `check` with the sizes of a published model.
    fn sizes<T>(
        name: &str,
        format: WeightFormat,
        context: usize,
        place: Place,
        check: impl Fn(Sizes<'_>) -> T,
    ) -> T {
        let (decoder, tower) = configs(name);
        check(Sizes {
            decoder: &decoder,
            tower: &tower,
            decoder_format: format,
            tower_format: format.of_tower(),
            context_tokens: context,
            chunk_tokens: 1024,
            picture_tokens: 16_384,
            sequences: 8,
            place,
            stored_bytes: 16_584_333_312,
        })
    }

    fn plan(name: &str, format: WeightFormat, context_tokens: usize) -> MemoryPlan {
        sizes(name, format, context_tokens, Place::Device, |sizes| MemoryPlan::new(&sizes))
    }

    fn on_host(format: WeightFormat) -> MemoryPlan {
        sizes("7b", format, 1, Place::Host, |sizes| MemoryPlan::new(&sizes))
    }

    #[test]
    fn weights_are_as_large_as_the_official_files() {
        // Bytes of the official safetensors files; only rows that are filled up differ, and norms and biases.
        for (name, bytes) in [("3b", 7.51e9), ("7b", 16.58e9)] {
            let found = plan(name, WeightFormat::Bf16, 4096).weights as f64;
            assert!((found / bytes - 1.0).abs() < 0.02, "{name}: {found}, {bytes}");
        }
        let (int8, int4) =
            (plan("7b", WeightFormat::Int8, 1).weights, plan("7b", WeightFormat::Int4, 1).weights);
        assert!(
            (8e9..10e9).contains(&(int8 as f64)) && (5e9..7e9).contains(&(int4 as f64)),
            "{int8}, {int4}"
        );
    }

    #[test]
    fn caches_and_pictures() {
        // 7B: 28 layers, 4 heads of keys and values, 128 wide: 57,344 bytes for each token.
        assert_eq!(plan("7b", WeightFormat::Bf16, 32_768).cache, 57_344 * 32_768);
        // The bound that is promised for the largest picture.
        assert!(plan("7b", WeightFormat::Bf16, 1).picture < 4_000_000_000);
    }

    #[test]
    fn what_does_not_fit_names_its_fix() {
        let advice =
            |format, context, free| sizes("7b", format, context, Place::Device, |sizes| sizes.advice(free));
        let plan = plan("7b", WeightFormat::Bf16, 32_768);
        let without = plan.total() - plan.cache - plan.embedded;
        // Each token has 14,336 bytes more while its picture is embedded.
        let found = advice(WeightFormat::Bf16, 32_768, without + (57_344 + 14_336) * 5000);
        assert_eq!(
            found,
            "--context 4864 would fit; --weights int8 needs 14.11 GiB; --weights int4 needs 11.07 GiB",
        );
        // 10 GiB less what int4 needs without context, 8.88 GiB, has room for 16,700 tokens.
        assert_eq!(advice(WeightFormat::Bf16, 32_768, 10 << 30), "--weights int4 --context 16640 would fit");
        assert!(advice(WeightFormat::Int4, 32_768, 8 << 30).starts_with("a smaller model is needed"));
        assert!(plan.to_string().contains("weights 15."), "{plan}");
    }

    #[test]
    fn the_host_holds_weights_as_they_are_stored_or_packed() {
        let exact = on_host(WeightFormat::F32);
        assert_eq!(exact.weights, 16_584_333_312);
        assert_eq!(exact.cache, 2 * on_host(WeightFormat::Bf16).cache);
        // A picture's scores are cut into pieces of 2^26.
        assert!(exact.picture > on_host(WeightFormat::Bf16).picture + 3 * 4 * (1 << 26));
        let gigabytes = |format| on_host(format).weights as f64 / 1e9;
        // 7.07e9 weights of layers at 8.5 or 4.5 bits, 0.54e9 twice of the vocabulary at 8.5, and a tower in bf16.
        assert!((9.3..9.6).contains(&gigabytes(WeightFormat::Int8)), "{}", gigabytes(WeightFormat::Int8));
        assert!((6.0..6.4).contains(&gigabytes(WeightFormat::Int4)), "{}", gigabytes(WeightFormat::Int4));
        let advice = sizes("7b", WeightFormat::F32, 4096, Place::Host, |sizes| sizes.advice(10 << 30));
        assert!(!advice.contains("bf16") && advice.contains("--weights int4 needs "), "{advice}");
    }

    #[test]
    fn absurd_sizes_do_not_overflow() {
        assert_eq!(plan("7b", WeightFormat::Bf16, usize::MAX).total(), usize::MAX);
    }
}
