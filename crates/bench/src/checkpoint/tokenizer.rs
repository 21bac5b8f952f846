//! The tokenizer files that are put beside random weights.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::writer;

/// Which tokenizer a checkpoint gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tokenizer {
    /// None: the weights can be loaded, but no text can be asked.
    Absent,
    /// The one of the nano model: 2048 byte-level tokens and 22 added ones.
    Nano,
    /// A copy of the files in this folder.
    Folder(PathBuf),
}

/// The files of the nano tokenizer.
const NANO: [(&str, &str); 5] = [
    ("chat_template.json", include_str!("../../../../models/nano/chat_template.json")),
    ("merges.txt", include_str!("../../../../models/nano/merges.txt")),
    ("tokenizer.json", include_str!("../../../../models/nano/tokenizer.json")),
    ("tokenizer_config.json", include_str!("../../../../models/nano/tokenizer_config.json")),
    ("vocab.json", include_str!("../../../../models/nano/vocab.json")),
];

/// The files that a tokenizer can consist of.
const KNOWN: [&str; 8] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];

impl Tokenizer {
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        match self {
            Self::Absent => Ok(()),
            Self::Nano => NANO.iter().try_for_each(|(name, text)| writer::write_text(folder, name, text)),
            Self::Folder(from) => {
                let required = from.join("tokenizer.json");
                ensure!(required.is_file(), "{}: no such file, expected a tokenizer", required.display());
                for name in KNOWN.iter().filter(|name| from.join(name).is_file()) {
                    let (from, to) = (from.join(name), folder.join(name));
                    // Copying a file onto itself would empty it.
                    if from.canonicalize().ok() == to.canonicalize().ok() {
                        continue;
                    }
                    std::fs::copy(&from, &to)
                        .with_context(|| format!("{} to {}", from.display(), to.display()))?;
                }
                Ok(())
            }
        }
    }
}
