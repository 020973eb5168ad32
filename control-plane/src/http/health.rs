//! `/livez`, `/readyz`, `/metrics`: for supervisors and collectors, without credentials and without details.

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::extract::Json;
use super::middleware::OwnBody;
use crate::descriptors;
use crate::disks::{self, Base};

/// Whether the process should get requests.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// True when every check is.
    ready: bool,
    /// Each reason.
    checks: Vec<ReadyCheck>,
}

/// One condition of being ready.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReadyCheck {
    /// Which.
    name: &'static str,
    /// Whether it holds.
    ok: bool,
    /// Why not, or what else is wrong; empty when all is well.
    detail: String,
}

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "health", security(()), responses((status = 200, description = "The process runs", body = String)))]
pub(crate) async fn livez() -> &'static str {
    "ok"
}

/// The process should get requests.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses(
    (status = 200, description = "Ready", body = Readiness), (status = 503, description = "Not ready, with reasons", body = Readiness)))]
pub(crate) async fn readyz(State(api): State<Api>) -> Response {
    let bases = directories(&api).await;
    let checks = vec![
        serving(&api),
        check("catalog", bases.as_ref().map(drop).map_err(|why| *why)),
        check("data_dir", writable(&api)),
        room(&api, &bases.unwrap_or_default()),
        check("open_files", descriptors::check_free(&api.app.config.data_dir)),
        runner(&api),
        workers(&api),
    ];
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Extension(OwnBody), Json(Readiness { ready, checks })).into_response()
}

/// Prometheus text.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()), responses((status = 200, description = "Prometheus text", body = String)))]
pub(crate) async fn metrics(State(api): State<Api>) -> Response {
    api.gauges.refresh(&api.app).await;
    let text = api.metrics.as_ref().map(metrics_exporter_prometheus::PrometheusHandle::render).unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn check(name: &'static str, found: Result<(), &'static str>) -> ReadyCheck {
    ReadyCheck { name, ok: found.is_ok(), detail: found.err().unwrap_or_default().to_owned() }
}

fn serving(api: &Api) -> ReadyCheck {
    let draining = api.draining.is_cancelled();
    check("serving", if draining { Err("the process is shutting down") } else { Ok(()) })
}

fn runner(api: &Api) -> ReadyCheck {
    let alive = api.app.runner_alive();
    check("runner", if alive { Ok(()) } else { Err("steps are not being run") })
}

fn workers(api: &Api) -> ReadyCheck {
    let stuck = api.app.sqlite_stuck();
    check("workers", if stuck { Err("too many SQLite workers are stuck in statements") } else { Ok(()) })
}

/// Servers that are directories, from the catalog; an answer shows that it can be read.
async fn directories(api: &Api) -> Result<Vec<Base>, &'static str> {
    let answers = async {
        let mut tx = api.app.catalog.read().await?;
        catalog::servers::directories(&mut tx).await
    };
    answers.await.map_err(|_| "the catalog does not answer")
}

/// Asks the file system, without writing: a probe must not wear the disk.
fn writable(api: &Api) -> Result<(), &'static str> {
    let directory = &api.app.config.data_dir;
    rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).map_err(|_| "the data directory cannot be written")
}

fn room(api: &Api, bases: &[Base]) -> ReadyCheck {
    let data_dir = disks::of_data_dir(&api.app.config.data_dir, &api.app.catalog);
    let (ok, detail) = disks::readiness(&data_dir, &disks::of_bases(bases));
    ReadyCheck { name: "disk_space", ok, detail }
}
