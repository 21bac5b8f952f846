//! How far the logits move when weights are held in narrower types: the golden conversations, with the golden tokens
//! forced, through the same checkpoint in each format.

use std::{fmt, fs, path::Path, sync::Arc};

use ocellus_engine::{Formats, Model, WeightFormat};
use ocellus_kernels::{
    DType, Device, HostBytes, HostMatrix, embedding,
    linear::{Format, Order, Weight},
};
use ocellus_weights::Source;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tempfile::TempDir;

use super::{
    Folder,
    images::{Images, Steps},
    model::{ModelGolden, answer},
};

/// What one format does to one folder's conversations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Divergence {
    steps: usize,
    logits: usize,
    sum_of_differences: f64,
    sum_of_divergences: f64,
    same_choices: usize,
}

impl Divergence {
    /// The mean difference of a logit from its value in f32.
    pub fn mean_difference(&self) -> f64 {
        self.sum_of_differences / self.logits.max(1) as f64
    }

    /// The mean Kullback-Leibler divergence of a step's distribution from the one in f32, in nats.
    pub fn mean_kl(&self) -> f64 {
        self.sum_of_divergences / self.steps.max(1) as f64
    }

    /// The share of steps whose likeliest token is the same.
    pub fn agreement(&self) -> f64 {
        self.same_choices as f64 / self.steps.max(1) as f64
    }

    /// How many steps were compared.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Counts one step in: its logits in f32, and in the format.
    pub fn add(&mut self, exact: &[f32], found: &[f32]) {
        self.steps += 1;
        self.logits += exact.len();
        self.sum_of_differences +=
            exact.iter().zip(found).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>();
        let (p, q) = (log_softmax(exact), log_softmax(found));
        self.sum_of_divergences += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        self.same_choices += usize::from(largest(exact) == largest(found));
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mean |logit difference| {:.3e}, mean KL {:.3e} nats, same choice {:.1} % of {} steps",
            self.mean_difference(),
            self.mean_kl(),
            100.0 * self.agreement(),
            self.steps
        )
    }
}

/// What is held against the checkpoint in f32.
#[derive(Clone, Copy, Debug)]
pub enum Narrowed<'a> {
    /// The same checkpoint, its weights packed in a format.
    Packed(WeightFormat),
    /// The same checkpoint in f32, its decoder's matrices rounded to what a format can hold.
    Rounded(WeightFormat),
    /// A checkpoint of the same name in this folder, in f32: what another quantizer has left of the weights.
    Rewritten(&'a Path),
}

/// The divergence of narrower weights, over all steps of the conversations of a folder's checkpoints, or of those that
/// have been rewritten.
///
/// # Errors
/// When a file can't be read or a checkpoint not be loaded, or none has been rewritten.
pub fn divergence(folder: &Folder, narrowed: Narrowed<'_>) -> anyhow::Result<Divergence> {
    let images = Images::read(folder)?;
    let mut divergence = Divergence::default();
    for name in folder.model_names()? {
        let golden = ModelGolden::read(folder, &name)?;
        let narrow = match narrowed {
            Narrowed::Packed(format) => golden.open_as(Formats { decoder: format, tower: None })?,
            Narrowed::Rounded(format) => load(rounded(golden.checkpoint(), format.layers())?.path())?,
            Narrowed::Rewritten(other) => load(&other.join(&name))?,
        };
        let exact = golden.open()?;
        for case in golden.cases() {
            let inputs = golden.inputs(case, &exact, images.as_ref(), &Steps::default())?;
            let forced = golden.generated(case)?;
            let (expected, found) = (answer(&exact, &inputs, forced)?, answer(&narrow, &inputs, forced)?);
            for (expected, found) in expected.logits.iter().zip(&found.logits) {
                divergence.add(expected, found);
            }
        }
    }
    Ok(divergence)
}

fn load(checkpoint: &Path) -> anyhow::Result<Model> {
    Ok(Model::load(&Source::folder(checkpoint), &Device::cpu(), &|_| {})?)
}

/// A copy of a checkpoint in which each matrix of a layer of the decoder is, in f32, what `format` leaves of it.
fn rounded(checkpoint: &Path, format: Format) -> anyhow::Result<TempDir> {
    let copy = TempDir::new()?;
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for entry in fs::read_dir(checkpoint)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            // The copy has one file, which needs no index.
            if !name.to_string_lossy().ends_with(".index.json") {
                fs::copy(&path, copy.path().join(name))?;
            }
            continue;
        }
        let bytes = fs::read(&path)?;
        for (name, view) in SafeTensors::deserialize(&bytes)?.tensors() {
            let (shape, data) = (view.shape().to_vec(), view.data().to_vec());
            tensors.push(match *shape {
                [rows, cols] if name.contains(".layers.") => {
                    let dtype = match view.dtype() {
                        Dtype::BF16 => DType::BF16,
                        Dtype::F32 => DType::F32,
                        other => {
                            anyhow::bail!("{}: {name} is {other:?}, expected BF16 or F32", path.display())
                        }
                    };
                    let matrix = HostMatrix::new(HostBytes::new(Arc::new(data)), dtype, rows, cols)?;
                    let weight = Weight::new(vec![matrix], Order::Stacked, format, &Device::cpu())?;
                    let ids: Vec<u32> = (0..u32::try_from(rows)?).collect();
                    let values = embedding::forward(&weight, &ids)?.to_f32_vec()?;
                    (name, Dtype::F32, shape, values.into_iter().flat_map(f32::to_le_bytes).collect())
                }
                _ => (name, view.dtype(), shape, data),
            });
        }
    }
    let views: Vec<_> = tensors
        .iter()
        .map(|(name, dtype, shape, data)| Ok((name, TensorView::new(*dtype, shape.clone(), data)?)))
        .collect::<Result<_, safetensors::SafeTensorError>>()?;
    fs::write(copy.path().join("model.safetensors"), safetensors::serialize(views, None)?)?;
    Ok(copy)
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - most).exp()).sum();
    logits.iter().map(|&l| f64::from(l - most) - sum.ln()).collect()
}

fn largest(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}
