//! The checkpoint that is part of the binary: a tiny one with random weights, so that `ocellus serve` answers on a
//! machine without any model. What it says means nothing; everything around it is real.

use ocellus_engine::Source;

/// Its name when no other is given.
pub(crate) const NAME: &str = "ocellus-nano";

/// Its files.
pub(crate) fn source() -> Source {
    Source::embedded(FILES)
}

/// Names and contents of files in `models/nano`.
macro_rules! nano {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../../models/nano/", $name)))),*]
    };
}

const FILES: &[(&str, &[u8])] = nano![
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

    /// A file that is added to the folder must be added above.
    #[test]
    fn every_file_is_embedded() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/nano")).unwrap();
        let mut names: Vec<String> =
            folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, FILES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }
}
