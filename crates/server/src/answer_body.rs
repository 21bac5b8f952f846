//! The body of an answer with something that must live as long as it, and nothing else changed: its length stays
//! known where it was.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tracing::Span;

/// Drops `kept` when the body has been sent or given up.
pub(crate) fn while_alive(body: Body, kept: impl Send + Unpin + 'static) -> Body {
    Body::new(Kept { body, span: Span::none(), _kept: kept })
}

/// Logs what happens while the body is being made under a request's span.
pub(crate) fn in_span(body: Body, span: Span) -> Body {
    Body::new(Kept { body, span, _kept: () })
}

struct Kept<K> {
    /// First, so that it is dropped first: what it owns ends before the last guard does.
    body: Body,
    span: Span,
    _kept: K,
}

impl<K: Unpin> HttpBody for Kept<K> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let _entered = this.span.enter();
        Pin::new(&mut this.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
