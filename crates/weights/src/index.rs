//! `model.safetensors.index.json`: which file holds which tensor.

use std::{collections::BTreeMap, fmt};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use crate::{Error, Result, error::shown, source::is_plain};

/// The name of the index file.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// The files that the index names, each with its tensors in the order of the index. Every file name is the
/// name of a file in the same folder, and no tensor occurs twice.
pub(crate) fn read(text: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let index: Index = serde_json::from_str(text).map_err(|e| Error::File {
        file: INDEX.to_owned(),
        found: shown(&e.to_string()),
        expected: "a JSON object with a weight_map from tensor names to file names".to_owned(),
    })?;
    let mut pairs = index.weight_map.0;
    pairs.sort();
    let refuse = |tensor: &str, found: String, expected: &str| Error::Entry {
        tensor: shown(tensor),
        file: INDEX.to_owned(),
        found,
        expected: expected.to_owned(),
    };
    let mut files = BTreeMap::<String, Vec<String>>::new();
    let mut last: Option<String> = None;
    for (tensor, file) in pairs {
        if !is_plain(&file) {
            return Err(refuse(
                &tensor,
                format!("file \"{}\"", shown(&file)),
                "the name of a file in the same folder",
            ));
        }
        if last.as_ref() == Some(&tensor) {
            return Err(refuse(&tensor, "two entries".to_owned(), "one"));
        }
        last = Some(tensor.clone());
        files.entry(file).or_default().push(tensor);
    }
    if files.is_empty() {
        return Err(Error::File {
            file: INDEX.to_owned(),
            found: "an empty weight_map".to_owned(),
            expected: "the names of tensors and their files".to_owned(),
        });
    }
    Ok(files)
}

/// The parts of the file that matter; its total size is not among them, for libraries disagree on it.
#[derive(serde::Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// The object, entry by entry as it stands there, so that a name that occurs twice is seen.
struct WeightMap(Vec<(String, String)>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object weight_map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<WeightMap, A::Error> {
                let mut pairs = Vec::new();
                while let Some(tensor) = map.next_key::<String>()? {
                    let file = map
                        .next_value::<String>()
                        .map_err(|e| A::Error::custom(format!("{}: {e}", shown(&tensor))))?;
                    pairs.push((tensor, file));
                }
                Ok(WeightMap(pairs))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
