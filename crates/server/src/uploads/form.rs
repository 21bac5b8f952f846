//! A multipart form with a file in it, written to disk as it comes in.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use multer::{Constraints, Multipart, SizeLimit};

use super::{Claim, Incoming, Uploads};
use crate::Refusal;

/// Fields of text are short; the longest is the policy.
const LONGEST_FIELD_BYTES: u64 = 16 << 10;

/// More fields than this are no upload form.
const MOST_FIELDS: usize = 32;

/// A client that is silent for so long in the middle of its file has gone.
const SILENCE: Duration = Duration::from_secs(30);

/// And one that drips has not the right to a place for ever.
const WHOLE: Duration = Duration::from_secs(600);

/// A refused form is read on for so long: closing on a client that still sends resets the connection, and it never
/// sees why.
const LINGER: Duration = Duration::from_secs(5);

/// Reads the form and keeps its file.
pub(crate) async fn receive(uploads: &Arc<Uploads>, headers: &HeaderMap, body: Body) -> Result<(), Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(kind).map_err(|_| malformed("it is no multipart/form-data"))?;
    let limits = SizeLimit::new().per_field(LONGEST_FIELD_BYTES).for_field("file", u64::MAX);
    let constraints = Constraints::new().size_limit(limits);
    let mut form = Multipart::with_constraints(body.into_data_stream(), boundary, constraints);
    let received = tokio::time::timeout(WHOLE, keep_file(uploads, &mut form)).await;
    let received = received.unwrap_or(Err(Refusal::BodyTimedOut));
    if received.is_err() {
        let rest = async { while let Ok(Some(_)) = form.next_field().await {} };
        // Either way the refusal is sent now.
        let _ = tokio::time::timeout(LINGER, rest).await;
    }
    received
}

/// The fields of text come first, the file last.
async fn keep_file(uploads: &Arc<Uploads>, form: &mut Multipart<'_>) -> Result<(), Refusal> {
    let mut claim = Claim::default();
    for _ in 0..MOST_FIELDS {
        let field = in_time(form.next_field()).await?;
        let mut field = field.ok_or_else(|| malformed("it has no field 'file'"))?;
        let place = match field.name() {
            Some("file") => {
                let mut incoming: Incoming = uploads.start(&claim).await?;
                while let Some(bytes) = in_time(field.chunk()).await? {
                    incoming.write(&bytes).await?;
                }
                return incoming.finish().await;
            }
            Some("OSSAccessKeyId") => &mut claim.access_key_id,
            Some("policy") => &mut claim.policy,
            Some("Signature") => &mut claim.signature,
            Some("key") => &mut claim.key,
            _ => continue,
        };
        *place = in_time(field.text()).await?;
    }
    Err(malformed("it has too many fields"))
}

async fn in_time<T>(step: impl Future<Output = multer::Result<T>>) -> Result<T, Refusal> {
    match tokio::time::timeout(SILENCE, step).await {
        Err(_) => Err(Refusal::BodyTimedOut),
        Ok(Err(multer::Error::FieldSizeExceeded { .. })) => Err(malformed("a field of text is too long")),
        Ok(Err(_)) => Err(malformed("it is broken or was cut off")),
        Ok(Ok(read)) => Ok(read),
    }
}

fn malformed(reason: &str) -> Refusal {
    Refusal::BadValue { message: format!("The upload form can't be read: {reason}.") }
}
