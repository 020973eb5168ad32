//! The only place that knows HTTP: the admin API, the data API, problems, health and the OpenAPI document.
//!
//! [`admin_router`] and [`data_router`] are tower services: [`crate::serve`] binds them to sockets, an embedded command
//! calls the first one as a function. Handlers read the catalog, submit operations and write small changes together with
//! their event; they never open a tenant's database but through the router, and never do slow work.

pub(crate) mod admin;
pub(crate) mod admission;
pub(crate) mod data;
pub(crate) mod error;
pub(crate) mod extract;
pub(crate) mod gauges;
pub(crate) mod health;
pub(crate) mod idempotency;
pub(crate) mod middleware;
pub(crate) mod number;
pub mod openapi;
pub(crate) mod pages;
pub(crate) mod routes;
pub(crate) mod shape;
pub(crate) mod time;
pub(crate) mod unread;

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::auth::operator::Operators;

/// What every handler gets. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) app: Arc<App>,
    pub(crate) operators: Arc<Operators>,
    /// Cancelled when the process begins to end: not ready any more, long polls and streams end.
    pub(crate) draining: CancellationToken,
    /// Whether requests come over sockets; a call in this process has no connection and no host.
    pub(crate) transport: Transport,
    /// `None` in a process that records no metrics.
    pub(crate) metrics: Option<PrometheusHandle>,
    /// What `/metrics` says of the fleet.
    pub(crate) gauges: Arc<gauges::Gauges>,
}

impl Api {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self {
            app,
            operators: Arc::default(),
            draining: CancellationToken::new(),
            transport: Transport::InProcess,
            metrics: None,
            gauges: Arc::default(),
        }
    }

    /// The same, showing what `metrics` records.
    pub(crate) fn recording(app: Arc<App>, metrics: Option<PrometheusHandle>) -> Self {
        Self { metrics, transport: Transport::Http, ..Self::new(app) }
    }
}

/// How requests arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Over a socket, from anybody.
    Http,
    /// As a function call.
    InProcess,
}

/// The admin API of this process, to be called in process: nothing listens, nothing is measured.
pub fn admin_router(app: Arc<App>) -> axum::Router {
    routes::admin(Api::new(app))
}

/// The data API of this process.
pub fn data_router(app: Arc<App>) -> axum::Router {
    routes::data(Api::new(app))
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("draining", &self.draining.is_cancelled()).finish_non_exhaustive()
    }
}
