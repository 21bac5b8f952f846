//! What a sound checkpoint gives: values of every type, names of every scheme, bytes that are shared.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::{fs, path::Path};

use fixture::{file, load, raw, write_good};
use ocellus_kernels::{Device, Tensor};
use ocellus_weights::{Checkpoint, Linear, LinearShape, Source};

/// A single file with one tensor `x`, whose elements are these bytes.
fn one_tensor(dtype: &str, shape: &[usize], padding: usize, data: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let header = format!(
        r#"{{"x.weight":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[0,{}]}}}}{}"#,
        data.len(),
        " ".repeat(padding)
    );
    let mut bytes = raw(&header, 0);
    bytes.extend(data);
    fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    folder
}

fn device() -> Device {
    Device::open("auto").unwrap()
}

#[test]
fn both_layouts_and_both_sources() {
    let folder = tempfile::tempdir().unwrap();
    write_good(folder.path());
    load(&Source::folder(folder.path())).unwrap();

    static EMBEDDED: &[(&str, &[u8])] = &[
        ("config.json", include_bytes!("../../../models/nano/config.json")),
        ("model.safetensors.index.json", include_bytes!("../../../models/nano/model.safetensors.index.json")),
        (
            "model-00001-of-00002.safetensors",
            include_bytes!("../../../models/nano/model-00001-of-00002.safetensors"),
        ),
        (
            "model-00002-of-00002.safetensors",
            include_bytes!("../../../models/nano/model-00002-of-00002.safetensors"),
        ),
    ];
    let embedded = Source::embedded(EMBEDDED);
    let on_disk = Source::folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano"));
    assert_eq!(embedded.read_text("config.json").unwrap(), on_disk.read_text("config.json").unwrap());
    assert_eq!(embedded.read_text("README.md").unwrap(), None);
    let [a, b] = [embedded, on_disk].map(|source| Checkpoint::open(&source).unwrap());
    assert!(a.names().eq(b.names()));
    assert_eq!((a.names().count(), a.size_in_bytes()), (93, 1_212_576));
    let norm = |checkpoint: &Checkpoint| {
        let loader = checkpoint.loader(&device());
        loader.root().vector("model.norm.weight", 64).unwrap().to_f32_vec().unwrap()
    };
    assert_eq!(norm(&a), norm(&b));
    assert!(norm(&a).iter().all(|value| (0.7..1.3).contains(value)));
}

/// 1, -2, 0.5 and 65504, exactly representable in f16 and f32; bf16 keeps its first eight bits: 65536.
#[test]
fn every_type_at_every_alignment() {
    let bf16: Vec<u8> =
        [0x3f80u16, 0xc000, 0x3f00, 0x4780].iter().flat_map(|bits| bits.to_le_bytes()).collect();
    let f16: Vec<u8> =
        [0x3c00u16, 0xc000, 0x3800, 0x7bff].iter().flat_map(|bits| bits.to_le_bytes()).collect();
    let f32: Vec<u8> = [1f32, -2.0, 0.5, 65504.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    for (dtype, data, last) in [("BF16", bf16, 65536.0), ("F16", f16, 65504.0), ("F32", f32, 65504.0)] {
        for padding in 0..8 {
            let folder = one_tensor(dtype, &[2, 2], padding, &data);
            let checkpoint = Checkpoint::open(&Source::folder(folder.path())).unwrap();
            let loader = checkpoint.loader(&device());
            let table = loader.root().embedding("x", 2, 2).unwrap();
            let rows = table.forward(&[1, 0, 1]).unwrap();
            assert_eq!(rows.shape(), [3, 2]);
            assert_eq!(rows.to_f32_vec().unwrap(), [0.5, last, 1.0, -2.0, 0.5, last], "{dtype} at {padding}");
            assert_eq!((table.rows(), table.dim()), (2, 2));
        }
    }
}

#[test]
fn linear_layers() {
    let weight: Vec<u8> = (1..=6u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
    let folder = one_tensor("F32", &[2, 1, 3], 0, &weight);
    let checkpoint = Checkpoint::open(&Source::folder(folder.path())).unwrap();
    let loader = checkpoint.loader(&device());
    let check = |linear: &Linear, expected: &[f32]| {
        let x = Tensor::from_f32(vec![1.0, 10.0, 100.0], &[1, 3], &device()).unwrap();
        assert_eq!(linear.forward(&x).unwrap().to_f32_vec().unwrap(), expected);
    };
    let linear = loader.root().linear_flattened("x", &[2, 1, 3]).unwrap();
    check(&linear, &[321.0, 654.0]);
    assert_eq!(linear.shape(), LinearShape { out_features: 2, in_features: 3, bias: false });
    assert_eq!(linear.bytes(), 24);
    // The same number of elements in another order would give other numbers, so it is refused.
    for wrong in [&[2, 3, 1][..], &[1, 2, 3], &[3, 2], &[6], &[]] {
        loader.root().linear_flattened("x", wrong).unwrap_err();
    }
    loader.finish().unwrap();

    // Saved flat, it is accepted too; and a tied head is the table itself.
    let folder = one_tensor("F32", &[2, 3], 0, &weight);
    let checkpoint = Checkpoint::open(&Source::folder(folder.path())).unwrap();
    let loader = checkpoint.loader(&device());
    check(&loader.root().linear_flattened("x", &[2, 1, 3]).unwrap(), &[321.0, 654.0]);
    check(&loader.root().embedding("x", 2, 3).unwrap().as_linear(), &[321.0, 654.0]);
}

#[test]
fn a_bias_is_added() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = file(&[("x.weight", "F32", &[1, 1]), ("x.bias", "F32", &[1])]);
    let end = bytes.len();
    bytes[end - 8..end - 4].copy_from_slice(&3f32.to_le_bytes());
    bytes[end - 4..].copy_from_slice(&0.25f32.to_le_bytes());
    fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    let checkpoint = Checkpoint::open(&Source::folder(folder.path())).unwrap();
    let loader = checkpoint.loader(&device());
    let linear =
        loader.root().linear("x", LinearShape { out_features: 1, in_features: 1, bias: true }).unwrap();
    let x = Tensor::from_f32(vec![2.0], &[1, 1], &device()).unwrap();
    assert_eq!(linear.forward(&x).unwrap().to_f32_vec().unwrap(), [6.25]);
    assert_eq!(linear.bytes(), 8);
    loader.finish().unwrap();
}

#[test]
fn scopes_and_what_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let tensors: [(&str, &str, &[usize]); 4] = [
        ("model.visual.norm.weight", "F32", &[1]),
        ("model.language_model.norm.weight", "F32", &[1]),
        ("model.language_model.rotary.inv_freq", "F32", &[1]),
        ("modelling", "F32", &[1]),
    ];
    fs::write(folder.path().join("model.safetensors"), file(&tensors)).unwrap();
    let checkpoint = Checkpoint::open(&Source::folder(folder.path())).unwrap();
    let loader = checkpoint.loader(&device());
    let text = loader.scope_any(&["model.language_model", "model"]).unwrap();
    assert!(text.contains("norm.weight") && !text.contains("visual.norm.weight"));
    assert!(
        loader.scope_any(&["visual", "model.vis", "language_model"]).is_err(),
        "prefixes are whole words"
    );
    loader.scope_any(&["visual", "model.visual"]).unwrap().vector("norm.weight", 1).unwrap();
    text.vector("norm.weight", 1).unwrap();
    text.vector("norm.weight", 1).unwrap();
    loader.ignore(|name| name.ends_with("inv_freq"));
    let error = loader.finish().unwrap_err().to_string();
    assert!(error.contains(": modelling in model.safetensors,"), "{error}");
}
