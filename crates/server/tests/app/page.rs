//! The page at `/`: what a browser gets, with and without a key, before and after the model is loaded.

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request as HttpRequest, Response, StatusCode};
use http_body_util::BodyExt;
use ocellus_server::{Page, starting};

use super::{Scripted, keys, send};

async fn ask(app: &axum::Router, method: Method, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let mut request = HttpRequest::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(app.clone(), request.body(Body::empty()).unwrap()).await
}

async fn get(app: &axum::Router, path: &str) -> Response<Body> {
    ask(app, Method::GET, path, &[]).await
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

fn app() -> axum::Router {
    Scripted::saying(&["x"]).app()
}

/// The files that a document refers to, as it spells them.
fn references(document: &str) -> Vec<&str> {
    let quoted = |mark: &'static str| {
        document
            .split(mark)
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .filter(|path| path.starts_with("page/"))
    };
    quoted("src=\"").chain(quoted("href=\"")).collect()
}

#[tokio::test]
async fn the_document_and_all_it_refers_to() {
    let app = app();
    let response = get(&app, "/").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(response.headers(), "content-type"), "text/html; charset=utf-8");
    let document = text(response).await;
    assert!(document.starts_with("<!doctype html>") && document.contains("<title>Ocellus"), "{document}");
    for path in references(&document) {
        let response = get(&app, &format!("/{path}")).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let expected = match path.rsplit_once('.').unwrap().1 {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            other => panic!("a document that refers to {other}"),
        };
        assert_eq!(header(response.headers(), "content-type"), expected, "{path}");
        assert!(!text(response).await.is_empty(), "{path}");
    }
}

/// A script or a style that stands in the document itself would be blocked.
#[tokio::test]
async fn nothing_in_the_document_needs_what_the_policy_forbids() {
    let response = get(&app(), "/").await;
    let policy = header(response.headers(), "content-security-policy").to_owned();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.split("; ").any(|found| found == part), "{part}: {policy}");
    }
    // The one style that is written into a frame is known by its digest.
    let style = policy.split("; ").find_map(|part| part.strip_prefix("style-src 'self'")).unwrap();
    assert!(style.is_empty() || style.starts_with(" 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
    for (name, expected) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cache-control", "no-cache"),
    ] {
        assert_eq!(header(response.headers(), name), expected);
    }
    let document = text(response).await;
    for mark in [" style=", "<style", "javascript:", " onclick", " onload", "//"] {
        assert!(!document.contains(mark), "{mark}: {document}");
    }
    for script in document.split("<script").skip(1) {
        assert!(script.split_once('>').unwrap().1.trim_start().starts_with("</script>"), "{script}");
    }
}

#[tokio::test]
async fn a_browser_that_has_it_is_told_so() {
    let app = app();
    let tag = header(get(&app, "/").await.headers(), "etag").to_owned();
    assert!(tag.len() > 10 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    let known = ask(&app, Method::GET, "/", &[("if-none-match", &tag)]).await;
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(header(known.headers(), "etag"), tag);
    assert!(known.headers().contains_key("content-security-policy"));
    assert_eq!(text(known).await, "");
    let other = ask(&app, Method::GET, "/", &[("if-none-match", "\"0\"")]).await;
    assert_eq!(other.status(), StatusCode::OK);
}

#[tokio::test]
async fn methods() {
    let app = app();
    let whole = text(get(&app, "/").await).await;
    let head = ask(&app, Method::HEAD, "/", &[]).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(header(head.headers(), "content-length"), whole.len().to_string());
    assert!(head.headers().contains_key("etag"));
    assert_eq!(text(head).await, "");
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let response = ask(&app, method, "/", &[]).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert!(text(response).await.contains("is not supported."));
    }
}

#[tokio::test]
async fn no_name_leads_elsewhere() {
    let app = app();
    for path in [
        "/page/",
        "/page",
        "/page/nothing.js",
        "/page/../Cargo.toml",
        "/page/..%2f..%2fCargo.toml",
        "/page/%00",
        "/page/%ff",
        "/page//etc/passwd",
        "/index.html",
    ] {
        let response = get(&app, path).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(text(response).await.contains("There is no such path on this server."), "{path}");
    }
}

#[tokio::test]
async fn the_page_needs_no_key_and_what_it_calls_does() {
    let app = Scripted::saying(&["x"]).app_with(keys);
    assert_eq!(get(&app, "/").await.status(), StatusCode::OK);
    assert_eq!(get(&app, "/v1/models").await.status(), StatusCode::UNAUTHORIZED);
    let with_key = ask(&app, Method::GET, "/v1/models", &[("authorization", "Bearer sk-right")]).await;
    assert_eq!(with_key.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_page_is_there_before_the_model() {
    let (app, opening) = starting(Page::Shown);
    let before = get(&app, "/").await;
    assert_eq!(before.status(), StatusCode::OK);
    assert!(before.headers().contains_key("content-security-policy"));
    let before = text(before).await;
    assert_eq!(get(&app, "/ready").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    opening.open(Scripted::saying(&["x"]).app());
    assert_eq!(text(get(&app, "/").await).await, before);
    assert_eq!(get(&app, "/ready").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn without_a_page_the_api_is_as_it_was() {
    let (app, opening) = starting(Page::Off);
    assert_eq!(get(&app, "/").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    opening.open(Scripted::saying(&["x"]).app_with(|settings| settings.page = Page::Off));
    for path in ["/", "/page/index.html"] {
        assert_eq!(get(&app, path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["/v1/models", "/health", "/ready", "/openapi.json"] {
        assert_eq!(get(&app, path).await.status(), StatusCode::OK, "{path}");
    }
}

/// A page of another site neither frames it nor reads it.
#[tokio::test]
async fn other_sites_get_nothing() {
    let response = ask(&app(), Method::GET, "/", &[("origin", "https://example.org")]).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let own = ask(&app(), Method::GET, "/", &[("origin", "http://127.0.0.1:8000")]).await;
    assert_eq!(own.status(), StatusCode::OK);
}
