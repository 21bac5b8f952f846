//! Local files of the DashScope SDKs: a certificate, a form, and a request that names the file.

use axum::http::HeaderMap;
use ocellus_engine::Part;

use super::*;

const UPLOADS: &str = "/api/v1/uploads";
const POLICY: &str = "/api/v1/uploads?action=getPolicy&model=qwen-vl-max";
const GENERATE: &str = "/api/v1/services/aigc/multimodal-generation/generation";

async fn ask_policy(app: &axum::Router, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let mut request = HttpRequest::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(app.clone(), request.body(Body::empty()).unwrap()).await
}

async fn json_of(response: Response<Body>) -> Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

async fn certificate(app: &axum::Router, key: &str) -> Value {
    let bearer = format!("Bearer {key}");
    let response = ask_policy(app, POLICY, &[("authorization", &bearer), ("host", "here:8000")]).await;
    assert_eq!(response.status(), 200);
    json_of(response).await["data"].clone()
}

/// A form as the SDK writes it: the text fields, then the file.
fn form(certificate: &Value, key: &str, file: &[u8]) -> HttpRequest<Body> {
    let text = |name: &str| certificate[name].as_str().unwrap();
    let mut body = Vec::new();
    for (name, value) in [
        ("OSSAccessKeyId", text("oss_access_key_id")),
        ("Signature", text("signature")),
        ("policy", text("policy")),
        ("key", key),
        ("x-oss-object-acl", text("x_oss_object_acl")),
        ("x-oss-forbid-overwrite", text("x_oss_forbid_overwrite")),
        ("success_action_status", "200"),
        ("x-oss-content-type", "image/png"),
    ] {
        let field = format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(field.as_bytes());
    }
    let head = "--edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\n\r\n";
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(file);
    body.extend_from_slice(b"\r\n--edge--\r\n");
    post_form("multipart/form-data; boundary=edge", body)
}

fn post_form(kind: &str, body: impl Into<Body>) -> HttpRequest<Body> {
    HttpRequest::post(UPLOADS).header("content-type", kind).body(body.into()).unwrap()
}

/// Asks about an uploaded file; the status, and the message of a refusal.
async fn ask(app: &axum::Router, path: &str, headers: &[(&str, &str)], url: &str) -> (u16, String) {
    let messages = json!([{"role": "user", "content": [{"image": url}, {"text": "?"}]}]);
    let body = json!({"model": "eye", "messages": messages, "input": {"messages": messages}});
    let mut request = post(path, body.to_string());
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.insert(axum::http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    request.headers_mut().extend(all);
    let response = send(app.clone(), request).await;
    let status = response.status().as_u16();
    let body = json_of(response).await;
    let message = body["message"].as_str().or(body["error"]["message"].as_str());
    (status, message.unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_certificate() {
    let engine = Scripted::saying(&["x"]);
    let app = engine.app_with(keys);
    let key = ("authorization", "Bearer sk-right");
    let answer = json_of(ask_policy(&app, POLICY, &[key, ("host", "127.0.0.1:8000")]).await).await;
    let mut data = answer["data"].clone();
    assert!(answer["request_id"].is_string());
    for (name, length) in [("policy", 100), ("signature", 44)] {
        assert!(data[name].as_str().is_some_and(|text| text.len() >= length), "{data}");
        data[name] = json!("…");
    }
    insta::assert_snapshot!(redact(&serde_json::to_string_pretty(&data).unwrap()));

    let public = engine.app_with(|settings| {
        settings.public_url = Some("https://example.org/eye/".parse().unwrap());
    });
    let data = certificate(&public, "sk-right").await;
    assert_eq!(data["upload_host"], "https://example.org/eye/api/v1/uploads");
}

#[tokio::test]
async fn certificates_refused() {
    let app = Scripted::saying(&["x"]).app_with(keys);
    let key = ("authorization", "Bearer sk-right");
    let host = ("host", "here");
    let check = async |path: &str, headers: &[(&str, &str)], status: u16, code: &str| {
        let response = ask_policy(&app, path, headers).await;
        assert_eq!(response.status(), status, "{path} {headers:?}");
        assert_eq!(json_of(response).await["code"], code, "{path} {headers:?}");
    };
    check(POLICY, &[host], 401, "InvalidApiKey").await;
    check(POLICY, &[("authorization", "Bearer x"), host], 401, "InvalidApiKey").await;
    check(UPLOADS, &[key, host], 400, "InvalidParameter").await;
    check("/api/v1/uploads?action=putPolicy&model=eye", &[key, host], 400, "InvalidParameter").await;
    check("/api/v1/uploads?action=getPolicy", &[key, host], 400, "BadRequest.EmptyModel").await;
    check("/api/v1/uploads?action=getPolicy&model=x", &[key, host], 404, "ModelNotFound").await;
    check(POLICY, &[key], 400, "InvalidParameter").await;
    check(POLICY, &[key, ("host", "a/b")], 400, "InvalidParameter").await;
}

#[tokio::test]
async fn a_file_is_for_its_key_alone() {
    let engine = Scripted::saying(&["x"]);
    let app = engine.app_with(keys);
    let certificate = certificate(&app, "sk-right").await;
    let key = format!("{}/my bild ä.png", certificate["upload_dir"].as_str().unwrap());
    let file: Vec<u8> = (0..300_000u32).map(|number| number as u8).collect();
    for _ in 0..2 {
        let answer = read(send(app.clone(), form(&certificate, &key, &file)).await).await;
        assert!(answer.starts_with("200 OK\n"), "{answer}");
    }
    let url = format!("oss://{key}");
    let resolve = ("x-dashscope-ossresourceresolve", "enable");
    let (right, other) = (("authorization", "Bearer sk-right"), ("authorization", "Bearer sk-other"));
    for path in [GENERATE, CHAT] {
        assert_eq!(ask(&app, path, &[right, resolve], &url).await.0, 200, "{path}");
        let request = engine.last_request();
        let Part::Image(image) = &request.messages[0].parts[0] else { panic!("{request:?}") };
        assert!(image.bytes[..] == file, "{path}");

        let unknown = (400, "Failed to download multimodal content.".to_owned());
        assert_eq!(ask(&app, path, &[other, resolve], &url).await, unknown, "{path}");
        assert_eq!(ask(&app, path, &[right, resolve], "oss://ocellus/x/y.png").await, unknown, "{path}");
        let invalid = "The provided URL does not appear to be valid. Ensure it is correctly formatted.";
        let invalid = (400, invalid.to_owned());
        assert_eq!(ask(&app, path, &[right], &url).await, invalid, "{path}");
        let off = ("x-dashscope-ossresourceresolve", "disable");
        assert_eq!(ask(&app, path, &[right, off], &url).await, invalid, "{path}");
    }
}

#[tokio::test]
async fn forms_refused() {
    let app = Scripted::saying(&["x"]).app_with(keys);
    let certificate = certificate(&app, "sk-right").await;
    let folder = certificate["upload_dir"].as_str().unwrap();
    let check = async |request: HttpRequest<Body>, status: u16, message: &str| {
        let response = send(app.clone(), request).await;
        let read = (response.status().as_u16(), json_of(response).await["message"].clone());
        assert_eq!(read, (status, json!(message)));
    };
    let key = format!("{folder}/a.png");
    let denied = "The upload is not allowed. The policy does not allow this key.";
    check(form(&certificate, &format!("{folder}/../a.png"), b"x"), 403, denied).await;
    check(form(&certificate, "elsewhere/a.png", b"x"), 403, denied).await;
    let mut forged = certificate.clone();
    forged["policy"] = json!("e30=");
    check(form(&forged, &key, b"x"), 403, "The upload is not allowed. The signature does not match.").await;
    assert_eq!(send(app.clone(), form(&certificate, &key, b"one")).await.status(), 200);
    let exists = "Another file was uploaded under this name already.";
    check(form(&certificate, &key, b"two"), 409, exists).await;

    let unreadable = |reason: &str| format!("The upload form can't be read: {reason}.");
    check(post_form("application/json", "{}"), 400, &unreadable("it is no multipart/form-data")).await;
    let kind = "multipart/form-data; boundary=edge";
    check(post_form(kind, ""), 400, &unreadable("it is broken or was cut off")).await;
    check(post_form(kind, "--edge--\r\n"), 400, &unreadable("it has no field 'file'")).await;
    let field = |name: &str, value: &str| {
        format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let long = field("policy", &"x".repeat(20_000)) + "--edge--\r\n";
    check(post_form(kind, long), 400, &unreadable("a field of text is too long")).await;
    let many = field("x", "y").repeat(40) + "--edge--\r\n";
    check(post_form(kind, many), 400, &unreadable("it has too many fields")).await;
    let file_first = field("file", "x") + "--edge--\r\n";
    let denied = "The upload is not allowed. The signature does not match.";
    check(post_form(kind, file_first), 403, denied).await;
}

/// Whoever starts forms and never goes on holds up other forms, but no request.
#[tokio::test]
async fn forms_that_hang() {
    let engine = Scripted::saying(&["x"]);
    let app = engine.app_with(keys);
    let (key, kind) = (("authorization", "Bearer sk-right"), "multipart/form-data; boundary=edge");
    let hanging: Vec<_> = (0..100)
        .map(|_| {
            let body = Body::from_stream(stream::pending::<std::io::Result<&str>>());
            tokio::spawn(send(app.clone(), post_form(kind, body)))
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(send(app.clone(), post_form(kind, "--edge--\r\n")).await.status(), 429);
    assert_eq!(ask(&app, GENERATE, &[key], "data:;base64,aGk=").await.0, 200);
    for form in hanging {
        form.abort();
        let _ = form.await;
    }
    assert_eq!(send(app, post_form(kind, "--edge--\r\n")).await.status(), 400);
}
