//! From an address to a running server, and back down in order.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;

use crate::{Error, Keys};

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

/// Serves until `stop` is over, then lets running answers finish for at most `drain`; new connections are refused
/// meanwhile.
///
/// # Errors
/// [`Error::Serve`] when connections can't be accepted.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    drain: Duration,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (stopped, mut stopping) = tokio::sync::watch::channel(false);
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
        stop.await;
        // The receiver below lives as long as this future is polled.
        let _ = stopped.send(true);
    });
    let bound = async move {
        // An error means that serving is over already.
        let _ = stopping.wait_for(|stopped| *stopped).await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        served = serving.into_future() => Ok(served?),
        () = bound => {
            tracing::warn!("answers were still running at the end of the drain time");
            Ok(())
        }
    }
}
