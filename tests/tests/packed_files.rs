//! A file of packed weights gives the same bits as packing at the start: where its bytes lie in the file, while they are
//! moved, and afterwards.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use ocellus_engine::{Formats, Model, Source, WeightFormat};
use ocellus_kernels::{Device, settle};
use ocellus_tests::house::{Run, workspace};
use ocellus_vision_encoder::patches::{Grid, Patches};
use safetensors::SafeTensors;

/// The nano checkpoint in a folder that may be written to.
fn nano() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(workspace().join("models/nano")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn load(folder: &Path, formats: Formats) -> Result<Model, ocellus_engine::LoadError> {
    Model::load_as(&Source::folder(folder), formats, &Device::host(), &|_| {})
}

/// Bits of a text's logits and of a picture's embeddings.
fn numbers(model: &Model) -> Vec<u32> {
    let ids: Vec<u32> = (0..40u32).map(|i| i.wrapping_mul(2_654_435_761) % 2048).collect();
    let logits = Run::new(&model.decoder, ids.len()).unwrap().append_text(&ids).unwrap();
    let grid = Grid { t: 1, h: 6, w: 4 };
    let values = grid.patches().unwrap() * model.tower.config().geometry.patch_values();
    let values = (0..values).map(|i| (i % 97) as f32 / 48.0 - 1.0).collect();
    let picture = model.tower.forward(&[&Patches { grid, values }]).unwrap().to_f32_vec().unwrap();
    logits.iter().chain(&picture).map(|value| value.to_bits()).collect()
}

fn check(format: WeightFormat) {
    let folder = nano();
    let formats = Formats { decoder: format, tower: Some(format) };
    let expected = numbers(&load(folder.path(), formats).unwrap());
    let path = Model::pack(&Source::folder(folder.path()), formats, folder.path(), &|_| {}).unwrap();

    let bytes = fs::read(&path).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut places: Vec<(usize, usize)> =
        metadata.tensors().values().map(|tensor| tensor.data_offsets).collect();
    places.sort_unstable();
    assert!(places.len() > 20);
    assert!(places.iter().all(|(start, _)| (8 + header + start).is_multiple_of(64)), "{places:?}");

    let model = load(folder.path(), formats).unwrap();
    assert!(numbers(&model) == expected, "{format}: read from the file");
    settle::wait();
    assert!(numbers(&model) == expected, "{format}: moved");
    drop(model);

    // What the file says is what counts.
    let mut changed = bytes.clone();
    changed[8 + header..].chunks_exact_mut(64).step_by(3).for_each(|line| line.fill(0));
    fs::write(&path, &changed).unwrap();
    match load(folder.path(), formats) {
        Ok(model) => assert!(numbers(&model) != expected, "{format}: another file"),
        Err(error) => panic!("{format}: {error}"),
    }
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(load(folder.path(), formats).is_err(), "{format}: a byte is missing");
}

#[test]
fn bf16() {
    check(WeightFormat::Bf16);
}

#[test]
fn int8() {
    check(WeightFormat::Int8);
}

#[test]
fn int4() {
    check(WeightFormat::Int4);
}

/// Packed weights of another checkpoint are left alone.
#[test]
fn files_of_other_weights_are_not_taken() {
    let (folder, other) = (nano(), nano());
    let formats = Formats { decoder: WeightFormat::Int8, tower: Some(WeightFormat::Int8) };
    let path = Model::pack(&Source::folder(other.path()), formats, other.path(), &|_| {}).unwrap();
    let shard = "model-00001-of-00002.safetensors";
    let mut bytes = fs::read(folder.path().join(shard)).unwrap();
    let (header, _) = SafeTensors::read_metadata(&bytes).unwrap();
    // The same numbers with other signs.
    bytes[8 + header..].chunks_exact_mut(4).for_each(|number| number[3] ^= 0x80);
    fs::write(folder.path().join(shard), bytes).unwrap();
    let expected = numbers(&load(folder.path(), formats).unwrap());
    assert!(numbers(&load(other.path(), formats).unwrap()) != expected);
    fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    assert!(numbers(&load(folder.path(), formats).unwrap()) == expected);
}
