//! The layout of the cache, as Python's `huggingface_hub` has it:
//!
//! ```text
//! <cache>/models--owner--name/blobs/<checksum>             contents, each once
//!                             blobs/<checksum>.incomplete  what has arrived so far
//!                             snapshots/<commit>/<file>    links to ../../blobs/<checksum>
//!                             refs/<revision>              the commit that a branch or tag was last seen at
//!                             trees/<commit>.json          what Python knows of a commit's files; only read here
//! <cache>/.locks/models--owner--name/<checksum>.lock       who has it writes the content
//! ```
//!
//! Parts have the name that Python's library gave them as long as it went on with them; since it gives each process a
//! part of its own (`<checksum>.<process>.incomplete`) and starts anew, ours are left alone by it, and its own by us. A
//! content gets its name only when it is whole and checked. Where links can't be made, snapshots hold the files
//! themselves.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    Error, RepositoryName, Settings,
    choice::{self, CONFIG, INDEX, SINGLE},
    digest::{Checksum, is_hex},
    tree::{LARGEST_SMALL, RemoteFile},
};

/// A checkpoint on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder with its files.
    pub folder: PathBuf,
    /// Which commit of the repository it is.
    pub commit: String,
}

/// What backup programs look for, to leave caches out (bford.info/cachedir).
const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This file is a cache directory tag. For information about cache directory tags, see:\n\
    #\thttps://bford.info/cachedir/\n";

/// One repository's part of the cache.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    cache: PathBuf,
    folder: PathBuf,
    locks: PathBuf,
    links: bool,
}

impl Repository {
    pub(crate) fn new(name: &RepositoryName, settings: &Settings) -> Self {
        Self {
            cache: settings.cache.clone(),
            folder: settings.cache.join(name.folder()),
            locks: settings.cache.join(".locks").join(name.folder()),
            links: settings.links,
        }
    }

    /// The snapshot that `revision` was last seen at, if everything that a checkpoint needs is there.
    pub(crate) fn whole(&self, revision: &str) -> Option<Snapshot> {
        let commit = if is_hex(revision, 40) { revision.to_owned() } else { self.reference(revision)? };
        let folder = self.snapshot(&commit);
        let there = |name: &str| {
            fs::metadata(folder.join(name)).is_ok_and(|found| found.is_file() && found.len() > 0)
        };
        // Small files come before the weights, so where all weights are everything is.
        let weights = match read_text(&folder.join(INDEX)) {
            Some(index) => choice::shards(&index).is_ok_and(|shards| shards.iter().all(|shard| there(shard))),
            None => there(SINGLE),
        };
        // Python leaves files in any order, but also a listing that tells what is to come.
        let small = there(CONFIG) && (there("tokenizer.json") || there("vocab.json"));
        let listed = read_text(&self.folder.join("trees").join(format!("{commit}.json")));
        let listed: serde_json::Value =
            listed.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let names = listed["files"].as_object().into_iter().flatten().map(|(name, _)| name);
        let complete = names.filter(|name| choice::is_small(name)).all(|name| folder.join(name).is_file());
        (weights && small && complete).then_some(Snapshot { folder, commit })
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn blob(&self, checksum: &Checksum) -> PathBuf {
        self.folder.join("blobs").join(checksum.digits())
    }

    /// What has arrived of a content; of this process alone where there are no locks.
    pub(crate) fn part(&self, checksum: &Checksum, alone: bool) -> PathBuf {
        let process = if alone { format!(".{}", unique()) } else { String::new() };
        self.folder.join("blobs").join(format!("{checksum}{process}.incomplete"))
    }

    pub(crate) fn lock(&self, checksum: &Checksum) -> PathBuf {
        self.locks.join(format!("{checksum}.lock"))
    }

    /// Bytes of `file` that are here: all of them, or those of its part.
    pub(crate) fn present(&self, commit: &str, file: &RemoteFile) -> u64 {
        let whole = self.has_pointer(commit, file) || self.has_blob(file);
        let part = || fs::metadata(self.part(&file.checksum, false)).map_or(0, |part| part.len());
        if whole { file.size } else { part().min(file.size) }
    }

    pub(crate) fn has_pointer(&self, commit: &str, file: &RemoteFile) -> bool {
        has_size(&self.snapshot(commit).join(&file.name), file.size)
    }

    pub(crate) fn has_blob(&self, file: &RemoteFile) -> bool {
        has_size(&self.blob(&file.checksum), file.size)
    }

    /// The text of a small file of a snapshot.
    pub(crate) fn text(&self, commit: &str, name: &str) -> Option<String> {
        read_text(&self.snapshot(commit).join(name))
    }

    /// Opens what a snapshot has under the name of `file`, or the content that it will have.
    pub(crate) fn open(&self, commit: &str, file: &RemoteFile) -> io::Result<File> {
        File::open(self.snapshot(commit).join(&file.name)).or_else(|_| File::open(self.blob(&file.checksum)))
    }

    /// Forgets a file whose content is wrong.
    pub(crate) fn remove(&self, commit: &str, file: &RemoteFile) -> Result<(), Error> {
        for path in [self.snapshot(commit).join(&file.name), self.blob(&file.checksum)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::cache(&path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the folders that everything else is written into.
    pub(crate) fn create(&self, commit: &str) -> Result<(), Error> {
        for folder in [self.folder.join("blobs"), self.snapshot(commit)] {
            fs::create_dir_all(&folder).map_err(Error::cache(&folder))?;
        }
        let tag = self.cache.join("CACHEDIR.TAG");
        if !tag.exists() {
            // Without it everything works but a backup.
            let _ = fs::write(&tag, TAG);
        }
        Ok(())
    }

    /// Gives a content its name in a snapshot. `fresh`: no other snapshot has it yet.
    pub(crate) fn link(&self, commit: &str, file: &RemoteFile, fresh: bool) -> Result<(), Error> {
        let pointer = self.snapshot(commit).join(&file.name);
        let blob = self.blob(&file.checksum);
        let partial = pointer.with_file_name(format!(".{}.{}.tmp", file.name, unique()));
        let linked = || -> io::Result<()> {
            if self.links {
                let _ = fs::remove_file(&partial);
                if symlink(&Path::new("../../blobs").join(file.checksum.digits()), &partial).is_ok() {
                    return fs::rename(&partial, &pointer);
                }
            }
            // No links here: what nobody else needs is moved, and everything else copied.
            if fresh {
                return fs::rename(&blob, &pointer);
            }
            fs::copy(&blob, &partial)?;
            fs::rename(&partial, &pointer)
        };
        linked().map_err(Error::cache(&pointer))
    }

    /// The commit that a branch or a tag was last seen at.
    fn reference(&self, revision: &str) -> Option<String> {
        let mut text = String::new();
        File::open(self.reference_path(revision)).ok()?.take(64).read_to_string(&mut text).ok()?;
        let commit = text.trim();
        is_hex(commit, 40).then(|| commit.to_owned())
    }

    /// Remembers it. Readers see the old commit or the new one.
    pub(crate) fn set_reference(&self, revision: &str, commit: &str) -> Result<(), Error> {
        if revision == commit || self.reference(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.reference_path(revision);
        let written = || -> io::Result<()> {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{}.tmp", unique()));
            let partial = path.with_file_name(name);
            File::create(&partial)?.write_all(commit.as_bytes())?;
            fs::rename(&partial, &path)
        };
        written().map_err(Error::cache(&path))
    }

    fn reference_path(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }
}

/// Part of a name that no other file has: of this process, and of this call.
fn unique() -> String {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    format!("{:08x}-{:x}", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed))
}

fn has_size(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == size)
}

fn read_text(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(LARGEST_SMALL).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn repository(folder: &Path, links: bool) -> Repository {
        let variable = |name: &str| match name {
            "HF_HUB_CACHE" => folder.to_str().map(str::to_owned),
            "HF_HUB_DISABLE_SYMLINKS" => Some(u8::from(!links).to_string()),
            _ => None,
        };
        Repository::new(&"a/b".parse().unwrap(), &Settings::from_variables(&variable).unwrap())
    }

    fn put(repository: &Repository, name: &str, content: &str, fresh: bool) -> RemoteFile {
        let digits = format!("{:064x}", content.len());
        let file = RemoteFile {
            name: name.to_owned(),
            size: content.len() as u64,
            checksum: Checksum::sha256(&digits).unwrap(),
        };
        repository.create(COMMIT).unwrap();
        fs::write(repository.blob(&file.checksum), content).unwrap();
        repository.link(COMMIT, &file, fresh).unwrap();
        file
    }

    #[test]
    fn a_snapshot_is_whole_with_all_its_weights() {
        let folder = tempfile::tempdir().unwrap();
        let repository = repository(folder.path(), true);
        assert_eq!(repository.whole("main"), None);
        put(&repository, CONFIG, "{}", true);
        put(&repository, "vocab.json", "{   }", true);
        put(&repository, INDEX, r#"{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}"#, true);
        put(&repository, "a.safetensors", "aaa", true);
        repository.set_reference("main", COMMIT).unwrap();
        assert_eq!(repository.whole("main"), None);
        let last = put(&repository, "b.safetensors", "bbbb", true);
        let snapshot = Snapshot {
            folder: folder.path().join("models--a--b/snapshots").join(COMMIT),
            commit: COMMIT.to_owned(),
        };
        assert_eq!(repository.whole("main"), Some(snapshot.clone()));
        assert_eq!(repository.whole(COMMIT), Some(snapshot));
        assert_eq!(repository.whole("other"), None);
        // Python's listing names a file that is not there yet.
        let trees = folder.path().join("models--a--b/trees");
        fs::create_dir_all(&trees).unwrap();
        let listing = trees.join(format!("{COMMIT}.json"));
        fs::write(&listing, r#"{"files": {"README.md": {}, "generation_config.json": {}}}"#).unwrap();
        assert_eq!(repository.whole("main"), None);
        fs::write(&listing, r#"{"files": {"README.md": {}, "config.json": {}}}"#).unwrap();
        assert!(repository.whole("main").is_some());
        // A link whose content is gone.
        fs::remove_file(repository.blob(&last.checksum)).unwrap();
        assert_eq!(repository.whole("main"), None);
        // A reference to anything but a commit.
        fs::write(folder.path().join("models--a--b/refs/main"), "../../../x").unwrap();
        assert_eq!(repository.whole("main"), None);
        assert!(folder.path().join("CACHEDIR.TAG").is_file());
    }

    #[test]
    #[cfg(unix)]
    fn links_are_relative_and_files_where_there_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let linked = repository(folder.path(), true);
        let file = put(&linked, CONFIG, "{}", true);
        let pointer = linked.snapshot(COMMIT).join(CONFIG);
        let target = fs::read_link(&pointer).unwrap();
        assert_eq!(target, Path::new("../../blobs").join(file.checksum.digits()));
        assert_eq!(fs::read_to_string(&pointer).unwrap(), "{}");

        let plain = repository(folder.path(), false);
        put(&plain, CONFIG, "{ }", true);
        assert!(fs::read_link(&pointer).is_err() && fs::read_to_string(&pointer).unwrap() == "{ }");
        let kept = put(&plain, INDEX, "1234", false);
        assert!(plain.has_blob(&kept) && plain.has_pointer(COMMIT, &kept));
        assert_eq!(plain.present(COMMIT, &kept), 4);
        plain.remove(COMMIT, &kept).unwrap();
        plain.remove(COMMIT, &kept).unwrap();
        assert_eq!(plain.present(COMMIT, &kept), 0);
        fs::write(plain.part(&kept.checksum, false), "12").unwrap();
        assert_eq!(plain.present(COMMIT, &kept), 2);
    }

    #[test]
    fn references_in_folders_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let repository = repository(folder.path(), true);
        repository.set_reference("refs/pr/1", COMMIT).unwrap();
        repository.set_reference("v1.0", COMMIT).unwrap();
        repository.set_reference(COMMIT, COMMIT).unwrap();
        assert_eq!(repository.reference("refs/pr/1").as_deref(), Some(COMMIT));
        let names: Vec<_> = fs::read_dir(folder.path().join("models--a--b/refs"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
