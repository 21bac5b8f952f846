//! A model declares the names and shapes of its tensors, the loader obeys; at the end it says what was
//! never asked for.

use std::{cell::RefCell, collections::BTreeSet};

use ocellus_kernels::{
    DType, Device, HostMatrix, Tensor,
    linear::{Format, Order, Weight},
};
use safetensors::Dtype;

use crate::{
    Checkpoint, Embedding, Error, Linear, LinearShape, PackedWeights, Result, checkpoint::StoredTensor,
    error::shown,
};

/// Hands the tensors of a checkpoint out to a model, and remembers which ones.
///
/// ```
/// # use ocellus_weights::{Checkpoint, Error, LinearShape, Source};
/// # fn load(source: &Source) -> Result<(), Error> {
/// let checkpoint = Checkpoint::open(source)?;
/// let loader = checkpoint.loader(&ocellus_kernels::Device::open("auto")?);
/// let tower = loader.scope_any(&["model.visual", "visual"])?.because("config.json says hidden_size 1280");
/// let block = tower.scope("blocks.0");
/// let norm = block.vector("norm1.weight", 1280)?;
/// let qkv = block.linear("attn.qkv", LinearShape { out_features: 3840, in_features: 1280, bias: true })?;
/// // … all other layers …
/// loader.finish()?;
/// # Ok(())
/// # }
/// ```
pub struct Loader<'c> {
    checkpoint: &'c Checkpoint,
    device: Device,
    asked: RefCell<BTreeSet<String>>,
    /// Weights that were packed before.
    packed: Option<PackedWeights>,
    /// Every packed weight that was handed out, where they are to be written.
    made: Option<RefCell<Vec<(String, Weight)>>>,
}

/// The tensors under one prefix of names, such as `model.layers.3`. Names are given relative to it.
#[derive(Clone)]
pub struct Scope<'l> {
    loader: &'l Loader<'l>,
    /// Empty, or ends with a dot.
    prefix: String,
    reason: Option<Box<str>>,
    format: Format,
}

impl<'c> Loader<'c> {
    pub(crate) fn new(checkpoint: &'c Checkpoint, device: &Device) -> Self {
        Self { checkpoint, device: device.clone(), asked: RefCell::default(), packed: None, made: None }
    }

    /// Takes packed weights out of `packed` where it has them; the checkpoint still gives shapes, norms and biases.
    pub fn with_packed(self, packed: Option<PackedWeights>) -> Self {
        Self { packed, ..self }
    }

    /// Remembers every packed weight that it hands out, for [`Loader::made`].
    pub fn remembering(self) -> Self {
        Self { made: Some(RefCell::default()), ..self }
    }

    /// The packed weights that were handed out, by name, if they were to be remembered.
    pub fn made(&self) -> Vec<(String, Weight)> {
        self.made.as_ref().map(|made| made.borrow().clone()).unwrap_or_default()
    }

    /// All tensors, by their full names.
    pub fn root(&self) -> Scope<'_> {
        Scope { loader: self, prefix: String::new(), reason: None, format: Format::Exact }
    }

    /// The tensors under the first of `prefixes` that any tensor lies under, for parts of a model that
    /// different libraries save under different names. List the longer of two that share their beginning
    /// first: `model` also matches `model.visual.norm.weight`.
    ///
    /// # Errors
    /// [`Error::MissingScope`] naming all of them when none matches.
    pub fn scope_any(&self, prefixes: &[&str]) -> Result<Scope<'_>> {
        let root = self.root();
        prefixes.iter().map(|prefix| root.scope(prefix)).find(Scope::has_any).ok_or_else(|| {
            Error::MissingScope {
                file: self.checkpoint.catalogue().to_owned(),
                tried: prefixes.iter().map(|&prefix| prefix.to_owned()).collect(),
            }
        })
    }

    /// Counts every tensor whose full name satisfies `is_known` as asked for: some files hold tensors that
    /// are computed nowadays, or copies of a tied one.
    pub fn ignore(&self, is_known: impl Fn(&str) -> bool) {
        let known = self.checkpoint.names().filter(|name| is_known(name)).map(str::to_owned);
        self.asked.borrow_mut().extend(known);
    }

    /// Checks that every tensor of the checkpoint was asked for or ignored. A surplus tensor means that the
    /// files are of another model than the config says, so answers would be wrong without any other sign.
    ///
    /// # Errors
    /// [`Error::Surplus`] with their number, and the first names with their files.
    pub fn finish(self) -> Result<()> {
        const NAMED: usize = 3;
        let asked = self.asked.into_inner();
        let surplus: Vec<_> =
            self.checkpoint.tensors_from("").filter(|(name, _)| !asked.contains(*name)).collect();
        if surplus.is_empty() {
            return Ok(());
        }
        let named =
            |(name, stored): &(&String, &StoredTensor)| format!("{} in {}", shown(name), shown(&stored.file));
        Err(Error::Surplus { count: surplus.len(), first: surplus.iter().take(NAMED).map(named).collect() })
    }
}

impl<'l> Scope<'l> {
    /// The tensors under `name`, relative to this scope.
    pub fn scope(&self, name: &str) -> Scope<'l> {
        Scope { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    /// The same scope with a reason for its shapes, which messages about missing tensors and wrong shapes
    /// then quote, for instance `config.json says hidden_size 2048`. Scopes made from it inherit it.
    pub fn because(&self, reason: impl Into<Box<str>>) -> Scope<'l> {
        Scope { reason: Some(reason.into()), ..self.clone() }
    }

    /// The same scope, holding weights as `format` says. Scopes made from it inherit it.
    pub fn with_format(&self, format: Format) -> Scope<'l> {
        Scope { format, ..self.clone() }
    }

    /// Whether the checkpoint holds the tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.loader.checkpoint.tensor(&self.full_name(name)).is_some()
    }

    /// A linear layer: `<name>.weight` of shape `(out_features, in_features)`, and `<name>.bias` of shape
    /// `(out_features)` if it has one.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Shape`], [`Error::Dtype`], or [`Error::Kernel`] when the device has no room.
    pub fn linear(&self, name: &str, shape: LinearShape) -> Result<Linear> {
        self.stacked(&[(name, shape)])
    }

    /// Linear layers with one input as one layer: the outputs of all lie side by side, in the order of `layers`.
    ///
    /// # Errors
    /// As [`Scope::linear`].
    pub fn stacked(&self, layers: &[(&str, LinearShape)]) -> Result<Linear> {
        self.combined(layers, Order::Stacked)
    }

    /// The gate and the up projection of a SwiGLU feed-forward, each of shape `shape`, for [`Linear::swiglu`].
    ///
    /// # Errors
    /// As [`Scope::linear`].
    pub fn gate_up(&self, gate: &str, up: &str, shape: LinearShape) -> Result<Linear> {
        self.combined(&[(gate, shape), (up, shape)], Order::Interleaved)
    }

    fn combined(&self, layers: &[(&str, LinearShape)], order: Order) -> Result<Linear> {
        let (mut parts, mut bias) = (Vec::new(), Vec::new());
        for (name, shape) in layers {
            parts.push(self.matrix(&format!("{name}.weight"), &[&[shape.out_features, shape.in_features]])?);
            if shape.bias {
                bias.extend(self.elements(&format!("{name}.bias"), shape.out_features)?);
            } else if layers.iter().any(|(_, other)| other.bias) {
                bias.extend(std::iter::repeat_n(0.0, shape.out_features));
            }
        }
        let key = layers.iter().map(|(name, _)| self.full_name(name)).collect::<Vec<_>>().join("+");
        let weight = self.weight(&key, parts, order)?;
        let bias = match bias.is_empty() {
            true => None,
            false => {
                let bias = weight.arrange_bias(bias);
                let shape = [bias.len()];
                Some(Tensor::from_f32(bias, &shape, &self.loader.device)?)
            }
        };
        Ok(Linear::new(weight, bias))
    }

    /// A linear layer without bias whose weight is stored with more than two dimensions, as a convolution
    /// is that takes each of its inputs once: `<name>.weight` of shape `stored_shape`, or flattened to
    /// `(out_features, in_features)`. Another order of the same dimensions is refused.
    ///
    /// # Errors
    /// As [`Scope::linear`].
    pub fn linear_flattened(&self, name: &str, stored_shape: &[usize]) -> Result<Linear> {
        let (out_features, rest) = stored_shape.split_first().unwrap_or((&1, &[]));
        let in_features = rest.iter().fold(1, |product: usize, &dim| product.saturating_mul(dim));
        let shapes: [&[usize]; 2] = [stored_shape, &[*out_features, in_features]];
        let matrix = self.matrix(&format!("{name}.weight"), &shapes)?;
        Ok(Linear::new(self.weight(&self.full_name(name), vec![matrix], Order::Stacked)?, None))
    }

    /// A table of `rows` embeddings: `<name>.weight` of shape `(rows, dim)`.
    ///
    /// # Errors
    /// As [`Scope::linear`].
    pub fn embedding(&self, name: &str, rows: usize, dim: usize) -> Result<Embedding> {
        let matrix = self.matrix(&format!("{name}.weight"), &[&[rows, dim]])?;
        Ok(Embedding::new(self.weight(&self.full_name(name), vec![matrix], Order::Stacked)?))
    }

    /// The tensor `name` of shape `(len)`, widened to f32: the weight of a norm, a bias.
    ///
    /// # Errors
    /// As [`Scope::linear`].
    pub fn vector(&self, name: &str, len: usize) -> Result<Tensor> {
        Ok(Tensor::from_f32(self.elements(name, len)?, &[len], &self.loader.device)?)
    }

    fn elements(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        Ok(self.matrix(name, &[&[len]])?.rows_f32(0..1)?)
    }

    /// The tensor `name` in any of `shapes`, all of which have the same elements in the same order and the
    /// same first dimension. It becomes the rows of the matrix; a vector becomes one row.
    fn matrix(&self, name: &str, shapes: &[&[usize]]) -> Result<HostMatrix> {
        let tensor = self.full_name(name);
        let expected = || shapes.first().map(|shape| shape.to_vec()).unwrap_or_default();
        let Some(stored) = self.loader.checkpoint.tensor(&tensor) else {
            return Err(Error::Missing {
                tensor: shown(&tensor),
                file: self.loader.checkpoint.catalogue().to_owned(),
                expected: expected(),
                reason: self.reason.clone(),
            });
        };
        if !shapes.contains(&&*stored.shape) {
            return Err(Error::Shape {
                tensor: shown(&tensor),
                file: shown(&stored.file),
                found: stored.shape.clone(),
                expected: expected(),
                reason: self.reason.clone(),
            });
        }
        let dtype = match stored.dtype {
            Dtype::BF16 => DType::BF16,
            Dtype::F16 => DType::F16,
            Dtype::F32 => DType::F32,
            other => {
                let (tensor, file) = (shown(&tensor), shown(&stored.file));
                return Err(Error::Dtype { tensor, file, found: other.to_string() });
            }
        };
        let (rows, cols) = match *stored.shape {
            [] => (1, 1),
            [len] => (1, len),
            [rows, ref rest @ ..] => (rows, rest.iter().product()),
        };
        let matrix = HostMatrix::new(stored.bytes.clone(), dtype, rows, cols)?;
        self.loader.asked.borrow_mut().insert(tensor);
        Ok(matrix)
    }

    /// The weight of `parts`, out of the packed ones when they are at hand. `key` is its name among these.
    fn weight(&self, key: &str, parts: Vec<HostMatrix>, order: Order) -> Result<Weight> {
        let Loader { device, packed, made, .. } = self.loader;
        let cols = parts.first().map_or(0, HostMatrix::cols);
        let format = if made.is_some() || !device.is_host() { self.format.in_files() } else { self.format };
        let found =
            packed.as_ref().filter(|_| self.format != Format::Exact).and_then(|packed| packed.get(key));
        let weight = match found {
            Some(bytes) => {
                let rows: Vec<usize> = parts.iter().map(HostMatrix::rows).collect();
                Weight::from_packed(&rows, cols, order, format, &bytes, device)?
            }
            None => Weight::new(parts, order, format, device)?,
        };
        if let Some(made) = made
            && weight.packed_bytes().is_some()
        {
            made.borrow_mut().push((key.to_owned(), weight.clone()));
        }
        Ok(weight)
    }

    fn has_any(&self) -> bool {
        let mut behind = self.loader.checkpoint.tensors_from(&self.prefix);
        behind.next().is_some_and(|(name, _)| name.starts_with(&self.prefix))
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}
