//! Pictures behind http(s) URLs, fetched without lending a client this machine's place in the network.
//!
//! A URL is admitted by its scheme and host, a host by the addresses its name has *in the very lookup whose answer is
//! connected to*, and every redirect is a new URL that is admitted anew. Size and time are bounded while the bytes
//! come in.

use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_LENGTH, LOCATION};
use reqwest::{Client, StatusCode, Url};

use crate::address::is_public;
use crate::{Error, MediaRoot, Refusal};

/// Where pictures may be fetched from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// From public addresses only; see [`crate::fetch`].
    #[default]
    Public,
    /// From nowhere.
    Off,
    /// From these hosts only, whatever their addresses are.
    AllowList(Vec<AllowedHost>),
    /// From everywhere, this machine included, and through the proxy of the environment.
    Any,
}

/// A host of the allow-list: `example.org`, `10.0.0.7:8080`, `[fd00::1]:80`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    /// As a URL spells it, in lower case, IPv6 in brackets.
    host: String,
    /// Only this port; `None`: any.
    port: Option<u16>,
}

/// Bounds of one fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of one file.
    pub file_bytes: usize,
    /// Most bytes of all files of a request.
    pub request_bytes: usize,
    /// From the lookup to the last byte of one file, redirects included.
    pub file_timeout: Duration,
    /// For all files of a request.
    pub request_timeout: Duration,
}

impl Default for Limits {
    /// The hosted bounds: 10 MiB for a picture; and ours: half a minute for one, two minutes and 256 MiB for all.
    fn default() -> Self {
        Self {
            file_bytes: 10 << 20,
            request_bytes: 256 << 20,
            file_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(120),
        }
    }
}

/// More hops than this are a loop.
const MOST_REDIRECTS: usize = 5;

/// Fetches files within a policy.
#[derive(Debug)]
pub(crate) struct Fetcher {
    policy: Policy,
    limits: Limits,
    client: Client,
    /// Where `file://` leads, if anywhere.
    root: Option<MediaRoot>,
}

impl Fetcher {
    pub(crate) fn new(policy: Policy, limits: Limits) -> Result<Self, Error> {
        Self::with_lookup(policy, limits, Arc::new(SystemLookup))
    }

    /// With another source of addresses, for tests of names that change them.
    fn with_lookup(policy: Policy, limits: Limits, lookup: Arc<dyn Lookup>) -> Result<Self, Error> {
        // The TLS library wants its provider named once per process; that it is already named is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            let resolver = CheckedResolver { public_only: policy == Policy::Public, lookup: lookup.clone() };
            let builder = Client::builder()
                .user_agent(concat!("ocellus/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .retry(reqwest::retry::never())
                .connect_timeout(limits.file_timeout)
                .dns_resolver(resolver);
            // A proxy would look names up in its own place of the network, out of our sight.
            if policy == Policy::Any { builder } else { builder.no_proxy() }
        };
        let client = builder().build().or_else(|error| {
            // A machine without root certificates: plain http still works, https fails when it is asked for.
            tracing::warn!(%error, "no root certificates; pictures can't be fetched by https");
            builder().tls_certs_only([]).build()
        });
        let client = client.map_err(|error| Error::Client(error.to_string()))?;
        Ok(Self { policy, limits, client, root: None })
    }

    /// Lets requests name files below a folder.
    pub(crate) fn with_root(self, root: Option<MediaRoot>) -> Self {
        Self { root, ..self }
    }

    /// The bounds it keeps.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The bytes behind a URL.
    pub(crate) async fn get(&self, url: Url) -> Result<Vec<u8>, Refusal> {
        if url.scheme() == "file" {
            let root = self.root.as_ref().ok_or(Refusal::UrlInvalid)?;
            return root.read(&url, self.limits.file_bytes).await;
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let fetched = tokio::time::timeout(self.limits.file_timeout, self.follow(url)).await;
        let fetched = fetched.unwrap_or(Err(Refusal::DownloadTimedOut));
        if let Err(refusal) = &fetched {
            // The path and the query may hold secrets of the client's.
            tracing::info!(host, ?refusal, "a picture was not fetched");
        }
        fetched
    }

    async fn follow(&self, mut url: Url) -> Result<Vec<u8>, Refusal> {
        for _ in 0..=MOST_REDIRECTS {
            self.policy.admit(&url)?;
            let response = self.client.get(url.clone()).send().await.map_err(|error| refusal_of(&error))?;
            match response.status() {
                StatusCode::OK => return self.take(response).await,
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                    let location = location.ok_or(Refusal::DownloadFailed)?;
                    url = url.join(location).map_err(|_| Refusal::UrlInvalid)?;
                }
                _ => return Err(Refusal::DownloadFailed),
            }
        }
        Err(Refusal::DownloadFailed)
    }

    /// Reads a body up to the limit. A body shorter than announced is an error of the HTTP library's.
    async fn take(&self, response: reqwest::Response) -> Result<Vec<u8>, Refusal> {
        let limit = self.limits.file_bytes;
        let announced = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if announced.and_then(|text| text.parse::<u64>().ok()).is_some_and(|length| length > limit as u64) {
            return Err(Refusal::MediaTooLarge);
        }
        let mut bytes = Vec::new();
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| refusal_of(&error))?;
            if bytes.len() + piece.len() > limit {
                return Err(Refusal::MediaTooLarge);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

/// Reads a URL that may be fetched at all: http or https, with a host, without a user name or password; or a file of
/// this machine, which [`Fetcher::get`] reads only where an operator opened a folder.
pub(crate) fn parse_url(text: &str) -> Result<Url, Refusal> {
    let url = Url::parse(text.trim()).map_err(|_| Refusal::UrlInvalid)?;
    // Only what a request itself names: a redirect never leads to a file.
    if url.scheme() == "file" && url.host_str().is_none_or(str::is_empty) {
        return Ok(url);
    }
    check_url(&url)?;
    Ok(url)
}

fn check_url(url: &Url) -> Result<(), Refusal> {
    let plain =
        matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
    if plain && url.host_str().is_some_and(|host| !host.is_empty()) {
        Ok(())
    } else {
        Err(Refusal::UrlInvalid)
    }
}

impl Policy {
    /// Whether this URL may be asked for. Names are checked later, when they are looked up.
    fn admit(&self, url: &Url) -> Result<(), Refusal> {
        check_url(url)?;
        let host = url.host_str().unwrap_or_default();
        let admitted = match self {
            Self::Off => return Err(Refusal::FetchOff),
            Self::Any => true,
            Self::AllowList(hosts) => hosts.iter().any(|allowed| {
                allowed.host == host
                    && allowed.port.is_none_or(|port| Some(port) == url.port_or_known_default())
            }),
            // The URL parser has already turned decimal, octal and hexadecimal spellings into dotted ones.
            Self::Public => address_of(host).is_none_or(is_public),
        };
        if admitted { Ok(()) } else { Err(Refusal::FetchForbidden) }
    }
}

/// The address when a URL's host is one and not a name.
fn address_of(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host).parse().ok()
}

impl std::str::FromStr for AllowedHost {
    type Err = String;

    /// Reads a host as a URL would, so that every spelling of an address becomes the same.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a host, such as example.org, 10.0.0.7:8080 or [fd00::1]:80");
        // Not a default port of a URL, which the parser would drop: whether a port was written matters here.
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().map_err(|_| wrong())?)),
            _ => (text, None),
        };
        let url = Url::parse(&format!("http://{host}/")).map_err(|_| wrong())?;
        check_url(&url).map_err(|_| wrong())?;
        if url.path() != "/" || url.port().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong());
        }
        Ok(Self { host: url.host_str().unwrap_or_default().to_owned(), port })
    }
}

/// Looks a name up and hands on the addresses only when all of them may be connected to. The client connects to what
/// it gets here and never looks again, so a name can't change its address between check and use.
struct CheckedResolver {
    public_only: bool,
    lookup: Arc<dyn Lookup>,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (public_only, lookup) = (self.public_only, self.lookup.clone());
        Box::pin(async move {
            let addresses = lookup.addresses(name.as_str().to_owned()).await?;
            if public_only && !addresses.iter().all(|address| is_public(address.ip())) {
                return Err(NotPublic.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Names to addresses.
trait Lookup: Send + Sync {
    fn addresses(
        &self,
        name: String,
    ) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>>;
}

/// The system's own lookup.
struct SystemLookup;

impl Lookup for SystemLookup {
    fn addresses(
        &self,
        name: String,
    ) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
    }
}

/// A name with an address that is not public.
#[derive(Debug, thiserror::Error)]
#[error("the name has an address that is not public")]
struct NotPublic;

/// Finds our own reason inside of the HTTP library's error; its other texts stay in here.
fn refusal_of(error: &reqwest::Error) -> Refusal {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(inner) = cause {
        if inner.is::<NotPublic>() {
            return Refusal::FetchForbidden;
        }
        cause = inner.source();
    }
    if error.is_timeout() { Refusal::DownloadTimedOut } else { Refusal::DownloadFailed }
}

#[cfg(test)]
mod tests;
