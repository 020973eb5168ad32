//! The HTTP layer, and the only one that knows HTTP: the admin API, the data API, problems, health and the OpenAPI
//! document.
//!
//! [`admin_router`] and [`data_router`] are tower services. [`crate::serve`] binds them to sockets; an embedded command
//! calls the first one as a function. Handlers read the catalog, submit operations, and write small changes together
//! with their event. They open a tenant's database only through the router, and never do slow work.

pub(crate) mod admin;
pub(crate) mod admission;
pub(crate) mod data;
pub(crate) mod error;
pub(crate) mod extract;
pub(crate) mod gauges;
pub(crate) mod health;
pub(crate) mod idempotency;
pub(crate) mod limits;
pub(crate) mod middleware;
pub mod openapi;
pub(crate) mod pages;
pub(crate) mod replay;
pub(crate) mod request_shape;
pub(crate) mod routes;
pub(crate) mod time;
pub(crate) mod unread_body;

use std::sync::{Arc, Mutex};

pub use error::status_of;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::auth::operator::OperatorAuthenticator;
use crate::disks::BaseDirectory;
use crate::tls::CertificateReloader;

/// The state that every handler gets. Clones share it.
#[derive(Clone)]
pub(crate) struct ApiState {
    pub(crate) app: Arc<App>,
    pub(crate) operators: Arc<OperatorAuthenticator>,
    /// Cancelled when the process begins to shut down. It is then not ready any more, and long polls and streams end.
    pub(crate) draining: CancellationToken,
    /// How requests arrive. A call in this process has no connection and no host.
    pub(crate) transport: RequestTransport,
    /// The metrics. `None` in a process that records none.
    pub(crate) metrics: Option<PrometheusHandle>,
    /// The certificate. `None` without TLS.
    pub(crate) certificates: Option<Arc<CertificateReloader>>,
    /// Directories of databases, as the catalog named them at the last reading.
    pub(crate) bases: Arc<Mutex<Vec<BaseDirectory>>>,
    /// Idempotency keys of requests that are running.
    pub(crate) running: Arc<idempotency::RunningKeys>,
    /// The gauges of `/metrics` about the fleet.
    pub(crate) gauges: Arc<gauges::FleetGauges>,
}

impl ApiState {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self {
            running: Arc::new(idempotency::RunningKeys::of_process(&app.process_name)),
            app,
            operators: Arc::default(),
            draining: CancellationToken::new(),
            transport: RequestTransport::InProcess,
            metrics: None,
            certificates: None,
            bases: Arc::default(),
            gauges: Arc::default(),
        }
    }

    /// The state of an API that shows what `metrics` records.
    pub(crate) fn with_metrics(app: Arc<App>, metrics: Option<PrometheusHandle>) -> Self {
        Self { metrics, transport: RequestTransport::Http, ..Self::new(app) }
    }
}

/// How requests arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestTransport {
    /// Over a socket, from any client.
    Http,
    /// As a function call in this process.
    InProcess,
}

/// The admin API, to be called inside this process. It opens no listener and records no metrics.
pub fn admin_router(app: Arc<App>) -> axum::Router {
    routes::admin_service(ApiState::new(app))
}

/// The data API of this process.
pub fn data_router(app: Arc<App>) -> axum::Router {
    routes::data_service(ApiState::new(app))
}

impl std::fmt::Debug for ApiState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiState").field("draining", &self.draining.is_cancelled()).finish_non_exhaustive()
    }
}
