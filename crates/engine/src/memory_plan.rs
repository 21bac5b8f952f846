//! What a model will need of a device that has memory of its own, known before anything is loaded: a function of sizes.
//!
//! Weights, cache and the sampler's tables are exact. Activations are upper bounds of what the operations ask for at one
//! time.

use std::fmt;

use ocellus_decoder::Config as Decoder;
use ocellus_kernels::{linear, sampling::Sampler};
use ocellus_vision_encoder::Config as Tower;

use crate::WeightFormat;

/// Bytes of an f32, and of a bf16.
const WIDE: usize = 4;
const NARROW: usize = 2;
/// Buffers come in sizes up to an eighth larger than what is asked for, and the driver takes some room for itself.
const SPARE_BYTES: usize = 512 << 20;

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
        let weights = decoder_weights(sizes.decoder, sizes.decoder_format)
            .saturating_add(tower_weights(sizes.tower, sizes.tower_format));
        Self {
            weights,
            cache: cache(sizes.decoder, sizes.context_tokens),
            embedded: sizes.context_tokens.saturating_mul(WIDE * sizes.tower.out_hidden_size),
            activations: chunk(sizes.decoder, sizes.chunk_tokens),
            picture: picture(sizes.tower, sizes.picture_tokens),
            choices: choices(sizes.decoder.vocab_size, sizes.sequences),
            spare: SPARE_BYTES,
        }
    }

    /// All of it. Prompts and pictures are not computed at the same time, so the larger of the two counts.
    pub fn total(&self) -> usize {
        let at_work = self.activations.max(self.picture);
        [self.weights, self.cache, self.embedded, at_work, self.choices, self.spare]
            .into_iter()
            .fold(0, usize::saturating_add)
    }

    /// What to change so that it fits in `free` bytes: a shorter context where that is enough, else narrower weights.
    pub fn advice(&self, free: usize, context_tokens: usize) -> String {
        let of_context = self.cache.saturating_add(self.embedded);
        let rest = self.total().saturating_sub(of_context);
        let per_token = of_context / context_tokens.max(1);
        let fitting = free.saturating_sub(rest) / per_token.max(1);
        // Fewer are of little use.
        if fitting >= 1024 {
            return format!("--context {} would fit", fitting / 256 * 256);
        }
        "--weights int8 or int4, or a smaller model, needs less".to_owned()
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
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

/// Bytes of a matrix `(rows, features)`.
fn matrix(rows: usize, features: usize, format: WeightFormat) -> usize {
    // What is stored in f32 is refused by devices with memory of their own.
    let format = if format.layers() == linear::Format::Exact { WeightFormat::Bf16 } else { format };
    linear::device_bytes(rows, features, format.layers())
}

/// Bytes of the two matrices of a gate, which alternate by groups of eight rows.
fn gate_up(rows: usize, features: usize, format: WeightFormat) -> usize {
    matrix(2 * rows.next_multiple_of(8), features, format)
}

fn decoder_weights(config: &Decoder, format: WeightFormat) -> usize {
    let &Decoder {
        hidden_size, intermediate_size, num_attention_heads, num_key_value_heads, head_dim, ..
    } = config;
    let queries = num_attention_heads * head_dim;
    let layer = matrix(queries + 2 * num_key_value_heads * head_dim, hidden_size, format)
        + matrix(hidden_size, queries, format)
        + gate_up(intermediate_size, hidden_size, format)
        + matrix(hidden_size, intermediate_size, format);
    // The table of embeddings and the output layer never have 4 bits.
    let of_vocabulary = if format == WeightFormat::Int4 { WeightFormat::Int8 } else { format };
    let tables = if config.tie_word_embeddings { 1 } else { 2 };
    layer * config.num_hidden_layers + tables * matrix(config.vocab_size, hidden_size, of_vocabulary)
}

fn tower_weights(config: &Tower, format: WeightFormat) -> usize {
    let &Tower { hidden_size, intermediate_size, out_hidden_size, ref geometry, .. } = config;
    let block = matrix(4 * hidden_size, hidden_size, format)
        + gate_up(intermediate_size, hidden_size, format)
        + matrix(hidden_size, intermediate_size, format);
    let merged = hidden_size * geometry.merge_size.pow(2);
    block * config.depth
        + matrix(hidden_size, geometry.patch_values(), format)
        + matrix(merged + out_hidden_size, merged, format)
}

fn cache(config: &Decoder, tokens: usize) -> usize {
    let token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * NARROW;
    token.saturating_mul(tokens)
}

/// The residual twice in f32, what is normalised, queries with keys and values before and after the rotation, what
/// attention gives, and what is between the feed-forward's products.
fn chunk(config: &Decoder, tokens: usize) -> usize {
    let queries = config.num_attention_heads * config.head_dim;
    let qkv = queries + 2 * config.num_key_value_heads * config.head_dim;
    let features = 2 * config.hidden_size + qkv + 2 * queries + config.intermediate_size;
    let token = 2 * WIDE * config.hidden_size + NARROW * features + 2 * WIDE * config.head_dim;
    token.saturating_mul(tokens)
}

/// Logits as the last product gives them and as they are kept, and the sampler's tables.
fn choices(vocabulary: usize, sequences: usize) -> usize {
    let logits = sequences.saturating_mul(2 * WIDE * vocabulary);
    logits.saturating_add(Sampler::device_bytes(sequences, vocabulary))
}

/// As [`chunk`], for all patches of a picture, whose pixels come as f32 and are rounded.
fn picture(config: &Tower, tokens: usize) -> usize {
    let head_dim = config.hidden_size / config.num_heads.max(1);
    let inside = 7 * config.hidden_size + config.intermediate_size;
    let patch = 2 * WIDE * config.hidden_size + NARROW * inside + 2 * WIDE * head_dim;
    let pixels = (WIDE + NARROW) * config.geometry.patch_values();
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

    fn plan(name: &str, format: WeightFormat, context_tokens: usize) -> MemoryPlan {
        let (decoder, tower) = configs(name);
        MemoryPlan::new(&Sizes {
            decoder: &decoder,
            tower: &tower,
            decoder_format: format,
            tower_format: format.of_tower(),
            context_tokens,
            chunk_tokens: 1024,
            picture_tokens: 16_384,
            sequences: 8,
        })
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
        let plan = plan("7b", WeightFormat::Bf16, 32_768);
        let without = plan.total() - plan.cache - plan.embedded;
        // Each token has 14,336 bytes more while its picture is embedded.
        let advice = plan.advice(without + (57_344 + 14_336) * 5000, 32_768);
        assert_eq!(advice, "--context 4864 would fit");
        assert!(plan.advice(8 << 30, 32_768).contains("int4"));
        assert!(plan.to_string().contains("weights 15."), "{plan}");
    }

    #[test]
    fn absurd_sizes_do_not_overflow() {
        assert_eq!(plan("7b", WeightFormat::Bf16, usize::MAX).total(), usize::MAX);
    }
}
