//! A request's body as bytes, within a bound in size and in silence.
//!
//! The framework's own extractors answer in plain text and insist on a content type; a client of the hosted service
//! expects neither.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;

use crate::Refusal;

/// Several pictures of 10 MiB as base64 fit in one request.
pub(crate) const LIMIT_BYTES: usize = 64 << 20;

/// A client that is silent for so long in the middle of its body has gone.
const SILENCE: Duration = Duration::from_secs(30);

/// And one that drips has not the right to a place for ever.
const WHOLE: Duration = Duration::from_secs(300);

/// A refused body is read on for so long and so many bytes: closing on a client that still sends resets the
/// connection, and it never sees why.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 4 * LIMIT_BYTES;

/// The whole body.
pub(crate) async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refusal> {
    tokio::time::timeout(WHOLE, gather(headers, body)).await.unwrap_or(Err(Refusal::BodyTimedOut))
}

async fn gather(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refusal> {
    let too_large = Refusal::BodyTooLarge { limit_bytes: LIMIT_BYTES };
    if body.size_hint().lower() > LIMIT_BYTES as u64 {
        drain(headers, body).await;
        return Err(too_large);
    }
    // The announced length is only a hint for the reservation, so a lie costs at most what has really been sent.
    let mut bytes = Vec::with_capacity((body.size_hint().lower() as usize).min(1 << 20));
    let mut pieces = body.into_data_stream();
    loop {
        match tokio::time::timeout(SILENCE, pieces.next()).await {
            Err(_) => return Err(Refusal::BodyTimedOut),
            Ok(None) => return Ok(bytes),
            // The client cut the body short; nobody is likely to read the answer.
            Ok(Some(Err(_))) => return Err(Refusal::BodyMalformed),
            Ok(Some(Ok(piece))) => {
                if bytes.len() + piece.len() > LIMIT_BYTES {
                    drop(bytes);
                    discard(pieces).await;
                    return Err(too_large);
                }
                bytes.extend_from_slice(&piece);
            }
        }
    }
}

/// Reads and forgets a body that is refused unread. A client that asked whether to send it at all is simply not
/// encouraged to.
pub(crate) async fn drain(headers: &HeaderMap, body: Body) {
    if !headers.contains_key(header::EXPECT) {
        discard(body.into_data_stream()).await;
    }
}

async fn discard(mut pieces: impl futures_core::Stream<Item = Result<Bytes, axum::Error>> + Unpin) {
    let all = async {
        let mut seen = 0;
        while let Some(Ok(piece)) = pieces.next().await {
            seen += piece.len();
            if seen > LINGER_BYTES {
                break;
            }
        }
    };
    // Either way the refusal is sent now.
    let _ = tokio::time::timeout(LINGER, all).await;
}
