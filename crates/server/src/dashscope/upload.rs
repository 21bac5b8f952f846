//! How local files come here: `GET …/uploads?action=getPolicy&model=NAME` gives permission, a form posted to the same
//! path brings a file.

use std::sync::Arc;

use axum::extract::{Extension, Request, State as Shared};
use axum::http::header::HOST;
use reqwest::Url;
use serde_json::{Value, json};

use crate::envelope::RequestId;
use crate::uploads::{self, ACCESS_KEY_ID, PublicUrl};
use crate::{Refusal, State, body};

const MEBIBYTE: u64 = 1 << 20;

/// A certificate for all files of one call.
pub(super) async fn policy(
    Shared(state): Shared<Arc<State>>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<axum::Json<Value>, Refusal> {
    let query = query(request.uri().query().unwrap_or_default());
    let value = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    if value("action") != Some("getPolicy") {
        return Err(Refusal::BadValue { message: "'action' must be getPolicy".into() });
    }
    match value("model") {
        None | Some("") => return Err(Refusal::ModelMissing),
        Some(name) if !state.names.knows(name) => return Err(Refusal::ModelUnknown { name: name.into() }),
        Some(_) => {}
    }
    let host = || request.headers().get(HOST)?.to_str().ok().and_then(PublicUrl::of_host);
    let here = state.public_url.clone().or_else(host);
    let here =
        here.ok_or_else(|| Refusal::BadValue { message: "The Host header is missing or no host".into() })?;

    let limits = state.uploads.limits();
    let certificate = state.uploads.certify(state.uploads.owner(request.headers()));
    let data = json!({
        "policy": certificate.policy,
        "signature": certificate.signature,
        "upload_dir": certificate.folder,
        "upload_host": here.join(super::UPLOADS),
        "expire_in_seconds": limits.certificate.as_secs(),
        "max_file_size_mb": limits.file_bytes / MEBIBYTE,
        "capacity_limit_mb": limits.owner_bytes / MEBIBYTE,
        "oss_access_key_id": ACCESS_KEY_ID,
        "x_oss_object_acl": "private",
        "x_oss_forbid_overwrite": "true",
    });
    Ok(axum::Json(json!({"request_id": request_id, "data": data})))
}

/// A file. Clients send no key with it: the certificate says whose it is.
pub(super) async fn file(Shared(state): Shared<Arc<State>>, request: Request) -> Result<(), Refusal> {
    let (parts, rest) = request.into_parts();
    let Some(_place) = state.uploads.place() else {
        body::drain(&parts.headers, rest).await;
        return Err(Refusal::Busy);
    };
    uploads::receive(&state.uploads, &parts.headers, rest).await
}

fn query(text: &str) -> Vec<(String, String)> {
    // The parser wants a whole URL; any host will do.
    let url = Url::parse(&format!("http://localhost/?{text}")).ok();
    url.map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default()
}
