//! Files of this machine that requests may name: `file:///…` below one folder that the operator chose, and nothing
//! else. Without such a folder a request can't name a file at all.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::{Error, Refusal};

/// A folder whose files may be shown to the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaRoot {
    /// Absolute, and without links.
    folder: PathBuf,
}

impl MediaRoot {
    /// Opens a folder to requests.
    ///
    /// # Errors
    /// [`Error::MediaRoot`] when it is no folder that can be read.
    pub fn new(folder: &Path) -> Result<Self, Error> {
        let fault = |reason: String| Error::MediaRoot { folder: folder.to_owned(), reason };
        let resolved = folder.canonicalize().map_err(|error| fault(error.to_string()))?;
        if !resolved.is_dir() {
            return Err(fault("it is not a folder".to_owned()));
        }
        Ok(Self { folder: resolved })
    }

    /// The bytes of a file, off the threads that serve connections. Whatever is wrong, the answer is the same, so
    /// that nobody learns what lies outside of the folder.
    pub(crate) async fn read(&self, url: &Url, limit_bytes: usize) -> Result<Vec<u8>, Refusal> {
        let path = url.to_file_path().map_err(|()| Refusal::UrlInvalid)?;
        let folder = self.folder.clone();
        let read = tokio::task::spawn_blocking(move || read_within(&folder, &path, limit_bytes));
        read.await.unwrap_or(Err(Refusal::DownloadFailed))
    }
}

fn read_within(folder: &Path, path: &Path, limit_bytes: usize) -> Result<Vec<u8>, Refusal> {
    // Resolves `..` and every link on the way, so what is compared is where the file really lies.
    let resolved = path.canonicalize().map_err(|_| Refusal::DownloadFailed)?;
    // Looked at before it is opened: opening a pipe would wait for somebody to write.
    let is_file = resolved.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
    if !resolved.starts_with(folder) || !is_file {
        return Err(Refusal::DownloadFailed);
    }
    let file = File::open(&resolved).map_err(|_| Refusal::DownloadFailed)?;
    let mut bytes = Vec::new();
    file.take(limit_bytes as u64 + 1).read_to_end(&mut bytes).map_err(|_| Refusal::DownloadFailed)?;
    if bytes.len() > limit_bytes { Err(Refusal::MediaTooLarge) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_files_below_the_folder() {
        let place = std::env::temp_dir().join(format!("ocellus-media-root-{}", uuid::Uuid::new_v4()));
        let root = place.join("root");
        std::fs::create_dir_all(root.join("a b")).unwrap();
        std::fs::create_dir_all(place.join("root-too")).unwrap();
        std::fs::write(root.join("a b/ä.png"), b"inside").unwrap();
        std::fs::write(place.join("secret"), b"outside").unwrap();
        std::fs::write(place.join("root-too/x"), b"outside").unwrap();
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(place.join("secret"), root.join("link")).unwrap();
            std::os::unix::fs::symlink(&place, root.join("up")).unwrap();
            std::os::unix::fs::symlink(root.join("a b/ä.png"), root.join("inner")).unwrap();
        }
        let media = MediaRoot::new(&root).unwrap();
        let base = Url::from_directory_path(&root).unwrap();
        let read = async |path: &str| media.read(&base.join(path).unwrap(), 6).await;

        assert_eq!(read("a%20b/%C3%A4.png").await, Ok(b"inside".to_vec()));
        assert_eq!(read("a%20b/../a%20b/%C3%A4.png").await, Ok(b"inside".to_vec()));
        #[cfg(unix)]
        assert_eq!(read("inner").await, Ok(b"inside".to_vec()));
        for path in [
            "none",
            "",
            "a%20b",
            "../secret",
            "..%2Fsecret",
            "a%20b/..%2f..%2fsecret",
            "../root-too/x",
            "link",
            "up/secret",
            "/etc/passwd",
            "/dev/zero",
            "/proc/self/environ",
            "%00",
        ] {
            let found = read(path).await;
            assert!(matches!(found, Err(Refusal::DownloadFailed | Refusal::UrlInvalid)), "{path}: {found:?}");
        }
        assert_eq!(media.read(&base.join("a%20b/%C3%A4.png").unwrap(), 5).await, Err(Refusal::MediaTooLarge));
        assert!(matches!(MediaRoot::new(&place.join("secret")), Err(Error::MediaRoot { .. })));
        assert!(matches!(MediaRoot::new(&place.join("none")), Err(Error::MediaRoot { .. })));
        std::fs::remove_dir_all(&place).unwrap();
    }
}
