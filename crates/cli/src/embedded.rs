//! The checkpoints that are part of the binary. The demo model is a tiny one, trained by `scripts/train-demo.py` on
//! simple shapes, printed words and short clips: `ocellus serve` shows what it is for on a machine without any model.
//! The nano model has random weights, and each number of its answers depends on every part of the engine: devices are
//! tested with it.

use ocellus_engine::Source;

/// The demo model's name when no other is given.
pub(crate) const NAME: &str = "ocellus-demo";

/// The demo model's files.
pub(crate) fn demo() -> Source {
    Source::embedded(DEMO)
}

/// The nano model's files.
pub(crate) fn nano() -> Source {
    Source::embedded(NANO)
}

/// Names and contents of files in a folder of `models`.
macro_rules! files {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../../models/", $folder, "/", $name)))),*]
    };
}

const DEMO: &[(&str, &[u8])] = files![
    "demo":
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];

const NANO: &[(&str, &[u8])] = files![
    "nano":
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is added to a folder must be added above.
    #[track_caller]
    fn check(name: &str, files: &[(&str, &[u8])]) -> u64 {
        let folder =
            std::fs::read_dir(format!("{}/../../models/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let mut found: Vec<(String, u64)> = folder
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
            .collect();
        found.sort();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, files.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        found.iter().map(|(_, bytes)| bytes).sum()
    }

    #[test]
    fn every_file_is_embedded() {
        check("nano", NANO);
        // What every user downloads with the binary.
        assert!(check("demo", DEMO) <= 12_000_000);
    }
}
