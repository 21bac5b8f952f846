//! Packed weights in a file of their own, beside the checkpoint that they were made from: a safetensors file of bytes
//! whose layout is the kernels' own. A start that finds it packs nothing. All weights begin on a cache line, so that they
//! can be computed with where they lie.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use ocellus_kernels::{HostBytes, linear::Weight};
use safetensors::{Dtype, SafeTensorError, View};

use crate::{Checkpoint, Error, Result, Source, error::shown, header};

/// Rises when the kernels pack differently: older files are then made anew.
const LAYOUT: u32 = 1;
/// Where weights begin, as vector loads want it.
const LINE: usize = 64;
/// The tensor whose bytes say what the file was made from.
const ORIGIN: &str = "ocellus.origin";

/// The packed weights of one file, by name.
pub struct PackedWeights {
    weights: BTreeMap<String, HostBytes>,
}

impl PackedWeights {
    /// The file called `name` of `source`, if it was made from this checkpoint and by this version; `None` when there is
    /// none, or it is of other weights.
    ///
    /// # Errors
    /// [`Error::File`] when it is there and can't be read or is damaged.
    pub fn open(source: &Source, name: &str, checkpoint: &Checkpoint) -> Result<Option<Self>> {
        let Some(bytes) = source.map(name)? else { return Ok(None) };
        let mut weights = BTreeMap::new();
        for entry in header::read(name, bytes.as_ref())? {
            let part = bytes.slice(entry.range).ok_or_else(|| Error::File {
                file: shown(name),
                found: format!("{} outside of the file", shown(&entry.tensor)),
                expected: "every tensor within it".to_owned(),
            })?;
            weights.insert(entry.tensor, part);
        }
        let made_from = weights.remove(ORIGIN);
        let made_from = made_from.as_ref().map(AsRef::as_ref).unwrap_or_default();
        Ok((made_from.trim_ascii_end() == origin(checkpoint).as_bytes()).then_some(Self { weights }))
    }

    pub(crate) fn get(&self, name: &str) -> Option<HostBytes> {
        self.weights.get(name).cloned()
    }
}

/// Writes `weights`, which were loaded from `checkpoint`, to `path`, whole or not at all.
/// `progress` hears the size of each weight when its turn comes.
///
/// # Errors
/// [`Error::File`] when it can't be written.
pub fn write_packed(
    path: &Path,
    checkpoint: &Checkpoint,
    weights: &[(String, Weight)],
    progress: &dyn Fn(usize),
) -> Result<()> {
    let failed = |found: String| Error::File {
        file: shown(&path.display().to_string()),
        found,
        expected: "a file that can be written".to_owned(),
    };
    let origin = origin(checkpoint);
    let origin = format!("{origin:0$}", origin.len().next_multiple_of(LINE));
    let mut tensors = vec![(ORIGIN, Bytes::new(origin.as_bytes(), progress))];
    for (name, weight) in weights {
        if let Some(bytes) = weight.packed_bytes() {
            tensors.push((name, Bytes::new(bytes, progress)));
        }
    }
    let partial = path.with_extension("partial");
    let written = padding(&tensors, &partial)
        .and_then(|padding| safetensors::serialize_to_file(tensors, Some(padding), &partial))
        .map_err(|error| failed(error.to_string()))
        .and_then(|()| {
            readable(&partial)
                .and_then(|()| fs::rename(&partial, path))
                .map_err(|error| failed(error.to_string()))
        });
    if written.is_err() {
        // What is left would only take room.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// What makes a header so long that the bytes after it begin on a cache line. How long it is without is seen by writing it
/// to `path`.
fn padding(
    tensors: &[(&str, Bytes<'_>)],
    path: &Path,
) -> std::result::Result<HashMap<String, String>, SafeTensorError> {
    let padding = |spaces: usize| HashMap::from([("padding".to_owned(), " ".repeat(spaces))]);
    let headers = tensors.iter().map(|(name, bytes)| (*name, Header(bytes)));
    safetensors::serialize_to_file(headers, Some(padding(0)), path)?;
    let start = fs::metadata(path)?.len() as usize;
    Ok(padding(start.next_multiple_of(LINE) - start))
}

/// Lets others read the file, as they may read the checkpoint beside it.
#[cfg(unix)]
fn readable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_: &Path) -> std::io::Result<()> {
    Ok(())
}

fn origin(checkpoint: &Checkpoint) -> String {
    format!("layout {LAYOUT} of {}", checkpoint.fingerprint())
}

/// Bytes that tell when they are taken.
struct Bytes<'a> {
    bytes: &'a [u8],
    shape: [usize; 1],
    progress: &'a dyn Fn(usize),
}

impl<'a> Bytes<'a> {
    fn new(bytes: &'a [u8], progress: &'a dyn Fn(usize)) -> Self {
        Self { bytes, shape: [bytes.len()], progress }
    }
}

/// The same without its bytes.
struct Header<'a>(&'a Bytes<'a>);

impl View for Header<'_> {
    fn dtype(&self) -> Dtype {
        self.0.dtype()
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&[])
    }

    fn data_len(&self) -> usize {
        self.0.data_len()
    }
}

impl View for Bytes<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::U8
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        (self.progress)(self.bytes.len());
        Cow::Borrowed(self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
