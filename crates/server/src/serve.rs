//! From an address to a running server, and back down in order.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio::sync::Notify;

use crate::connection::{self, ConnectionLimits};
use crate::{Dialect, Error, Keys, Refusal, answer_body, body};

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Bind {
    /// An address or a name.
    pub host: String,
    /// 0 takes any free one.
    pub port: u16,
    /// Accept requests from other machines without a key.
    pub allow_no_key: bool,
}

impl Bind {
    /// Takes the port, so that a conflict is seen before minutes of loading.
    ///
    /// # Errors
    /// [`Error::Exposed`] when other machines could reach the server and no key protects it; [`Error::Listen`].
    pub fn listen(&self, keys: &Keys) -> Result<TcpListener, Error> {
        let fault = |error: std::io::Error| Error::Listen {
            host: self.host.clone(),
            port: self.port,
            reason: error.to_string(),
        };
        // Accept `[::1]` as well, which is how URLs spell it.
        let host = self.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&self.host);
        let addresses: Vec<SocketAddr> =
            std::net::ToSocketAddrs::to_socket_addrs(&(host, self.port)).map_err(fault)?.collect();
        let local = addresses.iter().all(|address| address.ip().to_canonical().is_loopback());
        if !local && keys.is_empty() && !self.allow_no_key {
            return Err(Error::Exposed { host: self.host.clone() });
        }
        let listener = TcpListener::bind(addresses.as_slice()).map_err(fault)?;
        listener.set_nonblocking(true).map_err(fault)?;
        Ok(listener)
    }
}

/// For how long and for how many.
#[derive(Clone, Copy, Debug)]
pub struct Serving {
    /// What running answers get to finish after the stop.
    pub drain: Duration,
    /// What clients may keep open.
    pub connections: ConnectionLimits,
}

/// Serves until `stop` is over. Then running answers may finish for at most [`Serving::drain`]: meanwhile new requests
/// are refused with 503, and `/ready` says so to whoever sends them; those that still run at the end are cut off.
///
/// # Errors
/// [`Error::Serve`] when the listener can't be used.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    Serving { drain, connections }: Serving,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let running = Arc::new(Running::default());
    let app = app.layer(middleware::from_fn_with_state(running.clone(), count));
    let (closed, closing) = tokio::sync::watch::channel(false);
    let serving = connection::serve_all(listener, app, connections, closing);
    let bound = async move {
        stop.await;
        running.draining.store(true, Ordering::SeqCst);
        let drained = tokio::time::timeout(drain, running.until_none()).await;
        // Connections without a request are closed now, and no further ones are accepted.
        let _ = closed.send(true);
        if drained.is_ok() {
            // What was answered last must still be written to its connection.
            tokio::time::sleep(LAST_BYTES).await;
        }
        drop(closed);
        drained.is_ok()
    };
    tokio::select! {
        () = serving => Ok(()),
        drained = bound => {
            if !drained {
                tracing::warn!("answers were still running at the end of the drain time and were cut off");
            }
            Ok(())
        }
    }
}

/// A client that reads so slowly after its answer is complete loses the end of it.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// Requests between their first byte and the last byte of their answer.
#[derive(Debug, Default)]
struct Running {
    count: AtomicUsize,
    draining: AtomicBool,
    changed: Notify,
}

impl Running {
    async fn until_none(&self) {
        loop {
            let changed = self.changed.notified();
            if self.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// Counts a request as long as it lives.
#[derive(Debug)]
struct Place(Arc<Running>);

impl Place {
    fn new(running: Arc<Running>) -> Self {
        running.count.fetch_add(1, Ordering::SeqCst);
        Self(running)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_one();
    }
}

/// Around everything: counts requests, and refuses new ones while the server stops. Operators may still look.
async fn count(State(running): State<Arc<Running>>, request: Request, next: Next) -> Response {
    // The order matters: who is counted before the flag is set is waited for.
    let place = Place::new(running.clone());
    let path = request.uri().path();
    if running.draining.load(Ordering::SeqCst) && !matches!(path, "/health" | "/metrics") {
        let dialect = Dialect::of_path(path);
        let (parts, rest) = request.into_parts();
        body::drain(&parts.headers, rest).await;
        return Refusal::NotReady.answer(dialect, &uuid::Uuid::new_v4().to_string());
    }
    next.run(request).await.map(|body| answer_body::while_alive(body, place))
}
