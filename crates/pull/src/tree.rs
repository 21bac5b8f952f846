//! The listing of a repository's files: what a hub says of them, checked. What a checkpoint does not need is passed
//! over unread.

use serde::Deserialize;

use crate::{choice, digest::Checksum, error::shown};

/// The largest small file; the largest official one, `tokenizer.json`, has 11 MB.
pub(crate) const LARGEST_SMALL: u64 = 64 << 20;
/// The largest file of weights.
const LARGEST_WEIGHTS: u64 = 1 << 40;

/// One file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) checksum: Checksum,
}

/// Reads one page of a listing. The error is what was found and what was expected.
pub(crate) fn read(page: &[u8]) -> Result<Vec<RemoteFile>, (String, String)> {
    let entries: Vec<Entry> = serde_json::from_slice(page).map_err(|error| {
        (
            format!("a listing that can't be read ({})", shown(&error.to_string())),
            "a list of files".to_owned(),
        )
    })?;
    entries.into_iter().filter_map(|entry| entry.check().transpose()).collect()
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    oid: String,
    size: u64,
}

impl Entry {
    /// `None` for what no checkpoint needs.
    fn check(self) -> Result<Option<RemoteFile>, (String, String)> {
        let small = choice::is_small(&self.path);
        if self.kind != "file" || !(small || choice::is_weights(&self.path)) {
            return Ok(None);
        }
        let (size, checksum, digits) = match &self.lfs {
            Some(large) => (large.size, Checksum::sha256(&large.oid), 64),
            None => (self.size, Checksum::git_sha1(&self.oid), 40),
        };
        let most = if small { LARGEST_SMALL } else { LARGEST_WEIGHTS };
        if size > most {
            return Err((format!("{} has {size} bytes", self.path), format!("at most {most}")));
        }
        let Some(checksum) = checksum else {
            let oid = self.lfs.map_or(self.oid, |large| large.oid);
            return Err((
                format!("{} has the checksum \"{}\"", self.path, shown(&oid)),
                format!("{digits} hexadecimal digits"),
            ));
        };
        Ok(Some(RemoteFile { name: self.path, size, checksum }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_their_sizes_and_checksums() {
        let (sha1, sha256) = ("a".repeat(40), "b".repeat(64));
        let page = format!(
            r#"[{{"type": "directory", "path": "onnx", "oid": "x", "size": 0}},
                {{"type": "file", "path": "config.json", "oid": "{sha1}", "size": 7}},
                {{"type": "file", "path": "model.safetensors", "oid": "{sha1}", "size": 9, "xetHash": "y",
                  "lfs": {{"oid": "{sha256}", "size": 9, "pointerSize": 134}}}},
                {{"type": "file", "path": "pytorch_model.bin", "oid": "?", "size": 18446744073709551615}},
                {{"type": "file", "path": "../config.json", "oid": "{sha1}", "size": 7}}]"#
        );
        let found = read(page.as_bytes()).unwrap();
        let expected = [
            RemoteFile { name: "config.json".into(), size: 7, checksum: Checksum::GitSha1(sha1) },
            RemoteFile { name: "model.safetensors".into(), size: 9, checksum: Checksum::Sha256(sha256) },
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn nonsense_is_refused() {
        let refused = |page: &str, part: &str| {
            let (found, expected) = read(page.as_bytes()).unwrap_err();
            assert!(found.contains(part), "{page}: {found}, expected {expected}");
        };
        refused("", "can't be read");
        refused("{}", "can't be read");
        refused(r#"[{"type": "file", "path": "config.json", "oid": "../../x", "size": 7}]"#, "\"../../x\"");
        refused(r#"[{"type": "file", "path": "config.json", "size": 7}]"#, "checksum \"\"");
        refused(
            r#"[{"type": "file", "path": "config.json", "oid": "a", "size": 67108865}]"#,
            "67108865 bytes",
        );
        refused(r#"[{"type": "file", "path": "config.json", "oid": "a", "size": -1}]"#, "can't be read");
    }
}
