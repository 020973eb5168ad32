//! Two listeners and a local socket, the lock of the data directory, and the orderly shutdown.
//!
//! A binary opens the [`App`], calls [`start_server`], and at its end [`RunningServer::stop_serving`]. That call
//! returns when every request that was begun has been answered. SIGHUP calls [`RunningServer::reload_certificate`].

mod bounded;
mod endpoint;
mod socket;
mod timed_stream;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::SocketAddr as SocketPath;
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Address, Handle, Server};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use endpoint::{ServeLock, acquire_lock};
pub use endpoint::{ServerEndpoint, find_running};
pub use socket::AdminSocket;

use crate::app::App;
use crate::config::TlsFiles;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{ApiState, idempotency, routes};
use crate::tls::{CertificateRefresh, CertificateReloader};
use bounded::BoundedAcceptor;

/// How long a client may take for its request line and headers; a slower one is broken or hostile. Also how long a
/// kept-alive connection may be idle.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(30);
/// Time from the handshake to the first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the certificate's files are read, which costs two small reads. A renewal can wait for weeks, a test only
/// for seconds.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(2);

/// Options of a server.
#[derive(Debug, Clone, Copy)]
pub struct ServeOptions {
    /// How long running requests and steps may take to finish after the signal.
    pub drain: Duration,
    /// How long `/readyz` says 503 before the listeners close, so that a load balancer notices.
    pub notice: Duration,
    /// Where the admin API may be reached without TLS.
    pub plain_admin: PlainAdmin,
}

/// Where the admin API may listen without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainAdmin {
    /// Only on this machine, because tokens would cross the network unencrypted.
    LoopbackOnly,
    /// Anywhere, because a proxy in front of it encrypts.
    Anywhere,
}

impl Default for ServeOptions {
    /// 30 s to finish (supervisors wait as long before they kill), no notice, loopback only.
    fn default() -> Self {
        Self { drain: Duration::from_secs(30), notice: Duration::ZERO, plain_admin: PlainAdmin::LoopbackOnly }
    }
}

/// Serves until `stop` is ready, then shuts down in order. Once both listeners answer, `ready` receives their
/// addresses.
///
/// # Errors
/// `already_serving`, `admin_exposed`, `address_in_use`, `tls_invalid`, `data_dir_unusable`.
pub async fn serve_until_stopped(
    app: Arc<App>,
    options: ServeOptions,
    ready: impl FnOnce(&ServerEndpoint) + Send,
    stop: impl Future<Output = ()> + Send,
) -> Result<()> {
    let serving = start_server(app, options).await?;
    ready(serving.server_endpoint());
    stop.await;
    tracing::info!("stopping");
    serving.stop_serving().await;
    Ok(())
}

/// A control plane that answers on its two listeners.
#[derive(Debug)]
pub struct RunningServer {
    endpoint: ServerEndpoint,
    app: Arc<App>,
    api: ApiState,
    handle: Handle<SocketAddr>,
    local: Handle<SocketPath>,
    servers: Vec<JoinHandle<std::io::Result<()>>>,
    options: ServeOptions,
    bound: Option<socket::BoundSocket>,
    // Dropped last: the lock is free once everything else is gone.
    lock: ServeLock,
}

/// Takes the lock, binds both listeners, writes `endpoint.json` and starts to answer.
///
/// # Errors
/// As [`serve_until_stopped`]. On an error nothing listens.
pub async fn start_server(app: Arc<App>, options: ServeOptions) -> Result<RunningServer> {
    let config = &app.config;
    let lock = endpoint::acquire_lock(&config.data_dir).await?;
    check_exposure(config.admin_listen, config.tls.as_ref(), options.plain_admin)?;
    let certificates = config.tls.as_ref().map(CertificateReloader::load_files).transpose()?.map(Arc::new);
    let tls = certificates.as_ref().map(|pair| pair.rustls_config());
    let (admin, admin_at) = bind_listener(config.admin_listen)?;
    let (data, data_at) = bind_listener(config.listen)?;
    let (listener, bound) = socket::bind_socket(&config.data_dir).await?.unzip();
    let mut endpoint = ServerEndpoint::new(admin_at, data_at, tls.is_some());
    endpoint.admin_socket = bound.as_ref().map(|_| socket::RELATIVE.to_owned());
    let mut api = ApiState::with_metrics(Arc::clone(&app), crate::metrics::install_recorder());
    api.certificates.clone_from(&certificates);
    endpoint.owner = Some(app.process_name.clone());
    endpoint.lock = lock.lock_name();
    if let Some(owner) = lock.owner_before() {
        idempotency::release_keys(&app.catalog, owner).await;
        crate::background::webhooks::release_claims(&app.catalog, owner).await;
    }
    let (handle, local) = (Handle::new(), Handle::new());
    let (admin_sockets, data_sockets) = (app.descriptors.admin_sockets, app.descriptors.data_sockets);
    let admin_routes = routes::admin_service(api.clone());
    let mut servers = vec![
        spawn_listener(admin, ("admin", admin_sockets), admin_routes.clone(), tls.clone(), &handle)?,
        spawn_listener(data, ("data", data_sockets), routes::data_service(api.clone()), tls, &handle)?,
    ];
    if let Some(listener) = listener {
        servers.push(spawn_local(listener, ("local", app.descriptors.local_sockets), admin_routes, &local)?);
    }
    if let Some(certificates) = certificates {
        servers.push(tokio::spawn(follow_certificate(certificates, api.draining.clone())));
    }
    lock.publish_endpoint(&endpoint)?;
    tracing::info!(admin_url = %endpoint.admin_url, data_url = %endpoint.data_url, "serving");
    Ok(RunningServer { endpoint, app, api, handle, local, servers, options, bound, lock })
}

/// Loads a new certificate when its files change, until the server ends.
async fn follow_certificate(certificates: Arc<CertificateReloader>, ended: CancellationToken) -> std::io::Result<()> {
    while ended.run_until_cancelled(tokio::time::sleep(CERTIFICATE_INTERVAL)).await.is_some() {
        refresh_certificate(&certificates).await;
    }
    Ok(())
}

async fn refresh_certificate(certificates: &Arc<CertificateReloader>) -> CertificateRefresh {
    let certificates = Arc::clone(certificates);
    crate::tasks::run_blocking(move || certificates.refresh_files()).await
}

impl RunningServer {
    /// The addresses of the server.
    #[must_use]
    pub fn server_endpoint(&self) -> &ServerEndpoint {
        &self.endpoint
    }

    /// Reads the certificate's files again, at once. Nothing else is reloaded.
    pub async fn reload_certificate(&self) {
        let Some(certificates) = &self.api.certificates else {
            tracing::info!("reload requested, but there is no certificate");
            return;
        };
        match refresh_certificate(certificates).await {
            CertificateRefresh::Unchanged => tracing::info!("reload requested: the certificate has not changed"),
            CertificateRefresh::Taken => {}
            CertificateRefresh::Refused => {
                tracing::warn!("reload requested: the new certificate is not usable, the previous one stays in use")
            }
        }
    }

    /// Shuts down in this order: reports not ready, accepts no new connections, finishes running requests and steps,
    /// closes the catalog.
    pub async fn stop_serving(self) {
        self.api.draining.cancel();
        tokio::time::sleep(self.options.notice).await;
        self.handle.graceful_shutdown(Some(self.options.drain));
        self.local.graceful_shutdown(Some(self.options.drain));
        for server in self.servers {
            match server.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a listener failed"),
                Err(error) => tracing::error!(%error, "a listener panicked"),
            }
        }
        self.app.shut_down(self.options.drain).await;
        drop(self.bound);
        self.lock.withdraw_endpoint();
    }
}

fn check_exposure(at: SocketAddr, tls: Option<&TlsFiles>, allowed: PlainAdmin) -> Result<()> {
    if at.ip().is_loopback() || tls.is_some() || allowed == PlainAdmin::Anywhere {
        return Ok(());
    }
    let detail =
        format!("the admin API would listen on {at} without TLS, and tokens would cross the network in the clear");
    Err(Error::new(ErrorKind::AdminExposed, detail).try_next(
        "configure a certificate and a key, or listen on 127.0.0.1, or use --allow-plain-admin if a proxy encrypts",
    ))
}

fn bind_listener(at: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listen = || {
        let listener = TcpListener::bind(at)?;
        let real = listener.local_addr()?;
        Ok((listener, real))
    };
    listen().map_err(|error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::AddrInUse => ErrorKind::AddressInUse,
            _ => ErrorKind::AddressUnusable,
        };
        Error::new(kind, format!("cannot listen on {at}: {error}"))
            .try_next("choose another address, or port 0 for any free one")
            .with_source(error)
    })
}

fn address_unusable(error: std::io::Error) -> Error {
    Error::new(ErrorKind::ListenerUnusable, "the listener cannot be used").with_source(error)
}

/// Applies the settings that all listeners share.
fn configure_server<A: Address + 'static>(server: Server<A>, name: &'static str, handle: &Handle<A>) -> Server<A> {
    let mut server = server.http1_only();
    server.http_builder().http1().header_read_timeout(HEADERS_TIMEOUT).half_close(false);
    let server = server.first_request_timeout(FIRST_REQUEST_TIMEOUT).handle(handle.clone());
    // The listener pauses and continues. Without a line in the log nobody would learn why clients wait.
    server.accept_error_handler(move |from, error| match from {
        None => tracing::error!(listener = name, %error, "a connection could not be accepted"),
        Some(_) => tracing::debug!(listener = name, %error, "a connection ended before its first request"),
    })
}

fn spawn_listener(
    listener: TcpListener,
    (name, sockets_max): (&'static str, usize),
    router: axum::Router,
    tls: Option<RustlsConfig>,
    handle: &Handle<SocketAddr>,
) -> Result<JoinHandle<std::io::Result<()>>> {
    let server = configure_server(axum_server::from_tcp(listener).map_err(address_unusable)?, name, handle);
    let service = router.into_make_service();
    Ok(match tls {
        None => tokio::spawn(server.map(|plain| BoundedAcceptor::new(plain, name, sockets_max)).serve(service)),
        Some(config) => {
            let tls = RustlsAcceptor::new(config).handshake_timeout(FIRST_REQUEST_TIMEOUT);
            tokio::spawn(server.acceptor(BoundedAcceptor::new(tls, name, sockets_max)).serve(service))
        }
    })
}

/// Serves the local socket without TLS: its data stays in this machine.
fn spawn_local(
    listener: std::os::unix::net::UnixListener,
    (name, sockets_max): (&'static str, usize),
    router: axum::Router,
    handle: &Handle<SocketPath>,
) -> Result<JoinHandle<std::io::Result<()>>> {
    let server = configure_server(axum_server::from_unix(listener).map_err(address_unusable)?, name, handle);
    let server = server.map(|plain| BoundedAcceptor::new(plain, name, sockets_max));
    Ok(tokio::spawn(server.serve(router.into_make_service())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_api_in_the_clear_stays_on_this_machine() {
        let local: SocketAddr = "127.0.0.1:8081".parse().unwrap();
        let open: SocketAddr = "0.0.0.0:8081".parse().unwrap();
        let tls = TlsFiles { certificate: "c.pem".into(), key: "k.pem".into() };
        assert!(check_exposure(local, None, PlainAdmin::LoopbackOnly).is_ok());
        assert!(check_exposure(open, Some(&tls), PlainAdmin::LoopbackOnly).is_ok());
        assert!(check_exposure(open, None, PlainAdmin::Anywhere).is_ok());
        assert_eq!(check_exposure(open, None, PlainAdmin::LoopbackOnly).unwrap_err().code(), "admin_exposed");
    }

    #[test]
    fn an_address_in_use_is_named() {
        let (_listener, at) = bind_listener("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = bind_listener(at).unwrap_err();
        assert_eq!(error.code(), "address_in_use");
        assert!(error.detail.contains(&at.to_string()), "{}", error.detail);
    }
}
