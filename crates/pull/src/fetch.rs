//! One file: from what has arrived of it to its checked place in a snapshot.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::StreamExt;

use crate::{
    Clock, Error, Event, Progress, RepositoryName,
    cache::Repository,
    digest::Hasher,
    error::bytes,
    hub::{Attempts, Content, Failure, Hub, Opened, Trouble},
    lock,
    retry::MOST_ATTEMPTS,
    tree::RemoteFile,
};

/// What the files of one download share.
pub(crate) struct Job {
    pub(crate) name: RepositoryName,
    pub(crate) hub: Hub,
    pub(crate) repository: Repository,
    pub(crate) commit: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) progress: Arc<Progress>,
}

impl Job {
    /// Brings the file into the snapshot, unless it is there.
    pub(crate) async fn fetch(&self, file: &RemoteFile) -> Result<(), Error> {
        if self.repository.has_pointer(&self.commit, file) {
            return Ok(());
        }
        let path = self.repository.lock(&file.checksum);
        let waiting = || {
            self.note(&format!(
                "{}: another download is fetching the same content, waiting for that",
                file.name
            ))
        };
        let lock = lock::acquire(&path, &*self.clock, &waiting).await.map_err(Error::cache(&path))?;
        // Meanwhile the other process may have done it.
        if self.repository.has_pointer(&self.commit, file) {
            self.event(Event::Received(file.size));
            return Ok(());
        }
        let fresh = !self.repository.has_blob(file);
        if fresh {
            let part = Part::open(self.repository.part(&file.checksum, lock.is_none()))?;
            self.fill(part, file).await?;
        }
        self.repository.link(&self.commit, file, fresh)
    }

    /// Fetches the content, a second time if the first was wrong, and gives it its name.
    async fn fill(&self, mut part: Part, file: &RemoteFile) -> Result<(), Error> {
        let mut again = true;
        loop {
            let found = self.complete(&mut part, file).await?;
            if found == file.checksum.digits() {
                let blob = self.repository.blob(&file.checksum);
                return part.finish(&blob);
            }
            if !again {
                // What is wrong must not be gone on with at the next start.
                part.discard()?;
                let (name, expected) = (self.name.to_string(), file.checksum.to_string());
                return Err(Error::Corrupt { name, file: file.name.clone(), found, expected });
            }
            again = false;
            self.note(&format!(
                "{}: what arrived has the checksum {found}, expected {}; it is deleted and fetched again",
                file.name, file.checksum
            ));
            self.event(Event::Discarded(part.length));
            part.clear()?;
        }
    }

    /// Adds to the part until it has the file's size, and gives its checksum.
    async fn complete(&self, part: &mut Part, file: &RemoteFile) -> Result<String, Error> {
        if part.length > file.size {
            self.event(Event::Discarded(file.size));
            part.clear()?;
        }
        let mut hasher = file.checksum.hasher(file.size);
        // Reading what is here takes a while for large files; other downloads go on meanwhile.
        tokio::task::block_in_place(|| part.hash(&mut hasher))?;
        let mut attempts = Attempts::default();
        while part.length < file.size {
            let before = part.length;
            let failure = match self.hub.open(&self.commit, file, part.length).await {
                Ok(Opened::Content(content)) => {
                    if content.start < part.length {
                        // The server knows no offsets.
                        self.event(Event::Discarded(part.length));
                        part.clear()?;
                        hasher = file.checksum.hasher(file.size);
                    }
                    self.receive(content, part, &mut hasher, file).await
                }
                Ok(Opened::NoSuchOffset) => {
                    self.event(Event::Discarded(part.length));
                    part.clear()?;
                    hasher = file.checksum.hasher(file.size);
                    Err(Failure::Again(Trouble::Server(416, None)))
                }
                Err(failure) => Err(failure),
            };
            if part.length > before {
                attempts = Attempts::default();
            }
            match failure {
                Ok(()) => {}
                Err(Failure::Again(trouble)) => self.hub.pause(&mut attempts, trouble, MOST_ATTEMPTS).await?,
                Err(Failure::Final(error)) => return Err(error),
            }
        }
        Ok(hasher.digits())
    }

    /// Writes what one answer brings.
    async fn receive(
        &self,
        content: Content,
        part: &mut Part,
        hasher: &mut Hasher,
        file: &RemoteFile,
    ) -> Result<(), Failure> {
        let mut pieces = content.response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| Failure::Again(self.hub.broken(error)))?;
            // More than the listing says is dropped; the checksum tells whether the rest is right.
            let wanted = usize::try_from(file.size - part.length).unwrap_or(usize::MAX).min(piece.len());
            part.append(&piece[..wanted]).map_err(|error| self.unwritten(part, file, error))?;
            hasher.update(&piece[..wanted]);
            self.event(Event::Received(wanted as u64));
            if part.length == file.size {
                return Ok(());
            }
        }
        Err(Failure::Again(self.hub.ended_early()))
    }

    fn unwritten(&self, part: &Part, file: &RemoteFile, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull {
                path: part.path.display().to_string(),
                file: file.name.clone(),
                missing: bytes(file.size - part.length),
            },
            _ => Error::cache(&part.path)(error),
        }
    }

    pub(crate) fn note(&self, text: &str) {
        self.event(Event::Note(text));
    }

    fn event(&self, event: Event<'_>) {
        (self.progress)(event);
    }
}

/// What has arrived of a file. Whoever has it open holds the lock of the content.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Part {
    fn open(path: PathBuf) -> Result<Self, Error> {
        let open = || -> io::Result<(File, u64)> {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let length = file.seek(SeekFrom::End(0))?;
            Ok((file, length))
        };
        let (file, length) = open().map_err(Error::cache(&path))?;
        Ok(Self { path, file, length })
    }

    /// Computes over all that is here, and stands at the end of it afterwards.
    fn hash(&mut self, hasher: &mut Hasher) -> Result<(), Error> {
        let mut read = || -> io::Result<u64> {
            self.file.seek(SeekFrom::Start(0))?;
            hasher.read(&mut self.file)
        };
        self.length = read().map_err(Error::cache(&self.path))?;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half a piece may have been written.
                if let Ok(length) = self.file.seek(SeekFrom::End(0)) {
                    self.length = length;
                }
                Err(error)
            }
        }
    }

    fn clear(&mut self) -> Result<(), Error> {
        let cleared = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.map_err(Error::cache(&self.path))?;
        self.length = 0;
        Ok(())
    }

    fn discard(self) -> Result<(), Error> {
        fs::remove_file(&self.path).map_err(Error::cache(&self.path))
    }

    /// On the disk first, so that a name never stands for a content that a power cut has taken.
    fn finish(self, to: &Path) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::cache(&self.path))?;
        fs::rename(&self.path, to).map_err(Error::cache(to))
    }
}
