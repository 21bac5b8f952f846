//! Where the files of a golden folder lie, and what is in them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;

/// A folder with `golden/`, `images/` and checkpoints.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The project's own: `tests/golden`. Its checkpoint `nano` lies in `models/`.
    pub fn own() -> Self {
        Self::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("golden"))
    }

    /// Any folder of that form.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The bytes of a picture, by its file name.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn picture(&self, file: &str) -> anyhow::Result<Vec<u8>> {
        let path = self.root.join("images").join(file);
        fs::read(&path).with_context(|| path.display().to_string())
    }

    /// `golden/<name>.json`; `None` when there is none.
    ///
    /// # Errors
    /// When it is not of the expected form.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let path = self.root.join("golden").join(format!("{name}.json"));
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string()).map(Some)
    }

    /// `golden/<name>.safetensors`; empty when there is none.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn tensors(&self, name: &str) -> anyhow::Result<Tensors> {
        let path = self.root.join("golden").join(format!("{name}.safetensors"));
        if !path.exists() {
            return Ok(Tensors::default());
        }
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        Tensors::parse(&bytes).with_context(|| path.display().to_string())
    }

    /// The names of all `golden/model_<name>.json`, sorted.
    ///
    /// # Errors
    /// When the folder can't be listed.
    pub fn model_names(&self) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        let golden = self.root.join("golden");
        for entry in fs::read_dir(&golden).with_context(|| golden.display().to_string())? {
            let file = entry?.file_name().to_string_lossy().into_owned();
            if let Some(name) = file.strip_prefix("model_").and_then(|file| file.strip_suffix(".json")) {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The folder of a checkpoint: beside the goldens, or among the project's own models.
    pub fn checkpoint(&self, name: &str) -> Option<PathBuf> {
        let places = [self.root.join(name), own_models().join(name)];
        places.into_iter().find(|place| place.join("config.json").exists())
    }

    /// Every folder with a `tokenizer.json`, beside the goldens or among the project's own models.
    pub fn tokenizers(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for place in [self.root.clone(), own_models()] {
            let entries = fs::read_dir(place).into_iter().flatten().flatten();
            let mut folders: Vec<_> = entries
                .map(|entry| entry.path())
                .filter(|path| path.join("tokenizer.json").exists())
                .collect();
            folders.sort();
            found.extend(folders);
        }
        found
    }
}

fn own_models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

/// The arrays of one file.
#[derive(Clone, Debug, Default)]
pub struct Tensors(BTreeMap<String, Array>);

/// A dense row-major array.
#[derive(Clone, Debug)]
pub struct Array {
    /// Length of each dimension.
    pub shape: Vec<usize>,
    /// The elements.
    pub elements: Elements,
}

/// The types that goldens use.
#[derive(Clone, Debug)]
pub enum Elements {
    /// Single precision.
    F32(Vec<f32>),
    /// Integers, whatever their width in the file.
    Integers(Vec<i64>),
    /// Pixels.
    Bytes(Vec<u8>),
}

impl Tensors {
    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut arrays = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(bytes)?.tensors() {
            let data = view.data();
            let elements = match view.dtype() {
                Dtype::F32 => Elements::F32(words(data).map(f32::from_le_bytes).collect()),
                Dtype::I32 => {
                    Elements::Integers(words(data).map(i32::from_le_bytes).map(i64::from).collect())
                }
                Dtype::I64 => Elements::Integers(words(data).map(i64::from_le_bytes).collect()),
                Dtype::U8 => Elements::Bytes(data.to_vec()),
                other => bail!("{name} is {other:?}, expected F32, I32, I64 or U8"),
            };
            arrays.insert(name, Array { shape: view.shape().to_vec(), elements });
        }
        Ok(Self(arrays))
    }

    /// All arrays whose names start with `prefix`, with the rest of their names.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Array)> {
        self.0.iter().filter_map(move |(name, array)| Some((name.strip_prefix(prefix)?, array)))
    }

    /// An array of f32.
    pub fn f32(&self, name: &str) -> Option<&[f32]> {
        match &self.0.get(name)?.elements {
            Elements::F32(values) => Some(values),
            _ => None,
        }
    }

    /// An array of integers.
    pub fn integers(&self, name: &str) -> Option<&[i64]> {
        match &self.0.get(name)?.elements {
            Elements::Integers(values) => Some(values),
            _ => None,
        }
    }

    /// An array of bytes and its shape.
    pub fn bytes(&self, name: &str) -> Option<(&[usize], &[u8])> {
        let array = self.0.get(name)?;
        match &array.elements {
            Elements::Bytes(values) => Some((&array.shape, values)),
            _ => None,
        }
    }
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}
