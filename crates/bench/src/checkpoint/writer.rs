//! Files: small texts, and weights that are computed on all cores while they are written.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    num::NonZero,
    path::Path,
    sync::mpsc,
    thread,
};

use anyhow::{Context, Result};
use half::{bf16, f16};
use serde_json::{Map, Value, json};

use super::{
    Plan, PlannedFile, Recipe, StoredType, TensorSpec, config,
    generator::{tensor_key, values},
};

pub(super) const INDEX: &str = "model.safetensors.index.json";

/// How many elements a thread computes at a time: the pieces in flight then stay within a core's cache.
const PIECE_ELEMENTS: u64 = 1 << 18;

pub(super) fn write_text(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| path.display().to_string())
}

/// The index of a checkpoint: its size, and the file of each tensor by the tensor's name.
pub(super) fn index_text(plan: &Plan) -> Result<String> {
    let tensors = plan.files.iter().flat_map(|file| file.tensors.iter().map(move |t| (&t.name, &file.name)));
    let weight_map: BTreeMap<_, _> = tensors.collect();
    config::pretty(&json!({"metadata": {"total_size": plan.bytes}, "weight_map": weight_map}))
}

/// Writes one file under a temporary name and then gives it its own, so that a checkpoint that is in use is
/// replaced, never changed.
pub(super) fn write_weights(
    path: &Path,
    planned: &PlannedFile,
    recipe: &Recipe,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let written = File::create(&partial)
        .map_err(anyhow::Error::from)
        .and_then(|mut file| write_to(&mut file, planned, recipe, on_bytes))
        .and_then(|()| Ok(fs::rename(&partial, path)?));
    if written.is_err() {
        // The first error is the one to tell; a rest that can't be removed adds nothing.
        let _ = fs::remove_file(&partial);
    }
    written.with_context(|| path.display().to_string())
}

fn write_to(
    file: &mut impl Write,
    planned: &PlannedFile,
    recipe: &Recipe,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<()> {
    file.write_all(&header(&planned.tensors, recipe.stored_type)?)?;
    let pieces = pieces(&planned.tensors, recipe.seed);
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        // Thread t computes pieces t, t + threads, … and this thread takes them in turn: the file is in
        // order, and no more than three pieces per thread are ever in memory.
        let queues: Vec<mpsc::Receiver<Vec<u8>>> = (0..threads)
            .map(|first| {
                let (sender, receiver) = mpsc::sync_channel(2);
                let own = pieces.iter().skip(first).step_by(threads);
                scope.spawn(move || {
                    for piece in own {
                        // The other side is gone when writing failed.
                        if sender.send(piece.bytes(recipe.stored_type)).is_err() {
                            return;
                        }
                    }
                });
                receiver
            })
            .collect();
        for queue in queues.iter().cycle().take(pieces.len()) {
            let bytes = queue.recv().context("a thread that computes weights ended early")?;
            file.write_all(&bytes)?;
            on_bytes(bytes.len() as u64);
        }
        Ok(())
    })
}

/// The length of the header and the header, padded so that the weights start at a multiple of 8.
fn header(tensors: &[TensorSpec], stored_type: StoredType) -> Result<Vec<u8>> {
    let mut fields = Map::new();
    fields.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += tensor.elements * stored_type.size_in_bytes() as u64;
        let info = json!({
            "dtype": stored_type.safetensors_name(),
            "shape": tensor.shape,
            "data_offsets": [start, end],
        });
        fields.insert(tensor.name.clone(), info);
    }
    let mut json = serde_json::to_vec(&Value::from(fields))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}

/// Some consecutive elements of one tensor.
struct Piece<'a> {
    tensor: &'a TensorSpec,
    key: u64,
    start: u64,
    elements: u64,
}

fn pieces(tensors: &[TensorSpec], seed: u64) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    for tensor in tensors {
        let key = tensor_key(seed, &tensor.hub_name);
        for start in (0..tensor.elements).step_by(PIECE_ELEMENTS as usize) {
            let elements = PIECE_ELEMENTS.min(tensor.elements - start);
            pieces.push(Piece { tensor, key, start, elements });
        }
    }
    pieces
}

impl Piece<'_> {
    /// The elements as they are stored, little-endian.
    fn bytes(&self, stored_type: StoredType) -> Vec<u8> {
        let live = self.tensor.live_elements.saturating_sub(self.start).min(self.elements) as usize;
        let values = values(self.key, self.start, self.tensor.spread).take(live);
        let length = self.elements as usize * stored_type.size_in_bytes();
        let mut bytes = match stored_type {
            StoredType::Bf16 => encoded(values, length, bf16::to_le_bytes),
            StoredType::F16 => encoded(values, length, |value| f16::from_f32(value.to_f32()).to_le_bytes()),
            StoredType::F32 => encoded(values, length, |value| value.to_f32().to_le_bytes()),
        };
        bytes.resize(length, 0);
        bytes
    }
}

fn encoded<const N: usize>(
    values: impl Iterator<Item = bf16>,
    capacity: usize,
    encode: impl Fn(bf16) -> [u8; N],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(capacity);
    values.for_each(|value| bytes.extend_from_slice(&encode(value)));
    bytes
}
