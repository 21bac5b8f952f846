//! Files that clients send ahead of a request: kept on disk for a while, each readable with the key it came with alone.
//!
//! A client first asks for a [`Certificate`], which is a signed statement of where it may put files and until when;
//! with it anybody can send a file, as the DashScope SDKs do without a key. What a client calls its file is only ever
//! compared, never a path on this machine.

mod certificate;
mod form;
mod public_url;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

pub(crate) use certificate::{ACCESS_KEY_ID, Certificate, Claim};
pub(crate) use form::receive;
pub use public_url::PublicUrl;

use crate::{Refusal, dashscope, key};
use certificate::Secret;

/// What all uploads together are bounded by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most bytes of one file. The hosted bound.
    pub(crate) file_bytes: u64,
    /// Most bytes of one owner's files.
    pub(crate) owner_bytes: u64,
    /// Most bytes of all files.
    pub(crate) all_bytes: u64,
    /// How long a certificate is good.
    pub(crate) certificate: Duration,
    /// How long a file is kept.
    pub(crate) kept: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 100 << 20,
            owner_bytes: 1 << 30,
            all_bytes: 4 << 30,
            certificate: Duration::from_secs(300),
            kept: Duration::from_secs(48 * 3600),
        }
    }
}

/// Counted for each file besides its bytes, so that empty files are not free.
const OVERHEAD_BYTES: u64 = 4096;

/// Forms at the same time; further ones are refused.
const PLACES: usize = 32;

/// Whose a file is: a keyed digest of the API key, which tells nothing about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner(String);

/// The files.
#[derive(Debug)]
pub(crate) struct Uploads {
    limits: Limits,
    secret: Secret,
    store: Mutex<Store>,
    /// Forms that may come in at the same time. They come without a key, so they must not take the places of requests
    /// that have one.
    places: Semaphore,
}

#[derive(Debug, Default)]
struct Store {
    /// Made for the first file; it and all in it go when this is dropped.
    folder: Option<TempDir>,
    objects: HashMap<String, Object>,
    /// Bytes of all files, those still coming in included, by owner and together.
    charged: HashMap<Owner, u64>,
    total: u64,
    /// Names on disk are numbers.
    next_name: u64,
}

#[derive(Debug)]
struct Object {
    owner: Owner,
    path: PathBuf,
    bytes: u64,
    digest: [u8; 32],
    expires: Instant,
    /// Read at least once: may go first when space is short.
    used: bool,
}

impl Uploads {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            secret: Secret::new(),
            store: Mutex::default(),
            places: Semaphore::new(PLACES),
        })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A place for a form, while there are any.
    pub(crate) fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.try_acquire().ok()
    }

    /// Whose the files are that are sent, or asked for, with these headers.
    pub(crate) fn owner(&self, headers: &HeaderMap) -> Owner {
        Owner(self.secret.sign(&key::given(headers.get(AUTHORIZATION))))
    }

    /// The owner whose files a request may name: none, unless it says that it means them to be looked up.
    pub(crate) fn reader(&self, headers: &HeaderMap) -> Option<Owner> {
        dashscope::enabled(headers, "x-dashscope-ossresourceresolve").then(|| self.owner(headers))
    }

    /// Permission to upload into a new folder.
    pub(crate) fn certify(&self, owner: Owner) -> Certificate {
        Certificate::new(&self.secret, owner, &self.limits)
    }

    /// Starts a file. Until [`Incoming::finish`] nobody sees it; dropped before, it is gone.
    pub(crate) async fn start(self: &Arc<Self>, claim: &Claim) -> Result<Incoming, Refusal> {
        let permitted = claim.check(&self.secret)?;
        let path = {
            let mut store = self.store();
            let folder = match &store.folder {
                Some(folder) => folder.path().to_owned(),
                None => {
                    let folder = make_folder().map_err(failure)?;
                    store.folder.insert(folder).path().to_owned()
                }
            };
            store.next_name += 1;
            store.charge(&permitted.owner, OVERHEAD_BYTES);
            folder.join(store.next_name.to_string())
        };
        // From here on dropping it takes the charge back.
        let mut incoming = Incoming {
            uploads: self.clone(),
            key: claim.key.clone(),
            owner: permitted.owner,
            limit_bytes: permitted.file_bytes.min(self.limits.file_bytes),
            path,
            bytes: 0,
            hash: Sha256::new(),
            file: None,
            kept: false,
        };
        incoming.grow(0)?;
        incoming.file = Some(tokio::fs::File::create_new(&incoming.path).await.map_err(failure)?);
        Ok(incoming)
    }

    /// The bytes of a file that this owner uploaded. Another owner's is as unknown as one that never was.
    pub(crate) async fn read(
        &self,
        key: &str,
        owner: &Owner,
        limit_bytes: usize,
    ) -> Result<Vec<u8>, Refusal> {
        let mut file = {
            let mut store = self.store();
            store.sweep(Instant::now());
            let object = store.objects.get_mut(key).filter(|object| object.owner == *owner);
            let object = object.ok_or(Refusal::DownloadFailed)?;
            if object.bytes > limit_bytes as u64 {
                return Err(Refusal::MediaTooLarge);
            }
            object.used = true;
            // Opened before the lock is gone, it can be read even if it is deleted meanwhile.
            File::open(&object.path).map_err(failure)?
        };
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map(|_| bytes)
        });
        read.await.map_err(failure)?.map_err(failure)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // No code under the lock leaves the store half changed.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Deletes what has expired.
    fn sweep(&mut self, now: Instant) {
        let expired = self.objects.iter().filter(|(_, object)| object.expires <= now);
        let expired: Vec<String> = expired.map(|(key, _)| key.clone()).collect();
        for key in expired {
            self.delete(&key);
        }
    }

    /// Whether everything is within the limits; files that were used already make room, the oldest first.
    fn make_room(&mut self, owner: &Owner, limits: &Limits) -> bool {
        loop {
            let of_owner = self.charged.get(owner).is_some_and(|bytes| *bytes > limits.owner_bytes);
            if !of_owner && self.total <= limits.all_bytes {
                return true;
            }
            let may_go = |object: &Object| object.used && (!of_owner || object.owner == *owner);
            let candidates = self.objects.iter().filter(|(_, object)| may_go(object));
            let oldest = candidates.min_by_key(|(_, object)| object.expires).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { return false };
            self.delete(&oldest);
        }
    }

    fn delete(&mut self, key: &str) {
        let Some(object) = self.objects.remove(key) else { return };
        self.discharge(&object.owner, object.bytes + OVERHEAD_BYTES);
        if let Err(error) = std::fs::remove_file(&object.path) {
            tracing::warn!(%error, "an uploaded file could not be deleted");
        }
    }

    fn charge(&mut self, owner: &Owner, bytes: u64) {
        *self.charged.entry(owner.clone()).or_default() += bytes;
        self.total += bytes;
    }

    fn discharge(&mut self, owner: &Owner, bytes: u64) {
        self.total = self.total.saturating_sub(bytes);
        if let Some(charged) = self.charged.get_mut(owner) {
            *charged = charged.saturating_sub(bytes);
            if *charged == 0 {
                self.charged.remove(owner);
            }
        }
    }
}

/// A file on its way in.
pub(crate) struct Incoming {
    uploads: Arc<Uploads>,
    key: String,
    owner: Owner,
    limit_bytes: u64,
    path: PathBuf,
    bytes: u64,
    hash: Sha256,
    file: Option<tokio::fs::File>,
    /// The path belongs to an object now.
    kept: bool,
}

impl Incoming {
    /// Appends.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.grow(bytes.len() as u64)?;
        self.hash.update(bytes);
        match &mut self.file {
            Some(file) => file.write_all(bytes).await.map_err(failure),
            None => Err(Refusal::EngineFailure),
        }
    }

    /// Makes the file known under its key. The same bytes may come twice, because clients send a file as often as a
    /// request names it.
    pub(crate) async fn finish(mut self) -> Result<(), Refusal> {
        if let Some(mut file) = self.file.take() {
            file.flush().await.map_err(failure)?;
        }
        let digest: [u8; 32] = std::mem::take(&mut self.hash).finalize().into();
        let expires = Instant::now() + self.uploads.limits.kept;
        {
            let mut store = self.uploads.store();
            store.sweep(Instant::now());
            if let Some(object) = store.objects.get_mut(&self.key) {
                let same = object.digest == digest && object.owner == self.owner;
                return if same { Ok(()) } else { Err(Refusal::UploadExists) };
            }
            let object = Object {
                owner: self.owner.clone(),
                path: self.path.clone(),
                bytes: self.bytes,
                digest,
                expires,
                used: false,
            };
            store.objects.insert(self.key.clone(), object);
        }
        self.kept = true;
        tokio::spawn(delete_at(Arc::downgrade(&self.uploads), expires));
        Ok(())
    }

    /// Charges bytes before they are written.
    fn grow(&mut self, bytes: u64) -> Result<(), Refusal> {
        if bytes > self.limit_bytes.saturating_sub(self.bytes) {
            let limit_bytes = usize::try_from(self.limit_bytes).unwrap_or(usize::MAX);
            return Err(Refusal::BodyTooLarge { limit_bytes });
        }
        let mut store = self.uploads.store();
        self.bytes += bytes;
        store.charge(&self.owner, bytes);
        if store.make_room(&self.owner, &self.uploads.limits) { Ok(()) } else { Err(Refusal::UploadsFull) }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.kept {
            self.uploads.store().discharge(&self.owner, self.bytes + OVERHEAD_BYTES);
            // It may never have been made.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A folder for files, which other users of this machine can't look into.
fn make_folder() -> std::io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("ocellus-uploads-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    builder.tempdir()
}

/// Deletes a file when its time has come, even if nobody ever asks for anything again.
async fn delete_at(uploads: Weak<Uploads>, time: Instant) {
    tokio::time::sleep_until(time).await;
    if let Some(uploads) = uploads.upgrade() {
        uploads.store().sweep(Instant::now());
    }
}

/// This machine's fault; the client learns nothing of its folders.
fn failure(error: impl std::fmt::Display) -> Refusal {
    tracing::error!(%error, "an uploaded file");
    Refusal::EngineFailure
}

#[cfg(test)]
mod tests;
