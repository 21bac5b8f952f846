//! A checkpoint: all tensors of all files by name, none of them read yet.

use std::{
    collections::{BTreeMap, btree_map},
    fmt,
    ops::Bound,
    sync::Arc,
};

use ocellus_kernels::{Device, HostBytes};
use safetensors::Dtype;
use sha2::{Digest, Sha256};

use crate::{
    Error, Loader, Result, Source,
    error::shown,
    header,
    index::{self, INDEX},
};

/// The name of the only file of a checkpoint that was not split.
const SINGLE: &str = "model.safetensors";

/// An opened checkpoint in the official layout: `model.safetensors.index.json` and the files it names, or
/// one `model.safetensors`.
///
/// Opening maps the files and checks every header, so it takes milliseconds for any size; no tensor is read
/// before it is used. The files must not be written to or truncated as long as the checkpoint, or any
/// tensor or layer that was loaded from it, is in use.
pub struct Checkpoint {
    tensors: BTreeMap<String, StoredTensor>,
    /// Where a missing tensor should have been: the index, or the only file.
    catalogue: &'static str,
}

/// A tensor as it lies in its file.
pub(crate) struct StoredTensor {
    /// The name of the file, for messages.
    pub(crate) file: Arc<str>,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Little-endian, row-major elements: a slice of the mapped file.
    pub(crate) bytes: HostBytes,
}

impl Checkpoint {
    /// Opens the checkpoint of `source` and checks all that can be checked without knowing the model: the
    /// layout, the index, each header, and that they agree.
    ///
    /// # Errors
    /// [`Error::Folder`], [`Error::Layout`], [`Error::File`] or [`Error::Entry`], whichever fault is met first.
    pub fn open(source: &Source) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        let Some(text) = source.read_text(INDEX)? else {
            let Some(bytes) = source.map(SINGLE)? else { return Err(layout_error(source)?) };
            add_file(&mut tensors, SINGLE, &bytes)?;
            return Ok(Self { tensors, catalogue: SINGLE });
        };
        let files = index::read(&text)?;
        if !files.contains_key(SINGLE) && source.contains(SINGLE) {
            // Libraries disagree on which of the two wins, so a leftover would silently give other weights.
            return Err(Error::Layout {
                folder: source.describe(),
                found: format!("{SINGLE} beside {INDEX}, which does not name it"),
            });
        }
        for (file, named) in &files {
            let bytes = source.map(file)?.ok_or_else(|| Error::File {
                file: shown(file),
                found: "no such file".to_owned(),
                expected: format!("the file that {INDEX} names for {}", shown(&named[0])),
            })?;
            add_file(&mut tensors, file, &bytes)?;
        }
        check_index(&files, &tensors)?;
        Ok(Self { tensors, catalogue: INDEX })
    }

    /// A loader that hands the tensors out to a model on `device`.
    pub fn loader(&self, device: &Device) -> Loader<'_> {
        Loader::new(self, device)
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The size of all tensors as they are stored, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.bytes.as_ref().len()).sum()
    }

    /// A digest of what the checkpoint is: names, types and shapes of all tensors and some bytes of each, in
    /// hexadecimal. Computed without reading all of it.
    pub(crate) fn fingerprint(&self) -> String {
        const SAMPLE: usize = 64;
        let mut digest = Sha256::new();
        for (name, tensor) in &self.tensors {
            let bytes: &[u8] = tensor.bytes.as_ref();
            let middle = bytes.len() / 2;
            digest.update(format!("{name}\0{:?}\0{:?}\0", tensor.dtype, tensor.shape));
            digest.update(&bytes[middle.saturating_sub(SAMPLE / 2)..bytes.len().min(middle + SAMPLE / 2)]);
        }
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The type in which most of the bytes are stored.
    pub fn main_dtype(&self) -> Option<Dtype> {
        let mut bytes = BTreeMap::new();
        for tensor in self.tensors.values() {
            *bytes.entry(tensor.dtype).or_insert(0) += tensor.bytes.as_ref().len();
        }
        bytes.into_iter().max_by_key(|&(_, bytes)| bytes).map(|(dtype, _)| dtype)
    }

    /// The tensors whose name is `from` or sorts behind it.
    pub(crate) fn tensors_from<'a>(&'a self, from: &str) -> btree_map::Range<'a, String, StoredTensor> {
        self.tensors.range::<str, _>((Bound::Included(from), Bound::Unbounded))
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// How messages call the place where a tensor was looked for.
    pub(crate) fn catalogue(&self) -> &'static str {
        self.catalogue
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({} tensors, {} bytes)", self.tensors.len(), self.size_in_bytes())
    }
}

/// Adds the tensors of one file.
fn add_file(tensors: &mut BTreeMap<String, StoredTensor>, file: &str, bytes: &HostBytes) -> Result<()> {
    let file: Arc<str> = file.into();
    for entry in header::read(&file, bytes.as_ref())? {
        let bytes = bytes.slice(entry.range).expect("the header's ranges were checked against the file");
        let stored = StoredTensor { file: file.clone(), dtype: entry.dtype, shape: entry.shape, bytes };
        match tensors.entry(entry.tensor) {
            btree_map::Entry::Vacant(place) => {
                place.insert(stored);
            }
            btree_map::Entry::Occupied(first) => {
                return Err(Error::Entry {
                    tensor: shown(first.key()),
                    file: shown(&file),
                    found: format!("a second copy of the one in {}", shown(&first.get().file)),
                    expected: "each tensor in one file".to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// Checks that the index names what the files hold, and nothing else.
fn check_index(
    files: &BTreeMap<String, Vec<String>>,
    tensors: &BTreeMap<String, StoredTensor>,
) -> Result<()> {
    let mut named_in_index = 0;
    for (file, named) in files {
        named_in_index += named.len();
        for tensor in named {
            let found = match tensors.get(tensor) {
                Some(stored) if *stored.file == **file => continue,
                Some(stored) => format!("no such tensor (it is in {})", shown(&stored.file)),
                None => "no such tensor".to_owned(),
            };
            let expected = format!("one, as {INDEX} says");
            return Err(Error::Entry { tensor: shown(tensor), file: shown(file), found, expected });
        }
    }
    if named_in_index == tensors.len() {
        return Ok(());
    }
    // Each name of the index was found, so the files hold more; a half-updated folder looks like this.
    let unnamed = |(tensor, stored): &(&String, &StoredTensor)| {
        files.get(&*stored.file).is_none_or(|named| named.binary_search(tensor).is_err())
    };
    match tensors.iter().find(unnamed) {
        None => Ok(()),
        Some((tensor, stored)) => Err(Error::Entry {
            tensor: shown(tensor),
            file: shown(&stored.file),
            found: format!("a tensor that {INDEX} does not name"),
            expected: "the index to name every tensor".to_owned(),
        }),
    }
}

/// What to say of a source without any weights that we can read: the format that is there instead.
fn layout_error(source: &Source) -> Result<Error> {
    let names = source.names()?;
    let by_ending = |ending: &str| names.iter().find(|name| name.to_lowercase().ends_with(ending));
    let formats = [
        (".gguf", "a GGUF file"),
        (".index.json", "the index of another format"),
        (".safetensors", "a safetensors file without its index"),
        (".bin", "a PyTorch file"),
        (".pth", "a PyTorch file"),
        (".pt", "a PyTorch file"),
        (".h5", "a TensorFlow file"),
        (".msgpack", "a Flax file"),
        (".onnx", "an ONNX file"),
    ];
    let other = formats.into_iter().find_map(|(ending, format)| Some((by_ending(ending)?, format)));
    let found = match other {
        Some((name, format)) => format!("{format} ({})", shown(name)),
        None if names.is_empty() => "an empty folder".to_owned(),
        None => "no weights".to_owned(),
    };
    Ok(Error::Layout { folder: source.describe(), found })
}
