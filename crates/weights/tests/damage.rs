//! No damage to a real checkpoint makes the loader panic: files cut anywhere, bits flipped anywhere.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use ocellus_kernels::Device;
use ocellus_weights::{Checkpoint, LinearShape, Source};
use proptest::{prelude::*, test_runner::RngSeed};

const FILES: [&str; 3] =
    ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

/// The longest part of a file in which a flipped bit can do more than change a weight.
const HEADER_BYTES: usize = 8192;

#[derive(Clone, Debug)]
enum Damage {
    /// The file ends here.
    Cut(usize),
    /// These bits of the header are flipped.
    Flips(Vec<(usize, u8)>),
    /// This bit of the whole file is flipped.
    Flip(usize, u8),
    /// These bytes stand at this place.
    Overwritten(usize, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    let anywhere = || any::<prop::sample::Index>().prop_map(|index| index.index(1 << 30));
    let early = || 0..HEADER_BYTES;
    prop_oneof![
        prop_oneof![anywhere().boxed(), early().boxed()].prop_map(Damage::Cut),
        prop::collection::vec((early(), 0..8u8), 1..4).prop_map(Damage::Flips),
        (anywhere(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (prop_oneof![Just(0).boxed(), early().boxed()], prop::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(at, bytes)| Damage::Overwritten(at, bytes)),
    ]
}

fn damaged(mut bytes: Vec<u8>, damage: &Damage) -> Vec<u8> {
    let length = bytes.len();
    match damage {
        Damage::Cut(at) => bytes.truncate(at % length),
        Damage::Flips(flips) => flips.iter().for_each(|(at, bit)| bytes[at % length] ^= 1 << bit),
        Damage::Flip(at, bit) => bytes[at % length] ^= 1 << bit,
        Damage::Overwritten(at, new) => {
            let at = at % length;
            let end = (at + new.len()).min(length);
            bytes[at..end].copy_from_slice(&new[..end - at]);
        }
    }
    bytes
}

/// Opens the checkpoint and asks for every tensor in every way. Errors are fine.
fn use_everything(folder: &Path) -> Result<(), ocellus_weights::Error> {
    let checkpoint = Checkpoint::open(&Source::folder(folder))?;
    let loader = checkpoint.loader(&Device::open("auto")?);
    let root = loader.root();
    for name in checkpoint.names() {
        let layer = name.trim_end_matches(".weight");
        // Each of these fits some tensors of the nano model and not the others.
        let _ = root.vector(name, 64);
        let _ = root.embedding(layer, 2176, 64).map(|table| table.forward(&[0, 2175, 2176, u32::MAX]));
        let _ = root.linear_flattened(layer, &[48, 3, 2, 14, 14]);
        for (out_features, in_features) in
            [(64, 64), (32, 64), (152, 64), (64, 152), (144, 48), (0, 0), (usize::MAX, 2)]
        {
            let _ = root.linear(layer, LinearShape { out_features, in_features, bias: true });
        }
    }
    loader.finish()
}

proptest! {
    // The same damage in each run.
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::with_cases(96)
    })]

    #[test]
    fn never_panics(which in 0..FILES.len(), damage in damage()) {
        let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano");
        let folder = tempfile::tempdir().unwrap();
        for (position, name) in FILES.iter().enumerate() {
            let bytes = fs::read(nano.join(name)).unwrap();
            let bytes = if position == which { damaged(bytes, &damage) } else { bytes };
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        if let Err(error) = use_everything(folder.path()) {
            let text = error.to_string();
            prop_assert!(text.len() < 2000 && !text.contains('\n'), "{text}");
        }
    }
}
