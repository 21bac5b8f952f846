//! The hub's protocol, as far as reading needs it: the commit of a revision, the listing of a commit, and the bytes of
//! a file from some offset on.
//!
//! Redirects are followed here and not by the library: the token goes to the hub's own address only, never to the
//! store of files that it sends us to, and nothing leads from https back to http.

use std::{error::Error as _, sync::Arc, time::Duration};

use futures_util::StreamExt;
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_RANGE, HeaderName, HeaderValue, LINK,
        LOCATION, RANGE, RETRY_AFTER,
    },
};
use serde::Deserialize;

use crate::{
    Clock, Error, RepositoryName, Settings,
    digest::is_hex,
    error::{later, shown},
    retry::{self, MOST_ATTEMPTS},
    tree::{self, LARGEST_SMALL, RemoteFile},
};

/// More hops than this are a loop.
const MOST_REDIRECTS: usize = 8;
/// A repository's description, which we need one field of.
const LARGEST_DESCRIPTION: u64 = 32 << 20;
/// Pages of a listing; each has up to a thousand entries.
const MOST_PAGES: usize = 50;
/// Attempts to reach a hub that has not answered yet: whoever has no network should not wait for long.
const FIRST_ATTEMPTS: u32 = 3;

const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
const ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-error-message");

/// One repository on one hub.
pub(crate) struct Hub {
    client: Client,
    settings: Settings,
    name: RepositoryName,
    clock: Arc<dyn Clock>,
}

/// What is worth another attempt.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// 429, and how long the server asks to wait.
    Limited(Option<Duration>),
    /// 5xx, or anything strange from a store of files.
    Server(u16, Option<Duration>),
    /// No connection, or one that broke.
    Broken { host: String, reason: String },
}

/// Why a single attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Again(Trouble),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// Failures in a row.
#[derive(Default)]
pub(crate) struct Attempts {
    failures: u32,
}

/// A file's bytes.
pub(crate) struct Content {
    /// Where they start: where they were asked for, or at the beginning.
    pub(crate) start: u64,
    pub(crate) response: Response,
}

/// What a file's bytes were asked from, if it can't be given.
pub(crate) enum Opened {
    Content(Content),
    /// The server says that the file has no such offset.
    NoSuchOffset,
}

impl Hub {
    pub(crate) fn new(
        name: &RepositoryName,
        settings: &Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        // The TLS library wants its provider named once per process; that it is already named is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            Client::builder()
                .user_agent(concat!("ocellus/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .retry(reqwest::retry::never())
                .connect_timeout(settings.timeout.max(Duration::from_secs(10)))
                .read_timeout(settings.timeout)
        };
        // A machine without root certificates can still use a hub on plain http.
        let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
        let client = client.map_err(|error| Error::Start(error.to_string()))?;
        Ok(Self { client, settings: settings.clone(), name: name.clone(), clock })
    }

    /// The commit that the revision stands for at this moment.
    pub(crate) async fn commit(&self) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Description {
            sha: String,
        }
        let url =
            self.url(&["api", "models", &self.owner(), self.name.name(), "revision", self.name.revision()])?;
        let bytes = self.whole(url, LARGEST_DESCRIPTION, FIRST_ATTEMPTS).await?.0;
        let read: Result<Description, _> = serde_json::from_slice(&bytes);
        match read {
            Ok(Description { sha }) if is_hex(&sha, 40) => Ok(sha),
            Ok(Description { sha }) => {
                Err(self.protocol(format!("commit \"{}\"", shown(&sha)), "40 hexadecimal digits"))
            }
            Err(error) => {
                let found = format!("a description that can't be read ({})", shown(&error.to_string()));
                Err(self.protocol(found, "a JSON object with the commit as sha"))
            }
        }
    }

    /// The files of a commit that a checkpoint may need.
    pub(crate) async fn files(&self, commit: &str) -> Result<Vec<RemoteFile>, Error> {
        let mut files: Vec<RemoteFile> = Vec::new();
        let mut next = Some(self.url(&["api", "models", &self.owner(), self.name.name(), "tree", commit])?);
        for _ in 0..MOST_PAGES {
            let Some(url) = next else { return Ok(files) };
            let (bytes, link) = self.whole(url, LARGEST_DESCRIPTION, MOST_ATTEMPTS).await?;
            for file in tree::read(&bytes).map_err(|(found, expected)| self.protocol(found, &expected))? {
                if files.iter().any(|known| known.name == file.name) {
                    return Err(self.protocol(format!("{} twice", file.name), "each file once"));
                }
                files.push(file);
            }
            next = match link {
                Some(link) => Some(self.next_page(&link)?),
                None => None,
            };
        }
        Err(self.protocol(format!("more than {MOST_PAGES} pages of files"), "a repository of a checkpoint"))
    }

    /// The content of a small file.
    pub(crate) async fn small(&self, commit: &str, file: &RemoteFile) -> Result<Vec<u8>, Error> {
        let (bytes, _) = self.whole(self.file_url(commit, file)?, LARGEST_SMALL, MOST_ATTEMPTS).await?;
        let found = file.checksum.of(&mut bytes.as_slice(), bytes.len() as u64);
        match found {
            Ok(found) if found == file.checksum.digits() => Ok(bytes),
            found => Err(Error::Corrupt {
                name: self.name.to_string(),
                file: file.name.clone(),
                found: found.unwrap_or_default(),
                expected: file.checksum.to_string(),
            }),
        }
    }

    /// Asks for a file's bytes from `offset` on, once.
    pub(crate) async fn open(&self, commit: &str, file: &RemoteFile, offset: u64) -> Result<Opened, Failure> {
        let response = match self.get(self.file_url(commit, file)?, offset).await {
            Ok(response) => response,
            Err(Failure::Final(Error::Status { status: 416, .. })) => return Ok(Opened::NoSuchOffset),
            Err(failure) => return Err(failure),
        };
        // Packed bytes have other offsets; nobody asked for them.
        if let Some(encoding) = response.headers().get(CONTENT_ENCODING)
            && encoding != "identity"
        {
            let found =
                format!("{} packed as {}", file.name, shown(&String::from_utf8_lossy(encoding.as_bytes())));
            return Err(self.protocol(found, "its plain bytes").into());
        }
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok(Opened::Content(Content { start: 0, response }));
        }
        let range =
            response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if range != format!("bytes {offset}-{}/{}", file.size.saturating_sub(1), file.size) {
            let found = format!("\"{}\" of {}", shown(range), file.name);
            let expected = format!("the bytes from {offset} of {}", file.size);
            return Err(self.protocol(found, &expected).into());
        }
        Ok(Opened::Content(Content { start: offset, response }))
    }

    /// Waits before the next attempt, or gives up.
    pub(crate) async fn pause(
        &self,
        attempts: &mut Attempts,
        trouble: Trouble,
        most: u32,
    ) -> Result<(), Error> {
        attempts.failures += 1;
        let asked = match trouble {
            Trouble::Limited(wait) | Trouble::Server(_, wait) => wait,
            Trouble::Broken { .. } => None,
        };
        let wait = if attempts.failures >= most { None } else { retry::wait_after(attempts.failures, asked) };
        match wait {
            Some(wait) => {
                self.clock.wait(wait).await;
                Ok(())
            }
            None => Err(self.give_up(trouble, attempts.failures)),
        }
    }

    /// What a broken stream of bytes is.
    pub(crate) fn broken(&self, error: reqwest::Error) -> Trouble {
        let host =
            error.url().and_then(Url::host_str).or(self.settings.endpoint.host_str()).unwrap_or_default();
        // The address of a store of files holds a signature, so messages have no more of it than its host.
        let host = host.to_owned();
        let error = error.without_url();
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            reason = inner.to_string();
            cause = inner.source();
        }
        Trouble::Broken {
            host,
            reason: if error.is_timeout() { "no answer in time".to_owned() } else { shown(&reason) },
        }
    }

    /// What a stream is that ended before its time.
    pub(crate) fn ended_early(&self) -> Trouble {
        let host = self.settings.endpoint.host_str().unwrap_or_default().to_owned();
        Trouble::Broken { host, reason: "the connection ended before the file did".to_owned() }
    }

    fn give_up(&self, trouble: Trouble, attempts: u32) -> Error {
        let (endpoint, name) = (self.settings.endpoint().to_owned(), self.name.to_string());
        match trouble {
            Trouble::Limited(wait) => Error::RateLimited { endpoint, name, later: later(wait) },
            Trouble::Server(status, _) => Error::Server { endpoint, name, status, attempts },
            Trouble::Broken { host, reason } => Error::Unreachable { host, name, reason, attempts },
        }
    }

    /// A whole body of at most `limit` bytes, and the header that names the next page.
    async fn whole(&self, url: Url, limit: u64, most: u32) -> Result<(Vec<u8>, Option<String>), Error> {
        let mut attempts = Attempts::default();
        loop {
            let trouble = match self.get(url.clone(), 0).await {
                Ok(response) => {
                    let link =
                        response.headers().get(LINK).and_then(|value| value.to_str().ok()).map(str::to_owned);
                    match self.body(response, limit).await {
                        Ok(bytes) => return Ok((bytes, link)),
                        Err(Failure::Again(trouble)) => trouble,
                        Err(Failure::Final(error)) => return Err(error),
                    }
                }
                Err(Failure::Again(trouble)) => trouble,
                Err(Failure::Final(error)) => return Err(error),
            };
            self.pause(&mut attempts, trouble, most).await?;
        }
    }

    async fn body(&self, response: Response, limit: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| Failure::Again(self.broken(error)))?;
            if (bytes.len() + piece.len()) as u64 > limit {
                return Err(self
                    .protocol("an endless answer".to_owned(), &format!("at most {limit} bytes"))
                    .into());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// One attempt at a URL, through its redirects, to an answer that says yes.
    async fn get(&self, mut url: Url, offset: u64) -> Result<Response, Failure> {
        for _ in 0..=MOST_REDIRECTS {
            let at_hub = url.origin() == self.settings.endpoint.origin();
            let mut request = self.client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
            if offset > 0 {
                request = request.header(RANGE, format!("bytes={offset}-"));
            }
            if let (true, Some(token)) = (at_hub, &self.settings.token)
                && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", token.secret()))
            {
                value.set_sensitive(true);
                request = request.header(AUTHORIZATION, value);
            }
            let response = request.send().await.map_err(|error| Failure::Again(self.broken(error)))?;
            match response.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(response),
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => url = self.redirected(&url, &response)?,
                status => return Err(self.refused(status, &response, at_hub)),
            }
        }
        Err(self.protocol("redirects without end".to_owned(), &format!("at most {MOST_REDIRECTS}")).into())
    }

    fn redirected(&self, from: &Url, response: &Response) -> Result<Url, Error> {
        let location =
            response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let wrong = || self.protocol("a redirect to nowhere".to_owned(), "a URL");
        let to = from.join(location).map_err(|_| wrong())?;
        let safe = to.scheme() == "https" || (to.scheme() == "http" && from.scheme() == "http");
        if !safe || to.host_str().is_none() || !to.username().is_empty() || to.password().is_some() {
            let found = format!("a redirect from {} to {}", from.scheme(), shown(to.scheme()));
            return Err(self.protocol(found, "https"));
        }
        Ok(to)
    }

    fn refused(&self, status: StatusCode, response: &Response, at_hub: bool) -> Failure {
        let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
        let wait = retry::retry_after(header(RETRY_AFTER));
        let number = status.as_u16();
        match status {
            StatusCode::TOO_MANY_REQUESTS => return Failure::Again(Trouble::Limited(wait)),
            StatusCode::REQUEST_TIMEOUT => return Failure::Again(Trouble::Server(number, wait)),
            status if status.is_server_error() => return Failure::Again(Trouble::Server(number, wait)),
            // A signature may have run out: the hub gives a new one.
            _ if !at_hub && status != StatusCode::RANGE_NOT_SATISFIABLE => {
                return Failure::Again(Trouble::Server(number, wait));
            }
            _ => {}
        }
        let endpoint = self.settings.endpoint().to_owned();
        let name = self.name.to_string();
        let has_token = self.settings.token.is_some();
        let path = response.url().path();
        let error = match (status, header(ERROR_CODE).unwrap_or_default()) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, "GatedRepo") => {
                Error::Gated { endpoint, name, repository: self.name.repository(), status: number }
            }
            (StatusCode::UNAUTHORIZED, _) => Error::Unauthorized {
                endpoint,
                name,
                advice: if has_token {
                    "the token of HF_TOKEN, or of the file that HF_TOKEN_PATH names, is not accepted: make a new one, or take it away for what is public"
                } else {
                    "there is no such repository, or it is private: check how it is written, or set HF_TOKEN to a token of an account that may read it"
                },
            },
            (StatusCode::FORBIDDEN, _) => Error::Forbidden {
                endpoint,
                name,
                said: header(ERROR_MESSAGE).map(|text| format!(": {}", shown(text))).unwrap_or_default(),
                advice: if has_token {
                    "the token of HF_TOKEN may not read it; take one that may"
                } else {
                    "set HF_TOKEN to a token of an account that may read it"
                },
            },
            (StatusCode::NOT_FOUND, "RevisionNotFound") => Error::NoRevision {
                endpoint,
                repository: self.name.repository(),
                revision: self.name.revision().to_owned(),
            },
            (StatusCode::NOT_FOUND, "RepoNotFound") => Error::NoRepository { endpoint, name },
            (StatusCode::NOT_FOUND, _) => match path.rsplit_once('/') {
                Some((before, file)) if before.contains("/resolve/") => {
                    Error::NoFile { endpoint, name, file: shown(file) }
                }
                _ => Error::NoRepository { endpoint, name },
            },
            _ => Error::Status { endpoint, name, status: number },
        };
        Failure::Final(error)
    }

    fn file_url(&self, commit: &str, file: &RemoteFile) -> Result<Url, Error> {
        self.url(&[&self.owner(), self.name.name(), "resolve", commit, &file.name])
    }

    /// Each step is escaped, so that none can become two.
    fn url(&self, steps: &[&str]) -> Result<Url, Error> {
        let mut url = self.settings.endpoint.clone();
        match url.path_segments_mut() {
            Ok(mut path) => {
                path.pop_if_empty().extend(steps);
            }
            Err(()) => {
                return Err(self.protocol("an address without a path".to_owned(), "the address of a hub"));
            }
        }
        Ok(url)
    }

    /// The next page of a listing, which only the hub itself may have.
    fn next_page(&self, link: &str) -> Result<Url, Error> {
        let next = link.split(',').find(|part| part.contains("rel=\"next\""));
        let text = next.and_then(|part| part.trim().strip_prefix('<')?.split_once('>')).map(|(text, _)| text);
        let url = text.and_then(|text| self.settings.endpoint.join(text).ok());
        url.filter(|url| url.origin() == self.settings.endpoint.origin())
            .ok_or_else(|| self.protocol(format!("a next page \"{}\"", shown(link)), "one of its own"))
    }

    fn owner(&self) -> String {
        self.name.repository().split('/').next().unwrap_or_default().to_owned()
    }

    fn protocol(&self, found: String, expected: &str) -> Error {
        Error::Protocol {
            endpoint: self.settings.endpoint().to_owned(),
            name: self.name.to_string(),
            found,
            expected: expected.to_owned(),
        }
    }
}
