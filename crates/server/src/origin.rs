//! Which web pages may call this server.
//!
//! A browser lets every page send requests to addresses of its user's own machine. It names the page's site in the
//! `Origin` header, which a page can't change; programs send none. So a request with the origin of a foreign site is
//! refused: the site would have the model compute, and with a name that it points at this machine it could read the
//! answer too. With keys set there is nothing to refuse, as a foreign page has none.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use reqwest::Url;

use crate::{PublicUrl, Refusal, State, body};

/// A site whose pages may call this server and read its answers: `https://example.org`, `app://name`, `null`, or `*`
/// for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedOrigin(String);

impl std::str::FromStr for AllowedOrigin {
    type Err = String;

    /// Reads an origin as browsers write it.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an origin, such as https://example.org, or * for all");
        if matches!(text, "*" | "null") {
            return Ok(Self(text.to_owned()));
        }
        let url = Url::parse(text).map_err(|_| wrong())?;
        let has_more = !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some();
        let has_user = !url.username().is_empty() || url.password().is_some();
        match site(&url) {
            Some(site) if !has_more && !has_user => Ok(Self(site)),
            _ => Err(wrong()),
        }
    }
}

/// What may be done for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Its requests are answered, and its scripts may read the answers.
    Shared,
    /// Its requests are answered; whether it reads the answers is the browser's own rule.
    Answered,
    Refused,
}

/// What a verdict depends on, besides the origin.
#[derive(Clone, Copy, Debug)]
struct Circumstances<'a> {
    allowed: &'a [AllowedOrigin],
    /// Where clients reach this server, by its operator's word.
    public_url: Option<&'a PublicUrl>,
    /// The request's `Host` header.
    host: Option<&'a str>,
    /// Requests need a key.
    has_keys: bool,
}

impl Circumstances<'_> {
    fn verdict(&self, origin: &str) -> Verdict {
        let url = Url::parse(origin).ok();
        let site = url.as_ref().and_then(site);
        let name = site.as_deref().unwrap_or(origin);
        if self.allowed.iter().any(|allowed| allowed.0 == "*" || allowed.0 == name) {
            return Verdict::Shared;
        }
        let trusted = match &url {
            // A page of no site at all, such as one inside of a frame that another site closed off.
            None => false,
            // An application with a browser inside, or an extension: no web page has such an origin.
            Some(url) if !matches!(url.scheme(), "http" | "https") => true,
            Some(url) => match url.host_str() {
                Some(host) if is_this_machine(host) => return Verdict::Shared,
                // Where this server is meant to be reached. A name in the Host header proves nothing: it is the page's
                // own, pointed at this machine. An address can't be pointed anywhere.
                Some(host) => {
                    self.public_url.is_some_and(|public| public.host().as_deref() == Some(host))
                        || address(host).is_some() && self.host.and_then(host_of).as_deref() == Some(host)
                }
                None => false,
            },
        };
        if trusted || self.has_keys { Verdict::Answered } else { Verdict::Refused }
    }
}

/// The layer in front of every route.
pub(crate) async fn check(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(ORIGIN).cloned() else { return next.run(request).await };
    let circumstances = Circumstances {
        allowed: &state.allowed_origins,
        public_url: state.public_url.as_ref(),
        host: request.headers().get(HOST).and_then(|host| host.to_str().ok()),
        has_keys: !state.keys.is_empty(),
    };
    let verdict = circumstances.verdict(origin.to_str().unwrap_or_default());
    let mut response = match verdict {
        Verdict::Answered => return next.run(request).await,
        Verdict::Refused => {
            let (parts, rest) = request.into_parts();
            body::drain(&parts.headers, rest).await;
            return Refusal::OriginForbidden.into_response();
        }
        Verdict::Shared if is_preflight(&request) => permission(request.headers()),
        Verdict::Shared => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id"));
    headers.insert(VARY, HeaderValue::from_static("origin"));
    response
}

/// A browser asks before it sends a page's request.
fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Every method and every header: what they mean is for the routes to say.
fn permission(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    response
}

/// Scheme, host and port as browsers write them.
fn site(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?.to_ascii_lowercase();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}://{host}{port}", url.scheme()))
}

/// The host in a `Host` header, without its port.
fn host_of(header: &str) -> Option<String> {
    let url = Url::parse(&format!("http://{header}/")).ok()?;
    url.host_str().map(str::to_owned)
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || address(host).is_some_and(|address| address.to_canonical().is_loopback())
}

/// The address when a host is one and not a name.
fn address(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Circumstances<'_> =
        Circumstances { allowed: &[], public_url: None, host: Some("127.0.0.1:8000"), has_keys: false };

    #[track_caller]
    fn check(circumstances: Circumstances<'_>, origin: &str, expected: Verdict) {
        assert_eq!(circumstances.verdict(origin), expected, "{origin:?} {circumstances:?}");
    }

    #[test]
    fn pages_of_this_machine_are_at_home() {
        for origin in [
            "http://localhost",
            "http://localhost:3000",
            "https://localhost:8443",
            "http://ui.localhost:5173",
            "http://127.0.0.1:8000",
            "http://127.9.9.9",
            "http://[::1]:3000",
            "http://[::ffff:127.0.0.1]",
        ] {
            check(OPEN, origin, Verdict::Shared);
        }
    }

    #[test]
    fn pages_of_others_are_not() {
        for origin in [
            "https://example.org",
            "http://example.org:8000",
            "http://localhost.example.org",
            "http://notlocalhost",
            "http://127.0.0.1.example.org",
            "http://10.0.0.7",
            "http://8.8.8.8",
            "null",
            "",
            "localhost",
            "http://",
            "*",
        ] {
            check(OPEN, origin, Verdict::Refused);
            check(Circumstances { has_keys: true, ..OPEN }, origin, Verdict::Answered);
        }
        // A name that its owner points at this machine arrives in both headers.
        let rebound = Circumstances { host: Some("rebound.example.org:8000"), ..OPEN };
        check(rebound, "http://rebound.example.org:8000", Verdict::Refused);
    }

    #[test]
    fn where_the_server_is_meant_to_be_reached() {
        let by_address = Circumstances { host: Some("10.0.0.7:8000"), ..OPEN };
        check(by_address, "http://10.0.0.7:8000", Verdict::Answered);
        check(by_address, "http://10.0.0.7:3000", Verdict::Answered);
        check(by_address, "http://10.0.0.8:8000", Verdict::Refused);
        check(Circumstances { host: Some("[fd00::1]:8000"), ..OPEN }, "http://[fd00::1]", Verdict::Answered);
        check(Circumstances { host: None, ..OPEN }, "http://10.0.0.7", Verdict::Refused);
        let public: PublicUrl = "https://ai.example.org/ocellus".parse().unwrap();
        let behind_a_name = Circumstances { public_url: Some(&public), ..OPEN };
        check(behind_a_name, "https://ai.example.org", Verdict::Answered);
        check(behind_a_name, "https://example.org", Verdict::Refused);
        check(OPEN, "app://obsidian.md", Verdict::Answered);
        check(OPEN, "chrome-extension://abcdef", Verdict::Answered);
    }

    #[test]
    fn whom_the_operator_allows() {
        let read = |text: &str| text.parse::<AllowedOrigin>();
        let allowed = ["https://Example.org:443", "app://Name", "http://10.0.0.7:3000"];
        let allowed = allowed.map(|text| read(text).unwrap());
        let some = Circumstances { allowed: &allowed, ..OPEN };
        for origin in ["https://example.org", "app://name", "http://10.0.0.7:3000"] {
            check(some, origin, Verdict::Shared);
        }
        for origin in ["http://example.org", "https://example.org:444", "https://www.example.org", "null"] {
            check(some, origin, Verdict::Refused);
        }
        check(Circumstances { allowed: &[read("*").unwrap()], ..OPEN }, "https://a.example", Verdict::Shared);
        check(Circumstances { allowed: &[read("null").unwrap()], ..OPEN }, "null", Verdict::Shared);
        for wrong in ["", "example.org", "https://", "https://a/b", "https://a?b", "https://u@a", "data:x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
