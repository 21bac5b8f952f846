//! A whole checkpoint: what is needed, whether it fits on the disk, and all of it at once.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{runtime::Runtime, sync::Semaphore, task::JoinSet};

use crate::{
    Clock, Error, RepositoryName, Settings, Snapshot, SystemClock,
    cache::Repository,
    choice::{self, CONFIG, INDEX, SINGLE},
    error::bytes,
    fetch::Job,
    hub::Hub,
    space,
    tree::RemoteFile,
};

/// Room that stays free beside the files, for links and folders.
const SPARE_BYTES: u64 = 1 << 20;

/// How to download.
#[derive(Clone)]
pub struct Options {
    /// Files at the same time, at least one.
    pub parallel: usize,
    /// Compute the checksums of files that are here already, too.
    pub verify: bool,
    /// What waits between attempts.
    pub clock: Arc<dyn Clock>,
    /// Who is told.
    pub progress: Arc<Progress>,
    /// Who may still decline when the small files are there and before the weights come.
    pub before_weights: Option<Arc<BeforeWeights>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            parallel: 4,
            verify: false,
            clock: Arc::new(SystemClock),
            progress: Arc::new(|_| {}),
            before_weights: None,
        }
    }
}

/// Looks at the folder with the small files, and at the bytes of all weights; the error says why they are not wanted.
pub type BeforeWeights = dyn Fn(&Path, u64) -> Result<(), String> + Send + Sync;

/// Hears what happens, from any thread.
pub type Progress = dyn Fn(Event<'_>) + Send + Sync;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// What there is to do is known.
    Planned {
        /// Files of the checkpoint.
        files: usize,
        /// Bytes of all of them.
        bytes: u64,
        /// Bytes of them that are here already.
        present: u64,
    },
    /// So many bytes more are here.
    Received(u64),
    /// So many bytes that were here are of no use.
    Discarded(u64),
    /// A sentence for the user.
    Note(&'a str),
}

/// What a download would bring.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the files would be, and of which commit.
    pub snapshot: Snapshot,
    /// The files, the large ones at the end.
    pub files: Vec<FilePlan>,
    /// The content of `config.json`, which tells the model's size.
    pub config: String,
    /// Bytes that the disk has room for, where that is known.
    pub free: Option<u64>,
}

/// One file of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlan {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// Those of them that are here.
    pub present: u64,
}

/// The whole snapshot that lies in the cache, without asking anybody.
pub fn cached(name: &RepositoryName, settings: &Settings) -> Option<Snapshot> {
    Repository::new(name, settings).whole(name.revision())
}

/// Looks at the hub and at the cache and says what a download would bring. Writes nothing.
///
/// # Errors
/// [`Error`], whichever reason is met first.
pub fn plan(name: &RepositoryName, settings: &Settings, options: &Options) -> Result<Plan, Error> {
    online(name, settings)?;
    runtime(1)?.block_on(async {
        let hub = Hub::new(name, settings, options.clock.clone())?;
        let repository = Repository::new(name, settings);
        let commit = hub.commit().await?;
        let listed = hub.files(&commit).await?;
        let text = async |wanted: &str| -> Result<Option<String>, Error> {
            let Some(file) = find(&listed, wanted) else { return Ok(None) };
            let here =
                repository.has_pointer(&commit, file).then(|| repository.text(&commit, wanted)).flatten();
            match here {
                Some(text) => Ok(Some(text)),
                None => hub
                    .small(&commit, file)
                    .await
                    .map(|bytes| Some(String::from_utf8_lossy(&bytes).into_owned())),
            }
        };
        let index = text(INDEX).await?;
        let (small, weights) = wanted(name, listed.clone(), index.as_deref())?;
        let files = small.iter().chain(&weights);
        let files = files.map(|file| FilePlan {
            name: file.name.clone(),
            size: file.size,
            present: repository.present(&commit, file),
        });
        Ok(Plan {
            files: files.collect(),
            config: text(CONFIG).await?.unwrap_or_default(),
            free: space::free(&settings.cache),
            snapshot: Snapshot { folder: repository.snapshot(&commit), commit },
        })
    })
}

/// Brings the checkpoint into the cache, as far as it is not there, and gives the folder with its files.
///
/// # Errors
/// [`Error`], whichever reason is met first. What has arrived until then is kept for the next time.
pub fn pull(name: &RepositoryName, settings: &Settings, options: &Options) -> Result<Snapshot, Error> {
    online(name, settings)?;
    let parallel = options.parallel.clamp(1, 64);
    runtime(parallel)?.block_on(async {
        let hub = Hub::new(name, settings, options.clock.clone())?;
        let repository = Repository::new(name, settings);
        let commit = hub.commit().await?;
        let listed = hub.files(&commit).await?;
        repository.create(&commit)?;
        let (clock, progress) = (options.clock.clone(), options.progress.clone());
        let job = Arc::new(Job { name: name.clone(), hub, repository, commit, clock, progress });

        // The index says which files are wanted at all.
        let mut index = None;
        if let Some(file) = find(&listed, INDEX) {
            if options.verify {
                job.verify(file)?;
            }
            job.fetch(file).await?;
            index = job.repository.text(&job.commit, INDEX);
        }
        let (small, weights) = wanted(name, listed, index.as_deref())?;
        let files = || small.iter().chain(&weights);
        if options.verify {
            for file in files() {
                tokio::task::block_in_place(|| job.verify(file))?;
            }
        }
        let all: u64 = files().map(|file| file.size).fold(0, u64::saturating_add);
        let present: u64 = files().map(|file| job.repository.present(&job.commit, file)).sum();
        (options.progress)(Event::Planned { files: files().count(), bytes: all, present });
        let needed = all.saturating_sub(present);
        if let Some(free) = space::free(job.repository.folder())
            && needed > 0
            && needed.saturating_add(SPARE_BYTES) > free
        {
            return Err(Error::NoSpace {
                name: name.to_string(),
                needed: bytes(needed),
                free: bytes(free),
                folder: settings.cache.display().to_string(),
            });
        }

        // Small files first: where all weights are, everything is, however a download has ended.
        let stored = weights.iter().map(|file| file.size).fold(0, u64::saturating_add);
        together(&job, small, parallel).await?;
        if let Some(before_weights) = &options.before_weights {
            before_weights(&job.repository.snapshot(&job.commit), stored).map_err(Error::Declined)?;
        }
        together(&job, weights, parallel).await?;
        job.repository.set_reference(name.revision(), &job.commit)?;
        Ok(Snapshot { folder: job.repository.snapshot(&job.commit), commit: job.commit.clone() })
    })
}

/// Fetches files side by side. The first error ends all.
async fn together(job: &Arc<Job>, files: Vec<RemoteFile>, parallel: usize) -> Result<(), Error> {
    let places = Arc::new(Semaphore::new(parallel));
    let mut tasks = JoinSet::new();
    for file in files {
        let (job, places) = (job.clone(), places.clone());
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _place = places.acquire_owned().await;
            job.fetch(&file).await
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| Error::Start(error.to_string()))??;
    }
    Ok(())
}

impl Job {
    /// Reads a file that is here and forgets it when it is not what it should be.
    fn verify(&self, file: &RemoteFile) -> Result<(), Error> {
        let path = self.repository.snapshot(&self.commit).join(&file.name);
        let there = path.exists() || self.repository.blob(&file.checksum).exists();
        if !there {
            return Ok(());
        }
        let mut content = self.repository.open(&self.commit, file).map_err(Error::cache(&path))?;
        let found = file.checksum.of(&mut content, file.size).map_err(Error::cache(&path))?;
        if found == file.checksum.digits() {
            return Ok(());
        }
        self.note(&format!(
            "{}: the file in the cache has the checksum {found}, expected {}; it is deleted and fetched again",
            file.name, file.checksum
        ));
        self.repository.remove(&self.commit, file)
    }
}

fn find<'a>(files: &'a [RemoteFile], name: &str) -> Option<&'a RemoteFile> {
    files.iter().find(|file| file.name == name)
}

/// The small files and those of weights, of all that are listed.
fn wanted(
    name: &RepositoryName,
    listed: Vec<RemoteFile>,
    index: Option<&str>,
) -> Result<(Vec<RemoteFile>, Vec<RemoteFile>), Error> {
    let missing = |what: String| Error::NoCheckpoint { name: name.to_string(), missing: what };
    if find(&listed, CONFIG).is_none() {
        return Err(missing(CONFIG.to_owned()));
    }
    let shards = match index {
        Some(index) => choice::shards(index).map_err(|found| {
            missing(format!("{INDEX} that can be read (it names {})", crate::error::shown(&found)))
        })?,
        None => vec![SINGLE.to_owned()],
    };
    if let Some(absent) = shards.iter().find(|shard| find(&listed, shard).is_none()) {
        return Err(missing(match index {
            Some(_) => format!("{absent}, which {INDEX} names"),
            None => format!("{SINGLE} and no {INDEX}"),
        }));
    }
    let (mut small, mut weights): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|file| choice::is_small(&file.name));
    weights.retain(|file| shards.binary_search(&file.name).is_ok());
    small.sort_by(|a, b| a.name.cmp(&b.name));
    // The largest first, so that the last one does not run alone for long.
    weights.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
    Ok((small, weights))
}

fn online(name: &RepositoryName, settings: &Settings) -> Result<(), Error> {
    match &settings.offline {
        Some(reason) => Err(Error::Offline {
            name: name.to_string(),
            cache: settings.cache.display().to_string(),
            reason: reason.clone(),
        }),
        None => Ok(()),
    }
}

fn runtime(threads: usize) -> Result<Runtime, Error> {
    let builder = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    builder.map_err(|error| Error::Start(error.to_string()))
}

/// Where a plan's files would be, for messages.
impl Plan {
    /// The folder.
    pub fn folder(&self) -> &PathBuf {
        &self.snapshot.folder
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }

    /// Bytes that would be fetched.
    pub fn missing(&self) -> u64 {
        self.files.iter().map(|file| file.size.saturating_sub(file.present)).fold(0, u64::saturating_add)
    }
}
