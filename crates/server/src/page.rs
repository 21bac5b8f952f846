//! The page at `/`: files that are part of the binary, and the headers that keep a browser from doing anything with
//! them but showing them and calling this server.
//!
//! The page is open to everyone, as it holds nothing but what every server of this version has; what it asks the API
//! needs the key that its user types. What is embedded, `build.rs` decides.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::Refusal;

/// Whether there is a page at `/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Page {
    /// As it was built in.
    #[default]
    Shown,
    /// Nothing but the API has a path.
    Off,
}

/// A file of the page.
struct File {
    /// Its path below `/page/`.
    name: &'static str,
    bytes: &'static [u8],
}

const FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/page_files.rs"));

/// The document that `/` answers with. All others lie under `/page/`, where no path of the API is.
const DOCUMENT: &str = "index.html";

/// The style of the frame in which the page shows parsed documents. Such a frame has no origin, so nothing is `'self'`
/// to it: the page writes this very text into it, and the policy knows it by its digest.
const FRAME_STYLE: &str = "frame.css";

/// Scripts, styles and calls come from and go to this server alone; pictures and clips may also be those that the
/// user has chosen. An answer is untrusted text: whatever is in it, nothing is fetched from elsewhere for it, no
/// script in it runs, and no form in it is sent.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = FILES.iter().find(|file| file.name == FRAME_STYLE);
    let style = style
        .map(|file| format!(" 'sha256-{}'", STANDARD.encode(Sha256::digest(file.bytes))))
        .unwrap_or_default();
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'{style}; connect-src 'self'; \
         img-src 'self' blob: data:; media-src blob:; frame-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
});

/// Browsers ask each time whether what they keep is still right: a new binary may have another page.
const KEEP: &str = "no-cache";

/// The routes of the page, for a router of any state.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(page: Page) -> Router<S> {
    match page {
        Page::Off => Router::new(),
        Page::Shown => Router::new().route("/", get(document)).route("/page/{*name}", get(asset)),
    }
}

async fn document(headers: HeaderMap) -> Result<Response, Refusal> {
    answer(DOCUMENT, &headers)
}

async fn asset(
    name: Result<Path<String>, axum::extract::rejection::PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    match name {
        Ok(Path(name)) => answer(&name, &headers),
        // A name that is not UTF-8 is no file of ours.
        Err(_) => Err(Refusal::PathUnknown),
    }
}

/// A file, or that the browser has it already. Names are looked up in a list, so no name leads out of it.
fn answer(name: &str, asked: &HeaderMap) -> Result<Response, Refusal> {
    let index = FILES.iter().position(|file| file.name == name).ok_or(Refusal::PathUnknown)?;
    let (file, tag) = (&FILES[index], &TAGS[index]);
    let mut response = if asked.get_all(IF_NONE_MATCH).iter().any(|known| knows(known, tag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = file.bytes.into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type(name)));
        response
    };
    let fixed = [
        (CACHE_CONTROL, KEEP),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "same-origin"),
    ];
    let headers = response.headers_mut();
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in [(ETAG, tag), (CONTENT_SECURITY_POLICY, &*POLICY)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    Ok(response)
}

/// The entity tag of each file: the beginning of its digest.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tag = |file: &File| {
        let digest: [u8; 32] = Sha256::digest(file.bytes).into();
        let digits: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("\"{digits}\"")
    };
    FILES.iter().map(tag).collect()
});

/// Whether an `If-None-Match` header has this tag. A proxy that compresses marks tags as weak, which is no difference
/// here.
fn knows(header: &HeaderValue, tag: &str) -> bool {
    let Ok(list) = header.to_str() else { return false };
    list.split(',')
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// By the end of a name. Others than these are not served as anything that a browser would run.
fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_browsers_are_told_a_file_is() {
        assert_eq!(content_type("a/b.min.js"), "text/javascript; charset=utf-8");
        assert_eq!(content_type("index.html"), "text/html; charset=utf-8");
        assert_eq!(content_type("samples/a.png"), "image/png");
        for unknown in ["", "js", "a.js.map", "a.exe", "a."] {
            assert_eq!(content_type(unknown), "application/octet-stream", "{unknown}");
        }
        // Nothing is embedded that would be served so.
        for file in FILES {
            assert_ne!(content_type(file.name), "application/octet-stream", "{}", file.name);
        }
    }

    #[test]
    fn tags_in_their_spellings() {
        let check = |header: &'static str, expected: bool| {
            assert_eq!(knows(&HeaderValue::from_static(header), "\"ab\""), expected, "{header}");
        };
        check("\"ab\"", true);
        check("\"x\" , \"ab\"", true);
        check("W/\"ab\"", true);
        check("*", true);
        check("ab", false);
        check("\"abc\"", false);
        check("", false);
    }

    /// Whoever sees the plain page can follow what it says.
    #[test]
    fn the_plain_page_names_commands_that_exist() {
        let plain = include_str!("../page/plain.html");
        for command in ["scripts/start", "scripts/make-page"] {
            assert!(plain.contains(command), "{command}");
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(command);
            assert!(path.is_file(), "{}", path.display());
        }
        assert!(!plain.contains("<script") && !plain.contains("style=") && !plain.contains("http"));
    }

    #[test]
    fn there_is_always_a_document() {
        assert!(FILES.iter().any(|file| file.name == DOCUMENT && !file.bytes.is_empty()));
    }
}
