//! Which of a repository's files make a checkpoint: names alone. Code, pickles and other formats are never among them.

use std::collections::BTreeSet;

use serde::Deserialize;

/// Which file holds which tensor, of a checkpoint that was split.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// The only file of weights of one that was not.
pub(crate) const SINGLE: &str = "model.safetensors";
/// What the engine needs to know the model at all.
pub(crate) const CONFIG: &str = "config.json";

/// Everything but weights: what the engine reads, and what other libraries expect beside it.
const SMALL: [&str; 15] = [
    CONFIG,
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    INDEX,
    "LICENSE",
];

/// The most files that weights may be split into; the largest published size has 38.
const MOST_SHARDS: usize = 2000;

/// Whether it is one of the small files of a checkpoint.
pub(crate) fn is_small(name: &str) -> bool {
    SMALL.contains(&name)
}

/// Whether it could be a file of weights, if the index names it: a plain name in the repository's own folder.
pub(crate) fn is_weights(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.strip_suffix(".safetensors").is_some_and(|stem| !stem.is_empty())
        && name.len() <= 200
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(plain)
}

/// The files of weights that an index names, sorted. The error is what was found in it.
pub(crate) fn shards(index: &str) -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: serde_json::Map<String, serde_json::Value>,
    }
    let index: Index = serde_json::from_str(index).map_err(|error| error.to_string())?;
    let mut names = BTreeSet::new();
    for file in index.weight_map.into_iter().map(|(_, file)| file) {
        match file.as_str().filter(|name| is_weights(name)) {
            Some(name) => names.insert(name.to_owned()),
            None => return Err(format!("the file {file}")),
        };
        if names.len() > MOST_SHARDS {
            return Err(format!("more than {MOST_SHARDS} files"));
        }
    }
    if names.is_empty() { Err("no file at all".to_owned()) } else { Ok(names.into_iter().collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_pickles_are_never_wanted() {
        for name in [
            "pytorch_model.bin",
            "modeling_qwen.py",
            "model.ckpt",
            "README.md",
            ".gitattributes",
            "model.gguf",
            "onnx/model.safetensors",
            "../model.safetensors",
            ".safetensors",
            ".a.safetensors",
            "a\\b.safetensors",
            "a b.safetensors",
            "a\0.safetensors",
            "-a.safetensors",
        ] {
            assert!(!is_small(name) && !is_weights(name), "{name:?}");
        }
        assert!(is_weights("model-00001-of-00002.safetensors") && is_weights(SINGLE));
        assert!(!is_weights(&format!("{}.safetensors", "a".repeat(200))));
    }

    #[test]
    fn an_index_names_its_files() {
        let index = r#"{"metadata": {}, "weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}}"#;
        assert_eq!(shards(index).unwrap(), ["m-1.safetensors", "m-2.safetensors"]);
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"weight_map": {}}"#,
            r#"{"weight_map": {"a": "../../x.safetensors"}}"#,
            r#"{"weight_map": {"a": "x.bin"}}"#,
            r#"{"weight_map": {"a": 1}}"#,
        ] {
            assert!(shards(wrong).is_err(), "{wrong}");
        }
        let many: Vec<_> = (0..=MOST_SHARDS).map(|i| format!("\"{i}\": \"{i}.safetensors\"")).collect();
        assert_eq!(
            shards(&format!("{{\"weight_map\": {{{}}}}}", many.join(","))).unwrap_err(),
            "more than 2000 files"
        );
    }
}
