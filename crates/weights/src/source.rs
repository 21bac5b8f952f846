//! Where the files of a model come from: a folder, or the binary itself.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use ocellus_kernels::HostBytes;

use crate::{Error, Result, error::shown, mmap};

/// The largest text file that is read. The largest official one, `tokenizer.json`, has 11 MB.
const LARGEST_TEXT_BYTES: u64 = 64 << 20;

/// The files of one model. Cheap to clone; nothing is read before it is asked for.
#[derive(Clone)]
pub struct Source {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Folder(PathBuf),
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl Source {
    /// The files of a folder. Whether the folder exists is seen when the first file is read.
    ///
    /// The weight files are memory-mapped: they must not be written to or truncated while the model is in use.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self { kind: Kind::Folder(path.into()) }
    }

    /// Files that are part of the binary: their names and their bytes.
    pub fn embedded(files: &'static [(&'static str, &'static [u8])]) -> Self {
        Self { kind: Kind::Embedded(files) }
    }

    /// The file called `name` as text, `None` when there is no such file.
    ///
    /// # Errors
    /// [`Error::Folder`] when the folder itself is missing; [`Error::File`] when the file can't be read, is
    /// larger than 64 MiB, or is not UTF-8.
    pub fn read_text(&self, name: &str) -> Result<Option<String>> {
        let bytes = match &self.kind {
            Kind::Embedded(files) => find(files, name).map(<[u8]>::to_vec),
            Kind::Folder(folder) => match open(folder, name)? {
                Some(file) => Some(read_bounded(name, file)?),
                None => None,
            },
        };
        let Some(bytes) = bytes else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|e| {
            wrong(name, format!("invalid UTF-8 after byte {}", e.utf8_error().valid_up_to()), "text")
        })?;
        // Some editors write a byte order mark; no JSON parser wants one.
        Ok(Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)))
    }

    /// How messages call this source: the path of the folder, or `the embedded model`.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Folder(path) => shown(&path.display().to_string()),
            Kind::Embedded(_) => "the embedded model".to_owned(),
        }
    }

    /// The file called `name` as memory, `None` when there is no such file.
    pub(crate) fn map(&self, name: &str) -> Result<Option<HostBytes>> {
        match &self.kind {
            Kind::Embedded(files) => Ok(find(files, name).map(|bytes| HostBytes::new(Arc::new(bytes)))),
            Kind::Folder(folder) => match open(folder, name)? {
                Some(file) => {
                    Ok(Some(mmap::map(&file).map_err(|e| wrong(name, e.to_string(), "a readable file"))?))
                }
                None => Ok(None),
            },
        }
    }

    /// Whether there is a file called `name`.
    pub(crate) fn contains(&self, name: &str) -> bool {
        match &self.kind {
            Kind::Embedded(files) => find(files, name).is_some(),
            Kind::Folder(folder) => is_plain(name) && folder.join(name).exists(),
        }
    }

    /// The names of all files, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = match &self.kind {
            Kind::Embedded(files) => files.iter().map(|(name, _)| (*name).to_owned()).collect(),
            Kind::Folder(folder) => {
                check_folder(folder)?;
                let entries = fs::read_dir(folder).map_err(|e| unusable(folder, e.to_string()))?;
                entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
            }
        };
        names.sort();
        Ok(names)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.describe())
    }
}

/// Whether `name` is the name of a file in the folder itself: no separator, no drive, not `..`, not empty,
/// and not longer than file systems allow.
pub(crate) fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let one = matches!(parts.next(), Some(std::path::Component::Normal(_))) && parts.next().is_none();
    one && name.len() <= 255 && !name.contains(['/', '\\', '\0'])
}

fn find(files: &'static [(&'static str, &'static [u8])], name: &str) -> Option<&'static [u8]> {
    files.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes)
}

/// Opens a regular file of the folder, following links: a model cache is a folder of links.
fn open(folder: &Path, name: &str) -> Result<Option<File>> {
    if !is_plain(name) {
        return Err(wrong(name, "a path".to_owned(), "the name of a file in the folder"));
    }
    let path = folder.join(name);
    let unreadable = |e: io::Error| wrong(name, e.to_string(), "a readable file");
    match fs::metadata(&path) {
        // Anything but a regular file is refused before it is opened: opening a pipe would wait for ever.
        Ok(found) if !found.is_file() => {
            let found = if found.is_dir() { "a folder" } else { "a device or pipe" };
            Err(wrong(name, found.to_owned(), "a file"))
        }
        Ok(_) => File::open(&path).map(Some).map_err(unreadable),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            check_folder(folder)?;
            match fs::symlink_metadata(&path) {
                Ok(_) => Err(wrong(name, "a link to a file that does not exist".to_owned(), "a file")),
                Err(_) => Ok(None),
            }
        }
        Err(e) => {
            check_folder(folder)?;
            Err(unreadable(e))
        }
    }
}

fn check_folder(folder: &Path) -> Result<()> {
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(unusable(folder, format!("{}, not a folder", kind_of_file(folder)))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(unusable(folder, "does not exist".to_owned())),
        Err(e) => Err(unusable(folder, e.to_string())),
    }
}

/// People pass the weight file itself, as other engines want it: say what it is.
fn kind_of_file(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("gguf") => "a GGUF file",
        Some("safetensors") => "a safetensors file",
        _ => "a file",
    }
}

fn read_bounded(name: &str, file: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed shows that there is more.
    let read = file.take(LARGEST_TEXT_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|e| wrong(name, e.to_string(), "a readable file"))?;
    if bytes.len() as u64 > LARGEST_TEXT_BYTES {
        return Err(wrong(
            name,
            format!("more than {LARGEST_TEXT_BYTES} bytes"),
            "a text file of at most that size",
        ));
    }
    Ok(bytes)
}

fn wrong(name: &str, found: String, expected: &str) -> Error {
    Error::File { file: shown(name), found, expected: expected.to_owned() }
}

fn unusable(folder: &Path, found: String) -> Error {
    Error::Folder { folder: shown(&folder.display().to_string()), found }
}
