//! The writer of random checkpoints gives the bytes that the goldens were computed from, in every layout.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::Path};

use ocellus_kernels::{Device, Tensor};
use ocellus_tests::checkpoint::{
    ConfigLayout, DEFAULT_SEED, Files, Naming, PRESETS, Recipe, StoredType, Tokenizer,
    generator::{tensor_key, values},
};
use ocellus_weights::{Checkpoint, Source};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn models() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

fn write(recipe: &Recipe) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut written = 0;
    let plan = recipe.write(folder.path(), &mut |bytes| written += bytes).unwrap();
    assert_eq!(written, plan.bytes, "the progress ends at the end");
    folder
}

fn sha256(path: &Path) -> String {
    Sha256::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every tensor of a checkpoint as f32, by the name the hub gives it.
fn tensors(folder: &Path, naming: Naming) -> BTreeMap<String, Vec<f32>> {
    let checkpoint = Checkpoint::open(&Source::folder(folder)).unwrap();
    let loader = checkpoint.loader(&Device::open("auto").unwrap());
    let config = fs::read_to_string(models().join("nano/config.json")).unwrap();
    let plan = Recipe { naming, ..Recipe::from_config(&config) }.plan().unwrap();
    let specs = plan.files.iter().flat_map(|file| &file.tensors);
    let tensors = specs.map(|tensor| {
        let layer = tensor.name.trim_end_matches(".weight");
        let shape: Vec<usize> = tensor.shape.iter().map(|&dim| dim as usize).collect();
        let elements = match shape[..] {
            [len] => loader.root().vector(&tensor.name, len).unwrap().to_f32_vec(),
            [rows, dim] => {
                let ids: Vec<u32> = (0..rows as u32).collect();
                loader.root().embedding(layer, rows, dim).unwrap().forward(&ids).unwrap().to_f32_vec()
            }
            _ => {
                // The product with the identity is the weight, transposed.
                let linear = loader.root().linear_flattened(layer, &shape).unwrap();
                let n = linear.shape().in_features;
                let identity = (0..n * n).map(|i| if i % (n + 1) == 0 { 1.0 } else { 0.0 }).collect();
                let identity = Tensor::from_f32(identity, &[n, n], &Device::open("auto").unwrap()).unwrap();
                linear.forward(&identity).unwrap().to_f32_vec()
            }
        };
        (tensor.hub_name.clone(), elements.unwrap())
    });
    let tensors = tensors.collect();
    loader.finish().unwrap();
    tensors
}

#[test]
fn the_nano_model_is_what_the_writer_writes() {
    let folder = write(&Recipe::preset("nano").unwrap());
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 11, "{names:?}");
    for name in names {
        let (new, kept) = (folder.path().join(&name), models().join("nano").join(&name));
        assert_eq!(sha256(&new), sha256(&kept), "{name:?}");
    }
}

/// The checkpoints that an independent writer made for the goldens.
#[test]
fn sums_of_an_independent_writer() {
    check_sums(
        "nano",
        &[
            "0ebba39625eebb956ab944161d6f9ac9d266d79ed40bc36ab67b59290ab3de90",
            "21694bd0388c763768813eec88aa93b7be061b4349584aa47f0152c40369cf6d",
        ],
    );
    check_sums(
        "tiny",
        &[
            "408a45163cdc2eaa31c18644a67c71497ea93c764ca8819082792ea78e26b86f",
            "f56f2dfbffac5bfe73bdbe1f5cd7fc48aef32bbafd059a65f2e8b90a01515926",
            "68ad920a0c53ed7d1f3e2039d347bcb24264ed4a0b4a787fff03ba3b7c303f7a",
        ],
    );
}

#[test]
#[ignore = "writes 0.36 GB"]
fn sums_of_an_independent_writer_for_small() {
    check_sums(
        "small",
        &[
            "7f886017b605a69cb12ee53c93af5989094f0226a6b20ab98a2f681ed47f703d",
            "f6b9f9501c1d58ab36582af17627a5e797a9ff3e6dd76b228430d0216e351fdd",
        ],
    );
}

fn check_sums(preset: &str, expected: &[&str]) {
    let recipe = Recipe::preset(preset).unwrap();
    let folder = write(&recipe);
    let files = recipe.plan().unwrap().files;
    let sums: Vec<String> = files.iter().map(|file| sha256(&folder.path().join(&file.name))).collect();
    assert_eq!(sums, expected, "{preset}");
}

/// Preset, tensor, key, bits of the scale, offset, first elements: from an independent writer.
#[test]
fn values_of_an_independent_writer() {
    for (preset, tensor, key, scale, offset, first) in [
        (
            "nano",
            "visual.patch_embed.proj.weight",
            0xc5598cf52d272120,
            0x3d4ee116,
            0.0,
            [0x3cf2, 0xbd3b, 0x3c5a, 0x3cdd],
        ),
        (
            "nano",
            "visual.blocks.1.attn.qkv.bias",
            0x2aafb66ed86104c6,
            0x3f315cac,
            0.0,
            [0x3e5d, 0xbf06, 0x3da3, 0xbd88],
        ),
        (
            "nano",
            "visual.merger.ln_q.weight",
            0x0f52849f6964de52,
            0x3e99999a,
            1.0,
            [0x3f85, 0x3f85, 0x3f75, 0x3f50],
        ),
        (
            "nano",
            "model.embed_tokens.weight",
            0xcc31a07988f046b7,
            0x3f2646e1,
            0.0,
            [0x3e3e, 0xbedb, 0x3e30, 0xbed8],
        ),
        (
            "nano",
            "model.layers.2.self_attn.k_proj.weight",
            0xca43d7633c4ee85f,
            0x3eb15cac,
            0.0,
            [0x3d9e, 0xbe32, 0xbea2, 0xbe21],
        ),
        (
            "tiny",
            "visual.patch_embed.proj.weight",
            0xc5598cf52d272120,
            0x3d4ee116,
            0.0,
            [0x3cf2, 0xbd3b, 0x3c5a, 0x3cdd],
        ),
        (
            "tiny",
            "visual.blocks.1.attn.qkv.bias",
            0x2aafb66ed86104c6,
            0x3f315cac,
            0.0,
            [0x3e5d, 0xbf06, 0x3da3, 0xbd88],
        ),
        (
            "tiny",
            "visual.merger.ln_q.weight",
            0x0f52849f6964de52,
            0x3e99999a,
            1.0,
            [0x3f85, 0x3f85, 0x3f75, 0x3f50],
        ),
        (
            "tiny",
            "model.embed_tokens.weight",
            0xcc31a07988f046b7,
            0x3f400000,
            0.0,
            [0x3e5b, 0xbefd, 0x3e4c, 0xbefa],
        ),
        (
            "tiny",
            "model.layers.2.self_attn.k_proj.weight",
            0xca43d7633c4ee85f,
            0x3ecccccd,
            0.0,
            [0x3db6, 0xbe4e, 0xbebb, 0xbe3a],
        ),
        (
            "3b",
            "visual.patch_embed.proj.weight",
            0xc5598cf52d272120,
            0x3d4ee116,
            0.0,
            [0x3cf2, 0xbd3b, 0x3c5a, 0x3cdd],
        ),
        (
            "3b",
            "visual.blocks.1.attn.qkv.bias",
            0x2aafb66ed86104c6,
            0x3f315cac,
            0.0,
            [0x3e5d, 0xbf06, 0x3da3, 0xbd88],
        ),
        (
            "3b",
            "visual.merger.ln_q.weight",
            0x0f52849f6964de52,
            0x3e99999a,
            1.0,
            [0x3f85, 0x3f85, 0x3f75, 0x3f50],
        ),
        (
            "3b",
            "model.embed_tokens.weight",
            0xcc31a07988f046b7,
            0x3deb26a9,
            0.0,
            [0x3d06, 0xbd9b, 0x3cf9, 0xbd99],
        ),
        (
            "3b",
            "model.layers.2.self_attn.k_proj.weight",
            0xca43d7633c4ee85f,
            0x3d7ad3e7,
            0.0,
            [0x3c5f, 0xbcfc, 0xbd65, 0xbce3],
        ),
    ] {
        let plan = Recipe::preset(preset).unwrap().plan().unwrap();
        let spec = plan.files.iter().flat_map(|file| &file.tensors).find(|spec| spec.name == tensor).unwrap();
        assert_eq!(tensor_key(DEFAULT_SEED, tensor), key, "{preset} {tensor}");
        assert_eq!((spec.spread.scale.to_bits(), spec.spread.offset), (scale, offset), "{preset} {tensor}");
        let bits: Vec<u16> = values(key, 0, spec.spread).take(4).map(|value| value.to_bits()).collect();
        assert_eq!(bits, first, "{preset} {tensor}");
        // A counter-based generator starts anywhere.
        assert_eq!(values(key, 3, spec.spread).next().unwrap().to_bits(), first[3], "{preset} {tensor}");
    }
}

#[test]
fn sizes_are_those_of_the_published_models() {
    let sizes = PRESETS.map(|(name, _)| (name, Recipe::preset(name).unwrap().plan().unwrap().parameters));
    assert_eq!(
        sizes,
        [
            ("nano", 606_288),
            ("tiny", 7_772_144),
            ("small", 180_104_192),
            ("3b", 3_754_622_976),
            ("7b", 8_292_166_656),
            ("32b", 33_452_718_336),
            ("72b", 73_410_777_344),
        ]
    );
}

#[test]
fn names_types_and_files_do_not_change_the_values() {
    let nano = || Recipe::preset("nano").unwrap();
    let expected = tensors(&models().join("nano"), Naming::Hub);
    for (recipe, tolerance) in [
        (Recipe { naming: Naming::New, files: Files::One, ..nano() }, 0.0),
        (Recipe { stored_type: StoredType::F32, files: Files::OfBytes(0), ..nano() }, 0.0),
        // Half precision has fewer bits below its smallest normal number, 6e-5.
        (
            Recipe {
                stored_type: StoredType::F16,
                files: Files::OfBytes(300_000),
                naming: Naming::New,
                ..nano()
            },
            3e-8,
        ),
    ] {
        let folder = write(&recipe);
        let found = tensors(folder.path(), recipe.naming);
        assert!(found.keys().eq(expected.keys()));
        for (name, expected) in &expected {
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= tolerance;
            assert!(found[name].iter().zip(expected).all(near), "{name} of {recipe:?}");
            assert_eq!(found[name].len(), expected.len(), "{name} of {recipe:?}");
        }
    }
    let other = write(&Recipe { seed: 1, ..nano() });
    assert_ne!(tensors(other.path(), Naming::Hub)["model.norm.weight"], expected["model.norm.weight"]);
}

#[test]
fn rows_without_a_token_are_zero() {
    let nano = tensors(&models().join("nano"), Naming::Hub);
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let zeros = nano[name].chunks(64).map(|row| row.iter().all(|value| *value == 0.0));
        assert_eq!(zeros.collect::<Vec<_>>(), (0..2176).map(|id| id >= 2070).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn configs() {
    let config = |layout, stored_type| -> Value {
        let recipe = Recipe::preset("nano").unwrap();
        let folder = write(&Recipe { config_layout: layout, stored_type, ..recipe });
        serde_json::from_str(&fs::read_to_string(folder.path().join("config.json")).unwrap()).unwrap()
    };
    let flat = config(None, StoredType::F16);
    assert_eq!((&flat["torch_dtype"], &flat["hidden_size"]), (&json!("float16"), &json!(64)));
    let nested = config(Some(ConfigLayout::Nested), StoredType::Bf16);
    assert_eq!(nested.get("hidden_size"), None);
    assert_eq!(nested["text_config"]["hidden_size"], 64);
    assert_eq!(nested["text_config"]["rope_theta"], 1_000_000.0);
    let scaling = json!({"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"});
    assert_eq!(nested["text_config"]["rope_scaling"], scaling);
    assert_eq!((&nested["image_token_id"], &nested["vision_config"]["depth"]), (&json!(2060), &json!(4)));
    let newest = config(Some(ConfigLayout::RopeParameters), StoredType::F32);
    assert_eq!(newest["text_config"].get("rope_theta"), None);
    assert_eq!(newest["text_config"]["rope_parameters"]["rope_theta"], 1_000_000.0);
    assert_eq!((&newest["dtype"], newest.get("torch_dtype")), (&json!("float32"), None));
    // Any layout can be read again, and back and forth gives the same fields.
    for nested in [nested, newest] {
        let recipe =
            Recipe { config_layout: Some(ConfigLayout::Flat), ..Recipe::from_config(&nested.to_string()) };
        assert_eq!(recipe.plan().unwrap().parameters, 606_288);
        let folder = write(&recipe);
        let text = fs::read_to_string(folder.path().join("config.json")).unwrap();
        let again: Value = serde_json::from_str(&text).unwrap();
        for key in ["hidden_size", "rope_theta", "vocab_size", "tie_word_embeddings", "bos_token_id"] {
            assert_eq!(again[key], flat[key], "{key}");
        }
        assert_eq!(again["rope_scaling"]["mrope_section"], flat["rope_scaling"]["mrope_section"]);
    }
}

#[test]
fn odd_configs() {
    let recipe = Recipe::preset("nano").unwrap().edit_config(|config| {
        config["num_attention_heads"] = 2.into();
        config["tie_word_embeddings"] = true.into();
        config["vision_config"]["depth"] = 1.into();
    });
    let recipe = recipe.unwrap();
    let folder = write(&recipe);
    let checkpoint = Checkpoint::open(&Source::folder(folder.path())).unwrap();
    assert!(!checkpoint.names().any(|name| name == "lm_head.weight" || name.starts_with("visual.blocks.1.")));
    assert!(folder.path().join("tokenizer.json").is_file());
    let own = write(&Recipe { tokenizer: Tokenizer::Folder(folder.path().into()), ..recipe });
    assert_eq!(sha256(&own.path().join("tokenizer.json")), sha256(&folder.path().join("tokenizer.json")));
}

#[test]
fn refusals() {
    let message = |edit: fn(&mut Value)| {
        let recipe = Recipe::preset("nano").unwrap().edit_config(edit).unwrap();
        format!("{:#}", recipe.plan().unwrap_err())
    };
    for (edit, expected) in [
        (
            (|config| config["hidden_size"] = 0.into()) as fn(&mut Value),
            "config.json: hidden_size 0, expected a number from 1 to 1048576",
        ),
        (
            |config| config["hidden_size"] = json!("64"),
            "config.json: hidden_size \"64\", expected a number from 1 to 1048576",
        ),
        (
            |config| config["num_attention_heads"] = 5.into(),
            "config.json: hidden_size 64, expected a multiple of its 5 heads",
        ),
        (|config| config["vision_config"] = json!(null), "config.json: no vision_config"),
        (|config| *config = json!([]), "config.json: expected an object"),
        (
            |config| {
                config["vision_config"]["hidden_size"] = (1 << 20).into();
                config["vision_config"]["spatial_merge_size"] = 255.into();
            },
            "visual.blocks.0.attn.qkv.weight: [3145728, 1048576] is too large",
        ),
    ] {
        assert_eq!(message(edit), expected);
    }
    assert_eq!(
        Recipe::preset("5b").unwrap_err().to_string(),
        "no preset is called \"5b\"; there are nano, tiny, small, 3b, 7b, 32b, 72b"
    );
    // Two models in one folder could not be told apart.
    let folder = write(&Recipe::preset("nano").unwrap());
    let single = Recipe { files: Files::One, ..Recipe::preset("nano").unwrap() };
    let error = single.write(folder.path(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("which would stay; give an empty folder"), "{error}");
    Recipe::preset("nano").unwrap().write(folder.path(), &mut |_| {}).unwrap();
}
