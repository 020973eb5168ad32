//! Two listeners, a lock, and an orderly end.
//!
//! A binary opens the [`App`] and calls [`serve`] with what tells it to stop; it returns when every request that was
//! begun has been answered. Tests call [`start`] and [`Serving::stop`].

mod bounded;
mod endpoint;
mod timed_stream;
mod tls;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use tokio::task::JoinHandle;

pub(crate) use endpoint::lock;
pub use endpoint::{Endpoint, running};

use crate::app::App;
use crate::config::Tls;
use crate::error::{Error, Result};
use crate::http::{Api, routes};
use bounded::Bounded;
use endpoint::ServeLock;

/// A client that needs longer for its request line and headers is broken or hostile; also how long a kept-alive
/// connection may be silent.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(30);
/// From the handshake to the first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How to serve.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long requests and steps that were begun may take to finish after the signal.
    pub drain: Duration,
    /// How long `/readyz` says 503 before the listeners close, so that a load balancer notices.
    pub notice: Duration,
    /// Who may reach the admin API without TLS.
    pub plain_admin: PlainAdmin,
}

/// Where the admin API may listen without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainAdmin {
    /// On this machine only: tokens would cross the network in the clear.
    LoopbackOnly,
    /// Anywhere: something in front of it encrypts.
    Anywhere,
}

impl Default for Options {
    /// 30 s to finish (what supervisors wait before they kill), no notice, loopback only.
    fn default() -> Self {
        Self { drain: Duration::from_secs(30), notice: Duration::ZERO, plain_admin: PlainAdmin::LoopbackOnly }
    }
}

/// Serves until `stop` is ready, then ends in order; `ready` learns where, once both listeners answer.
///
/// # Errors
/// `already_serving`, `admin_exposed`, `address_in_use`, `tls_invalid`, `data_dir_unusable`.
pub async fn serve(
    app: Arc<App>,
    options: Options,
    ready: impl FnOnce(&Endpoint) + Send,
    stop: impl Future<Output = ()> + Send,
) -> Result<()> {
    let serving = start(app, options).await?;
    ready(serving.endpoint());
    stop.await;
    tracing::info!("stopping");
    serving.stop().await;
    Ok(())
}

/// A control plane that answers on its two listeners.
#[derive(Debug)]
pub struct Serving {
    endpoint: Endpoint,
    app: Arc<App>,
    api: Api,
    handle: Handle<SocketAddr>,
    servers: Vec<JoinHandle<std::io::Result<()>>>,
    options: Options,
    // Last: the lock is free once everything else is gone.
    lock: ServeLock,
}

/// Takes the lock, binds both listeners, writes `endpoint.json` and begins to answer.
///
/// # Errors
/// As [`serve`]; nothing listens then.
pub async fn start(app: Arc<App>, options: Options) -> Result<Serving> {
    let config = &app.config;
    let lock = endpoint::lock(&config.data_dir).await?;
    check_exposure(config.admin_listen, config.tls.as_ref(), options.plain_admin)?;
    let tls = config.tls.as_ref().map(tls::load).transpose()?;
    let (admin, admin_at) = bind(config.admin_listen)?;
    let (data, data_at) = bind(config.listen)?;
    let endpoint = Endpoint::new(admin_at, data_at, tls.is_some());
    let api = Api::recording(Arc::clone(&app), crate::metrics::install());
    let handle = Handle::new();
    let servers = vec![
        spawn(admin, ("admin", app.descriptors.admin_sockets), routes::admin(api.clone()), tls.clone(), &handle)?,
        spawn(data, ("data", app.descriptors.data_sockets), routes::data(api.clone()), tls, &handle)?,
    ];
    lock.publish(&endpoint)?;
    tracing::info!(admin_url = %endpoint.admin_url, data_url = %endpoint.data_url, "serving");
    Ok(Serving { endpoint, app, api, handle, servers, options, lock })
}

impl Serving {
    /// Where it answers.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Not ready any more; then no new connections; then the requests and steps that were begun; then the catalog.
    pub async fn stop(self) {
        self.api.draining.cancel();
        tokio::time::sleep(self.options.notice).await;
        self.handle.graceful_shutdown(Some(self.options.drain));
        for server in self.servers {
            match server.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a listener failed"),
                Err(error) => tracing::error!(%error, "a listener panicked"),
            }
        }
        self.app.shutdown(self.options.drain).await;
        self.lock.withdraw();
    }
}

fn check_exposure(at: SocketAddr, tls: Option<&Tls>, allowed: PlainAdmin) -> Result<()> {
    if at.ip().is_loopback() || tls.is_some() || allowed == PlainAdmin::Anywhere {
        return Ok(());
    }
    let detail =
        format!("the admin API would listen on {at} without TLS, and tokens would cross the network in the clear");
    Err(Error::new(422, "admin_exposed", detail)
        .try_next("give a certificate and a key, or listen on 127.0.0.1, or give --allow-plain-admin if something in front encrypts"))
}

fn bind(at: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listen = || {
        let listener = TcpListener::bind(at)?;
        let real = listener.local_addr()?;
        Ok((listener, real))
    };
    listen().map_err(|error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::AddrInUse => "address_in_use",
            _ => "address_unusable",
        };
        Error::new(409, code, format!("cannot listen on {at}: {error}"))
            .try_next("choose another address, or port 0 for any free one")
            .with_source(error)
    })
}

fn spawn(
    listener: TcpListener,
    (name, sockets_max): (&'static str, usize),
    router: axum::Router,
    tls: Option<axum_server::tls_rustls::RustlsConfig>,
    handle: &Handle<SocketAddr>,
) -> Result<JoinHandle<std::io::Result<()>>> {
    let unusable = |error| Error::new(500, "address_unusable", "the listener is unusable").with_source(error);
    let mut server = axum_server::from_tcp(listener).map_err(unusable)?.http1_only();
    server.http_builder().http1().header_read_timeout(HEADERS_TIMEOUT).half_close(false);
    let server = server.first_request_timeout(FIRST_REQUEST_TIMEOUT).handle(handle.clone());
    // The listener waits a moment and goes on; without a line in the log nobody would learn why clients wait.
    let server = server.accept_error_handler(move |from, error| match from {
        None => tracing::error!(listener = name, %error, "a connection could not be accepted"),
        Some(_) => tracing::debug!(listener = name, %error, "a connection ended before its first request"),
    });
    let service = router.into_make_service();
    Ok(match tls {
        None => tokio::spawn(server.map(|plain| Bounded::new(plain, name, sockets_max)).serve(service)),
        Some(config) => {
            let tls = axum_server::tls_rustls::RustlsAcceptor::new(config).handshake_timeout(FIRST_REQUEST_TIMEOUT);
            tokio::spawn(server.acceptor(Bounded::new(tls, name, sockets_max)).serve(service))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_api_in_the_clear_stays_on_this_machine() {
        let local: SocketAddr = "127.0.0.1:8081".parse().unwrap();
        let open: SocketAddr = "0.0.0.0:8081".parse().unwrap();
        let tls = Tls { certificate: "c.pem".into(), key: "k.pem".into() };
        assert!(check_exposure(local, None, PlainAdmin::LoopbackOnly).is_ok());
        assert!(check_exposure(open, Some(&tls), PlainAdmin::LoopbackOnly).is_ok());
        assert!(check_exposure(open, None, PlainAdmin::Anywhere).is_ok());
        assert_eq!(check_exposure(open, None, PlainAdmin::LoopbackOnly).unwrap_err().code, "admin_exposed");
    }

    #[test]
    fn an_address_in_use_is_named() {
        let (_listener, at) = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = bind(at).unwrap_err();
        assert_eq!(error.code, "address_in_use");
        assert!(error.detail.contains(&at.to_string()), "{}", error.detail);
    }
}
