//! Connections: how many are open, how long a silent one stays so, and that an answer ends with its client.
//!
//! Requests have bounds of their own in [`crate::body`]; these hold before there is a request, between two, and while
//! an answer is being written.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tower::ServiceExt;

/// What clients may keep of the server without asking it anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open connections. Further ones wait, unanswered, until one of these is closed.
    pub open: usize,
    /// From the first moment of a connection, and from the end of each answer on it, to the end of the next request's
    /// head. A connection without a request is closed after it.
    pub head: Duration,
    /// A client that takes no byte of its answer for so long has gone.
    pub unread: Duration,
}

impl Default for ConnectionLimits {
    /// Half of the files that most systems let a process open, and as long as clients keep an idle connection.
    fn default() -> Self {
        Self { open: 512, head: Duration::from_secs(30), unread: Duration::from_secs(60) }
    }
}

/// Serves connections until `closing` becomes true, then closes those without a request and waits for the others.
/// Dropping it cuts all of them off.
pub(crate) async fn serve_all(
    listener: TcpListener,
    app: Router,
    limits: ConnectionLimits,
    closing: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let closed = is_true(closing.clone());
    tokio::pin!(closed);
    loop {
        tokio::select! {
            () = &mut closed => break,
            // How a connection ended is nobody's business: clients leave as they like.
            Some(_) = connections.join_next() => {}
            stream = accept(&listener), if connections.len() < limits.open.max(1) => {
                connections.spawn(serve_one(stream, app.clone(), limits, closing.clone()));
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The next connection. Faults of single clients are passed over; without free files it tries again later.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => match error.kind() {
                ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset => {}
                _ => {
                    tracing::error!(%error, "a connection can't be accepted");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
        }
    }
}

/// Waits for the word, or for a sender that is gone without it.
async fn is_true(mut word: watch::Receiver<bool>) {
    let _ = word.wait_for(|word| *word).await;
}

async fn serve_one(stream: TcpStream, app: Router, limits: ConnectionLimits, closing: watch::Receiver<bool>) {
    // Tokens are small and must not wait for each other.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| app.clone().oneshot(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .serve_connection(TokioIo::new(Watched::new(stream, limits.unread)), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = is_true(closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// A connection that fails when its client is gone: at once when the client has closed it, after a while when it only
/// stopped reading.
struct Watched {
    stream: TcpStream,
    unread: Duration,
    /// There while a write waits for the client.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    fn new(stream: TcpStream, unread: Duration) -> Self {
        Self { stream, unread, deadline: None }
    }

    /// Bounds the wait of a write.
    fn bounded<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let unread = self.unread;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(unread)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether the client has closed its side. The HTTP library looks for it by reading, but not when it has read bytes
    /// beyond the request already: a line break after the body is enough.
    fn is_closed(&self, context: &mut Context<'_>) -> bool {
        let mut byte = [0];
        match self.stream.poll_peek(context, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(count)) => count == 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.bounded(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called whenever the connection is looked after, so it is here that a client is missed.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_closed(context) {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
