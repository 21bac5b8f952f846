//! Qwen2.5 with multimodal rotary positions: embeddings of many sequences side by side in, logits out
//! (reference: `Qwen2_5_VLTextModel` and the head of `Qwen2_5_VLForConditionalGeneration`).

mod decode;

use std::sync::Arc;

use ocellus_kernels::{
    Device, Precision, Tensor,
    attention::{self, Sequence},
    kv_cache,
    linear::Format,
    rms_norm,
    rotary::{Multimodal, Tables},
    rows,
    step::{Parts, Step},
};
use ocellus_weights::{Embedding, Linear, LinearShape, Loader, Scope};

use crate::{Config, Error};

use self::decode::Recorded;

/// Sees intermediate activations by name while a model computes; tests compare them with the reference.
pub type Observer<'a> = dyn FnMut(&str, &Tensor) + 'a;

/// The language model with its weights.
#[derive(Debug)]
pub struct Decoder {
    config: Config,
    device: Device,
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: Tensor,
    lm_head: Linear,
    /// Tells this model's recordings from another's.
    identity: Arc<()>,
}

/// How the decoder's weights are held.
#[derive(Clone, Copy, Debug)]
pub struct Formats {
    /// Those of attention and feed-forward.
    pub layers: Format,
    /// The table of embeddings and the output layer.
    pub vocabulary: Format,
}

/// What is computed in one go: the newest tokens of some sequences, side by side.
#[derive(Debug)]
pub struct Batch<'a> {
    /// `(tokens, hidden_size)`: embedded ids, with the rows of pictures in place.
    pub embeddings: Tensor,
    /// Time, height and width of each token.
    pub positions: &'a [[u32; 3]],
    /// Whose tokens these are, in order, and where their keys and values lie.
    pub sequences: &'a [Sequence<'a>],
    /// Rows whose logits are wanted: usually each sequence's last.
    pub logits_for: &'a [u32],
}

impl Decoder {
    /// Takes the decoder's tensors out of a checkpoint in either naming scheme.
    ///
    /// # Errors
    /// When a tensor is missing or its shape is not what `config` says.
    pub fn load(
        loader: &Loader<'_>,
        config: &Config,
        formats: Formats,
        device: &Device,
    ) -> Result<Self, ocellus_weights::Error> {
        let Config { hidden_size, vocab_size, num_hidden_layers, .. } = *config;
        let table = format!("config.json says vocab_size {vocab_size} and hidden_size {hidden_size}");
        let scope = loader.scope_any(&["model.language_model", "model"])?.because(format!(
            "config.json says num_hidden_layers {num_hidden_layers} and hidden_size {hidden_size}"
        ));
        let scope = scope.with_format(formats.layers);
        let embed_tokens = scope.because(table.clone()).with_format(formats.vocabulary).embedding(
            "embed_tokens",
            vocab_size,
            hidden_size,
        )?;
        let lm_head = if config.tie_word_embeddings {
            // Some files hold a copy of the tied table.
            loader.ignore(|name| name == "lm_head.weight");
            embed_tokens.as_linear()
        } else {
            let shape = LinearShape { out_features: vocab_size, in_features: hidden_size, bias: false };
            loader.root().because(table).with_format(formats.vocabulary).linear("lm_head", shape)?
        };
        Ok(Self {
            device: device.clone(),
            embed_tokens,
            layers: (0..num_hidden_layers)
                .map(|i| Layer::load(&scope.scope(&format!("layers.{i}")), config))
                .collect::<Result<_, _>>()?,
            norm: scope.vector("norm.weight", hidden_size)?,
            lm_head,
            identity: Arc::new(()),
            config: config.clone(),
        })
    }

    /// The sizes it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The arithmetic between its weights, and the type of keys and values.
    fn precision(&self) -> Precision {
        self.layers.first().map_or(Precision::Exact, |layer| layer.attention.qkv_proj.precision())
    }

    /// An empty cache of `blocks` blocks of `block_size` tokens each.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn new_cache(&self, blocks: usize, block_size: usize) -> Result<KvCache, Error> {
        let shape = kv_cache::Shape {
            blocks,
            block_size,
            kv_heads: self.config.num_key_value_heads,
            head_dim: self.config.head_dim,
            precision: self.precision(),
        };
        let layers = (0..self.config.num_hidden_layers)
            .map(|_| kv_cache::Layer::new(shape, &self.device))
            .collect::<Result<_, _>>()?;
        Ok(KvCache { layers, slots: Vec::new(), recorded: Recorded::default() })
    }

    /// The embeddings of token ids: `(ids, hidden_size)`.
    ///
    /// # Errors
    /// When an id is outside of the vocabulary.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor, Error> {
        Ok(self.embed_tokens.forward(ids)?)
    }

    /// Computes a batch: writes its keys and values into the cache, and gives the logits of the wanted rows,
    /// `(logits_for, vocab_size)`.
    ///
    /// # Errors
    /// When the parts of the batch disagree, or the device fails.
    pub fn forward(&self, batch: &Batch<'_>, cache: &mut KvCache) -> Result<Tensor, Error> {
        self.compute(batch, cache, None)
    }

    /// The same as [`Decoder::forward`], telling `observe` of `text.layer_{i}` and `text.norm`. Rows whose
    /// logits are not wanted are left out of `text.norm`.
    ///
    /// # Errors
    /// As [`Decoder::forward`].
    pub fn forward_observed(
        &self,
        batch: &Batch<'_>,
        cache: &mut KvCache,
        observe: &mut Observer<'_>,
    ) -> Result<Tensor, Error> {
        self.compute(batch, cache, Some(observe))
    }

    fn compute(
        &self,
        batch: &Batch<'_>,
        cache: &mut KvCache,
        mut observe: Option<&mut Observer<'_>>,
    ) -> Result<Tensor, Error> {
        let tokens = batch.embeddings.dim(0);
        expect("positions", batch.positions.len(), tokens)?;
        expect("queries", batch.sequences.iter().map(|s| s.queries).sum(), tokens)?;
        expect("layers of the cache", cache.layers.len(), self.layers.len())?;
        cache.find_slots(batch.sequences)?;
        if observe.is_none()
            && self.device.records()
            && let Some(limits) = decode::limits(batch)
        {
            return self.decode(batch, limits, cache);
        }
        let KvCache { layers, slots, .. } = cache;
        let Some(first) = layers.first() else {
            return Err(Error::Batch { what: "layers of the cache", found: 0, expected: 1 });
        };
        let step = Step::new(self.parts(batch, slots), first)?;
        let tables = step.tables(first)?;
        let mut hidden = batch.embeddings.clone();
        let last = self.layers.len() - 1;
        for (i, (layer, cache)) in self.layers.iter().zip(layers).enumerate() {
            // Of the last layer, nobody needs more than the keys and values of the other rows, unless they are looked at.
            let wanted = (i == last && observe.is_none()).then_some(batch.logits_for);
            hidden = layer.forward(hidden, (&step, &tables), cache, wanted)?;
            if let Some(observe) = &mut observe {
                observe(&format!("text.layer_{i}"), &hidden);
            }
        }
        if observe.is_some() {
            hidden = rows::gather(&hidden, batch.logits_for)?;
        }
        let normed = rms_norm::forward(&hidden, &self.norm, self.config.rms_norm_eps)?;
        if let Some(observe) = &mut observe {
            observe("text.norm", &normed);
        }
        Ok(self.lm_head.forward_f32(&normed)?)
    }

    /// A batch for the kernels.
    fn parts<'a>(&'a self, batch: &Batch<'a>, slots: &'a [u32]) -> Parts<'a> {
        let (positions, sequences) = (batch.positions, batch.sequences);
        Parts { sequences, slots, positions, rope: self.rope(), heads: self.config.num_attention_heads }
    }

    fn rope(&self) -> Multimodal<'_> {
        let Config { head_dim, rope_theta: theta, ref mrope_section, .. } = self.config;
        Multimodal { head_dim, theta, sections: mrope_section }
    }
}

/// The paged keys and values of all layers.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<kv_cache::Layer>,
    /// Where the newest tokens of a batch go; kept between steps.
    slots: Vec<u32>,
    /// Decode steps that are the same but for their integers.
    recorded: Recorded,
}

impl KvCache {
    /// How many bytes it takes when it is full.
    pub fn size_in_bytes(&self) -> usize {
        self.layers.iter().map(kv_cache::Layer::size_in_bytes).fold(0, usize::saturating_add)
    }

    /// Finds where the newest tokens of each sequence go.
    fn find_slots(&mut self, sequences: &[Sequence<'_>]) -> Result<(), Error> {
        self.slots.clear();
        let Some(layer) = self.layers.first() else { return Ok(()) };
        for s in sequences {
            layer.append_slots(s.blocks, s.keys.saturating_sub(s.queries)..s.keys, &mut self.slots)?;
        }
        Ok(())
    }
}

/// What all layers of one step share: its integers, and the angles of its tokens.
type Shared<'a> = (&'a Step<'a>, &'a Tables);

/// Attention and feed-forward, each with its norm before and the residual around.
#[derive(Debug)]
struct Layer {
    input_layernorm: Tensor,
    attention: Attention,
    post_attention_layernorm: Tensor,
    mlp: Mlp,
    eps: f32,
}

impl Layer {
    fn load(scope: &Scope<'_>, config: &Config) -> Result<Self, ocellus_weights::Error> {
        Ok(Self {
            input_layernorm: scope.vector("input_layernorm.weight", config.hidden_size)?,
            attention: Attention::load(&scope.scope("self_attn"), config)?,
            post_attention_layernorm: scope.vector("post_attention_layernorm.weight", config.hidden_size)?,
            mlp: Mlp::load(&scope.scope("mlp"), config)?,
            eps: config.rms_norm_eps,
        })
    }

    /// `hidden: (tokens, hidden_size)`. Gives the rows that are `wanted`, all where it is `None`; keys and values of all
    /// are written.
    fn forward(
        &self,
        hidden: Tensor,
        step: Shared<'_>,
        cache: &mut kv_cache::Layer,
        wanted: Option<&[u32]>,
    ) -> Result<Tensor, Error> {
        let normed = rms_norm::forward(&hidden, &self.input_layernorm, self.eps)?;
        let mut attended = self.attention.forward(&normed, step, cache)?;
        let mut residual = hidden;
        if let Some(wanted) = wanted {
            attended = rows::gather(&attended, wanted)?;
            residual = rows::gather(&residual, wanted)?;
        }
        let hidden = self.attention.o_proj.forward_add(&attended, residual)?;
        let normed = rms_norm::forward(&hidden, &self.post_attention_layernorm, self.eps)?;
        self.mlp.forward_add(&normed, hidden)
    }
}

/// Grouped-query attention with biases on queries, keys and values.
#[derive(Debug)]
struct Attention {
    /// Queries, keys and values side by side.
    qkv_proj: Linear,
    o_proj: Linear,
    heads: usize,
    head_dim: usize,
}

impl Attention {
    fn load(scope: &Scope<'_>, config: &Config) -> Result<Self, ocellus_weights::Error> {
        let &Config { hidden_size, num_attention_heads, num_key_value_heads, head_dim, .. } = config;
        let scope = scope.because(format!(
            "config.json says hidden_size {hidden_size}, {num_attention_heads} heads and {num_key_value_heads} of keys \
             and values, each {head_dim} wide"
        ));
        let input =
            |heads| LinearShape { out_features: heads * head_dim, in_features: hidden_size, bias: true };
        let output = LinearShape {
            out_features: hidden_size,
            in_features: num_attention_heads * head_dim,
            bias: false,
        };
        Ok(Self {
            qkv_proj: scope.stacked(&[
                ("q_proj", input(num_attention_heads)),
                ("k_proj", input(num_key_value_heads)),
                ("v_proj", input(num_key_value_heads)),
            ])?,
            o_proj: scope.linear("o_proj", output)?,
            heads: num_attention_heads,
            head_dim,
        })
    }

    /// What the heads see, side by side, which `o_proj` takes: `(tokens, heads * head_dim)`.
    /// `normed: (tokens, hidden_size)`.
    fn forward(
        &self,
        normed: &Tensor,
        (step, tables): Shared<'_>,
        cache: &mut kv_cache::Layer,
    ) -> Result<Tensor, Error> {
        let qkv = self.qkv_proj.forward(normed)?;
        let q = kv_cache::rotate_and_write(cache, &qkv, tables, step)?;
        let scale = (self.head_dim as f32).sqrt().recip();
        let attended = attention::causal(&q, cache, step, scale)?;
        Ok(attended.reshape(&[normed.dim(0), self.heads * self.head_dim])?)
    }
}

/// SwiGLU without biases.
#[derive(Debug)]
struct Mlp {
    gate_up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    fn load(scope: &Scope<'_>, config: &Config) -> Result<Self, ocellus_weights::Error> {
        let shape = |out_features, in_features| LinearShape { out_features, in_features, bias: false };
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let scope =
            scope.because(format!("config.json says hidden_size {hidden} and intermediate_size {inner}"));
        Ok(Self {
            gate_up_proj: scope.gate_up("gate_proj", "up_proj", shape(inner, hidden))?,
            down_proj: scope.linear("down_proj", shape(hidden, inner))?,
        })
    }

    /// `residual + mlp(normed)`, both `(tokens, hidden_size)`.
    fn forward_add(&self, normed: &Tensor, residual: Tensor) -> Result<Tensor, Error> {
        Ok(self.down_proj.forward_add(&self.gate_up_proj.swiglu(normed)?, residual)?)
    }
}

fn expect(what: &'static str, found: usize, expected: usize) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::Batch { what, found, expected }) }
}
