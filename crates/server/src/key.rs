//! Who may ask.

use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};

use crate::{Refusal, State, body};

/// The accepted keys, as SHA-256 digests: the keys themselves are not kept in memory.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    digests: Vec<[u8; 32]>,
}

impl Keys {
    /// Accepts these keys; with none, every request is accepted.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self { digests: keys.into_iter().map(digest).collect() }
    }

    /// Whether every request is accepted.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Looks at an `Authorization` header.
    pub(crate) fn check(&self, authorization: Option<&HeaderValue>) -> Result<(), Refusal> {
        if self.is_empty() {
            return Ok(());
        }
        let key = authorization.and_then(|value| bearer(value.as_bytes())).ok_or(Refusal::KeyMissing)?;
        let given: [u8; 32] = Sha256::digest(key).into();
        // Every digest is compared in full, so that the time taken tells nothing of how near a guess came.
        let mut known = false;
        for digest in &self.digests {
            let difference = digest.iter().zip(&given).fold(0, |all, (left, right)| all | (left ^ right));
            known |= std::hint::black_box(difference) == 0;
        }
        if known { Ok(()) } else { Err(Refusal::KeyWrong) }
    }
}

/// The layer in front of every route that needs a key: before anything else is read.
pub(crate) async fn check(
    Shared(state): Shared<Arc<State>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    if let Err(refusal) = state.keys.check(request.headers().get(AUTHORIZATION)) {
        let (parts, rest) = request.into_parts();
        body::drain(&parts.headers, rest).await;
        return Err(refusal);
    }
    Ok(next.run(request).await)
}

/// The digest of the key that came with a request; without one, that of the empty text.
pub(crate) fn given(authorization: Option<&HeaderValue>) -> [u8; 32] {
    let key = authorization.and_then(|value| bearer(value.as_bytes())).unwrap_or_default();
    Sha256::digest(key).into()
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// The key in `Bearer KEY`; the scheme's case does not matter.
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = authorization.split_at_checked(b"bearer ".len())?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(keys: &[&str], authorization: Option<&str>, expected: Result<(), Refusal>) {
        let header = authorization.map(|text| HeaderValue::from_str(text).unwrap());
        assert_eq!(
            Keys::new(keys.iter().copied()).check(header.as_ref()),
            expected,
            "{keys:?} {authorization:?}"
        );
    }

    #[test]
    fn keys_are_compared_whole() {
        check(&[], None, Ok(()));
        check(&[], Some("Bearer anything"), Ok(()));
        check(&["sk-one", "sk-two"], Some("Bearer sk-one"), Ok(()));
        check(&["sk-one", "sk-two"], Some("bearer sk-two"), Ok(()));
        check(&["sk-one"], Some("BEARER  sk-one "), Ok(()));
        check(&["sk-one"], None, Err(Refusal::KeyMissing));
        check(&["sk-one"], Some(""), Err(Refusal::KeyMissing));
        check(&["sk-one"], Some("Bearer"), Err(Refusal::KeyMissing));
        check(&["sk-one"], Some("Bearer "), Err(Refusal::KeyMissing));
        check(&["sk-one"], Some("Basic sk-one"), Err(Refusal::KeyMissing));
        check(&["sk-one"], Some("Bearer sk-on"), Err(Refusal::KeyWrong));
        check(&["sk-one"], Some("Bearer sk-one2"), Err(Refusal::KeyWrong));
        check(&["sk-one"], Some("Bearer SK-ONE"), Err(Refusal::KeyWrong));
        check(&["sk-one"], Some("Bearer sk-one sk-one"), Err(Refusal::KeyWrong));
    }
}
