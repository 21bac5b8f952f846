//! The vision tower of Qwen2.5-VL: patches in, one embedding for each token of the language model out
//! (reference: `Qwen2_5_VisionTransformerPretrainedModel`).
//!
//! Patches of many pictures lie side by side. Before the first block they are permuted into windows, in
//! units of merged patches; most blocks attend within a window, some within a whole frame; after the merger
//! the tokens are put back in the order of the placeholders.

use ocellus_kernels::{
    Device, Tensor,
    attention::{self, Segments},
    gelu, rms_norm,
    rotary::Tables,
    rows,
};
use ocellus_weights::{Linear, LinearShape, Scope};

use crate::{
    Error,
    config::Config,
    geometry::CHANNELS,
    patches::{Grid, Patches},
    windows::{WindowOrder, patch_positions},
};

/// The reference fixes these two in code, no config names them.
const RMS_NORM_EPS: f32 = 1e-6;
const ROTARY_THETA: f32 = 10_000.0;

/// Sees intermediate activations by name while a model computes; tests compare them with the reference.
pub type Observer<'a> = dyn FnMut(&str, &Tensor) + 'a;

/// The tower with its weights.
#[derive(Debug)]
pub struct Tower {
    config: Config,
    device: Device,
    patch_embed: Linear,
    blocks: Vec<Block>,
    merger: Merger,
}

impl Tower {
    /// Takes the tensors under `scope` (`visual` in the official layout).
    ///
    /// # Errors
    /// When a tensor is missing or its shape is not what `config` says.
    pub fn load(scope: &Scope<'_>, config: &Config, device: &Device) -> Result<Self, ocellus_weights::Error> {
        let Config { hidden_size, depth, geometry, .. } = *config;
        let scope =
            scope.because(format!("config.json says vision depth {depth} and hidden_size {hidden_size}"));
        let patches = scope.because(format!(
            "config.json says vision hidden_size {hidden_size}, patch_size {} and temporal_patch_size {}",
            geometry.patch_size, geometry.temporal_patch_size
        ));
        // A convolution that sees each pixel once is a matrix product over flattened patches.
        let kernel =
            [hidden_size, CHANNELS, geometry.temporal_patch_size, geometry.patch_size, geometry.patch_size];
        let blocks = (0..depth)
            .map(|i| Block::load(&scope.scope(&format!("blocks.{i}")), config))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            device: device.clone(),
            patch_embed: patches.linear_flattened("patch_embed.proj", &kernel)?,
            blocks,
            merger: Merger::load(&scope.scope("merger"), config)?,
            config: config.clone(),
        })
    }

    /// The sizes it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Embeds pictures and clips: `(tokens, out_hidden_size)`, in the order of `pictures`, and within each
    /// in the order of its placeholders.
    ///
    /// # Errors
    /// When a picture's patches disagree with its grid, or the device fails.
    pub fn forward(&self, pictures: &[&Patches]) -> Result<Tensor, Error> {
        self.forward_observed(pictures, &mut |_, _| {})
    }

    /// The same as [`Tower::forward`], telling `observe` of `vision.patch_embed` (patch order),
    /// `vision.block_{i}` and `vision.merger_window_order` (window order), and `vision.embeds`.
    ///
    /// # Errors
    /// As [`Tower::forward`].
    pub fn forward_observed(
        &self,
        pictures: &[&Patches],
        observe: &mut Observer<'_>,
    ) -> Result<Tensor, Error> {
        let config = &self.config;
        let merge = config.geometry.merge_size;
        let grids: Vec<Grid> = pictures.iter().map(|picture| picture.grid).collect();
        let order = WindowOrder::new(&grids, &config.geometry, config.window_size)?;

        // The tensor refuses values that are not as many as the grids say.
        let values: Vec<f32> = pictures.iter().flat_map(|picture| picture.values.iter().copied()).collect();
        let shape = [order.full_lengths.iter().sum(), config.geometry.patch_values()];
        let patches = Tensor::from_f32(values, &shape, &self.device)?;
        let mut hidden = self.patch_embed.forward_f32(&patches)?;
        observe("vision.patch_embed", &hidden);

        let permutation = patch_permutation(&order.order, merge * merge);
        hidden = rows::gather(&hidden, &permutation)?;
        let positions = patch_positions(&grids, merge)?;
        let positions: Vec<[u32; 2]> = permutation.iter().map(|&patch| positions[patch as usize]).collect();
        let tables = Tables::spatial(&positions, config.head_dim(), ROTARY_THETA, &self.device)?;
        let windows = Segments::new(&order.window_lengths, &self.device)?;
        let frames = Segments::new(&order.full_lengths, &self.device)?;
        for (i, block) in self.blocks.iter().enumerate() {
            let full = config.full_attention_blocks.contains(&i);
            hidden = block.forward(hidden, &tables, if full { &frames } else { &windows })?;
            observe(&format!("vision.block_{i}"), &hidden);
        }

        let merged = self.merger.forward(&hidden)?;
        observe("vision.merger_window_order", &merged);
        let embeds = rows::gather(&merged, &order.inverse)?;
        observe("vision.embeds", &embeds);
        Ok(embeds)
    }
}

/// The permutation of patches that moves whole units of `unit` neighbouring patches as `order` says.
fn patch_permutation(order: &[u32], unit: usize) -> Vec<u32> {
    let unit = unit as u32;
    order.iter().flat_map(|&i| i * unit..(i + 1) * unit).collect()
}

/// Attention and feed-forward, each with its norm before and the residual around.
#[derive(Debug)]
struct Block {
    norm1: Tensor,
    attention: Attention,
    norm2: Tensor,
    mlp: Mlp,
}

impl Block {
    fn load(scope: &Scope<'_>, config: &Config) -> Result<Self, ocellus_weights::Error> {
        Ok(Self {
            norm1: scope.vector("norm1.weight", config.hidden_size)?,
            attention: Attention::load(&scope.scope("attn"), config)?,
            norm2: scope.vector("norm2.weight", config.hidden_size)?,
            mlp: Mlp::load(&scope.scope("mlp"), config)?,
        })
    }

    /// `hidden: (patches, hidden_size)`; attention stays within `segments`.
    fn forward(&self, hidden: Tensor, tables: &Tables, segments: &Segments<'_>) -> Result<Tensor, Error> {
        let normed = rms_norm::forward(&hidden, &self.norm1, RMS_NORM_EPS)?;
        let hidden = self.attention.forward_add(&normed, tables, segments, hidden)?;
        let normed = rms_norm::forward(&hidden, &self.norm2, RMS_NORM_EPS)?;
        self.mlp.forward_add(&normed, hidden)
    }
}

#[derive(Debug)]
struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
    head_dim: usize,
}

impl Attention {
    fn load(scope: &Scope<'_>, config: &Config) -> Result<Self, ocellus_weights::Error> {
        let width = config.hidden_size;
        let shape = |out_features| LinearShape { out_features, in_features: width, bias: true };
        Ok(Self {
            qkv: scope.linear("qkv", shape(3 * width))?,
            proj: scope.linear("proj", shape(width))?,
            heads: config.num_heads,
            head_dim: config.head_dim(),
        })
    }

    /// `residual + attention(normed)`, both `(patches, hidden_size)`.
    fn forward_add(
        &self,
        normed: &Tensor,
        tables: &Tables,
        segments: &Segments<'_>,
        residual: Tensor,
    ) -> Result<Tensor, Error> {
        let qkv = self.qkv.forward(normed)?;
        let scale = (self.head_dim as f32).sqrt().recip();
        let rotated = attention::Rotated { qkv: &qkv, tables, heads: self.heads };
        let attended = attention::varlen_rotated(rotated, segments, scale, self.qkv.precision())?;
        Ok(self.proj.forward_add(&attended, residual)?)
    }
}

/// SwiGLU with biases.
#[derive(Debug)]
struct Mlp {
    gate_up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    fn load(scope: &Scope<'_>, config: &Config) -> Result<Self, ocellus_weights::Error> {
        let shape = |out_features, in_features| LinearShape { out_features, in_features, bias: true };
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let scope = scope
            .because(format!("config.json says vision hidden_size {hidden} and intermediate_size {inner}"));
        Ok(Self {
            gate_up_proj: scope.gate_up("gate_proj", "up_proj", shape(inner, hidden))?,
            down_proj: scope.linear("down_proj", shape(hidden, inner))?,
        })
    }

    /// `residual + mlp(normed)`, both `(patches, hidden_size)`.
    fn forward_add(&self, normed: &Tensor, residual: Tensor) -> Result<Tensor, Error> {
        Ok(self.down_proj.forward_add(&self.gate_up_proj.swiglu(normed)?, residual)?)
    }
}

/// Puts neighbouring patches into one row and projects it to the decoder's width.
#[derive(Debug)]
struct Merger {
    ln_q: Tensor,
    first: Linear,
    second: Linear,
    merged_width: usize,
}

impl Merger {
    fn load(scope: &Scope<'_>, config: &Config) -> Result<Self, ocellus_weights::Error> {
        let merged_width = config.hidden_size * config.geometry.merge_size.pow(2);
        let scope = scope.because(format!(
            "config.json says vision hidden_size {}, spatial_merge_size {} and out_hidden_size {}",
            config.hidden_size, config.geometry.merge_size, config.out_hidden_size
        ));
        let shape = |out_features| LinearShape { out_features, in_features: merged_width, bias: true };
        Ok(Self {
            ln_q: scope.vector("ln_q.weight", config.hidden_size)?,
            first: scope.linear("mlp.0", shape(merged_width))?,
            second: scope.linear("mlp.2", shape(config.out_hidden_size))?,
            merged_width,
        })
    }

    /// `(patches, hidden_size)` in window order gives `(tokens, out_hidden_size)` in window order.
    fn forward(&self, hidden: &Tensor) -> Result<Tensor, Error> {
        let normed = rms_norm::forward(hidden, &self.ln_q, RMS_NORM_EPS)?;
        let tokens = hidden.dim(0) * hidden.dim(1) / self.merged_width;
        let merged = normed.reshape(&[tokens, self.merged_width])?;
        Ok(self.second.forward_f32(&self.first.forward_gelu(&merged)?)?)
    }
}
