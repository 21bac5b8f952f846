//! Why a checkpoint could not be had: each reason one sentence with what to do about it.

use std::{io, path::PathBuf, time::Duration};

/// Why a checkpoint could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting of the environment is nonsense.
    #[error("{variable} is {found:?}, expected {expected}")]
    Setting {
        /// The variable.
        variable: &'static str,
        /// What it holds; of a secret only that it does.
        found: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// No network may be used, and the cache has no whole snapshot.
    #[error(
        "{name} is not whole in the cache {cache}, and {reason} forbids fetching it: pull it once with a network (ocellus pull {name}), or give the folder of a checkpoint"
    )]
    Offline {
        /// The repository.
        name: String,
        /// Where it was looked for.
        cache: String,
        /// What forbids it.
        reason: String,
    },
    /// 401: the hub wants to know who asks, or does not believe it.
    #[error("{endpoint} refuses access to {name} (401): {advice}")]
    Unauthorized {
        /// The hub.
        endpoint: String,
        /// The repository.
        name: String,
        /// Depends on whether there was a token.
        advice: &'static str,
    },
    /// The owner gives access to those who ask for it.
    #[error(
        "{name} is gated ({status}): ask for access at {endpoint}/{repository}, and set HF_TOKEN to a token of the account that has it"
    )]
    Gated {
        /// The hub.
        endpoint: String,
        /// The repository.
        name: String,
        /// Its page.
        repository: String,
        /// 401 or 403.
        status: u16,
    },
    /// 403 for another reason.
    #[error("{endpoint} forbids access to {name} (403){said}: {advice}")]
    Forbidden {
        /// The hub.
        endpoint: String,
        /// The repository.
        name: String,
        /// What the hub says about it, after a colon.
        said: String,
        /// Depends on whether there was a token.
        advice: &'static str,
    },
    /// No such repository.
    #[error(
        "{endpoint} has no repository {name} (404): check how it is written; if it is private, set HF_TOKEN to a token of an account that may read it"
    )]
    NoRepository {
        /// The hub.
        endpoint: String,
        /// The repository.
        name: String,
    },
    /// No such revision.
    #[error(
        "{repository} has no revision {revision:?} (404): expected a branch, a tag or a commit of it, see {endpoint}/{repository}"
    )]
    NoRevision {
        /// The hub.
        endpoint: String,
        /// The repository.
        repository: String,
        /// What was asked for.
        revision: String,
    },
    /// A file that the listing names is not there.
    #[error(
        "{endpoint} lists {file} of {name} but does not have it (404): try again later, or name another revision"
    )]
    NoFile {
        /// The hub.
        endpoint: String,
        /// The repository.
        name: String,
        /// The file.
        file: String,
    },
    /// 429, again and again, or for too long.
    #[error(
        "{endpoint} answers {name} with 'too many requests' (429): try again {later}; with a token (HF_TOKEN) the limit is higher"
    )]
    RateLimited {
        /// The hub.
        endpoint: String,
        /// The repository.
        name: String,
        /// When.
        later: String,
    },
    /// 5xx, again and again.
    #[error(
        "{endpoint} has a fault of its own ({status}) after {attempts} attempts at {name}: try again later; what has arrived is kept"
    )]
    Server {
        /// The hub.
        endpoint: String,
        /// The repository.
        name: String,
        /// The last status.
        status: u16,
        /// How often it was asked.
        attempts: u32,
    },
    /// No connection, or one that breaks again and again.
    #[error(
        "{host} can't be reached for {name} after {attempts} attempts ({reason}): check the network, the proxy (HTTPS_PROXY) and HF_ENDPOINT; what has arrived is kept"
    )]
    Unreachable {
        /// Which host.
        host: String,
        /// The repository.
        name: String,
        /// What the last attempt met.
        reason: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// Any other status.
    #[error("{endpoint} answers {name} with status {status}, which it should not: check HF_ENDPOINT")]
    Status {
        /// The hub.
        endpoint: String,
        /// The repository.
        name: String,
        /// The status.
        status: u16,
    },
    /// What the hub says is not what a hub says.
    #[error("{endpoint} says of {name}: {found}, expected {expected}: check HF_ENDPOINT")]
    Protocol {
        /// The hub.
        endpoint: String,
        /// The repository.
        name: String,
        /// What it says.
        found: String,
        /// What it should.
        expected: String,
    },
    /// The repository holds no checkpoint that can be served.
    #[error(
        "{name} has no {missing}, which a checkpoint in the official layout has: check how it is written, or name the repository that has the original weights"
    )]
    NoCheckpoint {
        /// The repository.
        name: String,
        /// What is missing.
        missing: String,
    },
    /// Twice the wrong bytes.
    #[error(
        "{file} of {name} has arrived twice with the checksum {found}, expected {expected}: something between here and the hub changes what it sends"
    )]
    Corrupt {
        /// The repository.
        name: String,
        /// The file.
        file: String,
        /// What arrived, by its digest.
        found: String,
        /// What should have.
        expected: String,
    },
    /// The disk has too little room, as was seen before.
    #[error(
        "{name} needs {needed} more in {folder}, which has {free} free: make room, or name another folder with HF_HUB_CACHE or --cache"
    )]
    NoSpace {
        /// The repository.
        name: String,
        /// Bytes that are missing, as people read them.
        needed: String,
        /// Bytes that are free, as people read them.
        free: String,
        /// Where.
        folder: String,
    },
    /// The disk became full meanwhile.
    #[error(
        "the disk of {path} is full with {missing} of {file} to come: make room and start again, what has arrived is kept"
    )]
    DiskFull {
        /// What was written.
        path: String,
        /// The file.
        file: String,
        /// Bytes, as people read them.
        missing: String,
    },
    /// A file of the cache can't be used.
    #[error(
        "{path}: {source}, expected a cache that can be written to (HF_HUB_CACHE, HF_HOME or --cache names it)"
    )]
    Cache {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Whoever asked for the files does not want them.
    #[error("{0}")]
    Declined(String),
    /// The HTTP library could not be started, or a thread.
    #[error("downloading could not be started: {0}")]
    Start(String),
}

impl Error {
    /// Whether the hub could not be asked at all, so that what lies in the cache is the best that is known.
    pub fn is_of_network(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Server { .. } | Self::RateLimited { .. })
    }

    pub(crate) fn cache(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Cache { path, source }
    }
}

/// What a server sent, as it may stand in a message: one line of visible characters, not too long.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 160;
    let mut line: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

/// Bytes as people read them.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{bytes} bytes"),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// How long, as people read it.
pub(crate) fn later(wait: Option<Duration>) -> String {
    wait.map_or_else(|| "later".to_owned(), |wait| format!("in {} s", wait.as_secs()))
}
