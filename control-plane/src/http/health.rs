//! `/livez`, `/readyz`, `/metrics`: for supervisors and collectors, without credentials and without details.

use std::sync::PoisonError;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet_api::readiness::{ReadinessReport, ReadyCheck};

use super::ApiState;
use super::extract::JsonBody;
use super::middleware::OwnBody;
use crate::descriptors;
use crate::disks::{self, BaseDirectory};
use crate::tls::validity::ValidityPhase;

/// Report that the process runs.
#[utoipa::path(get, path = "/livez", tag = "health", security(()), responses((status = 200, description = "The process runs", body = String)))]
pub(crate) async fn report_liveness() -> &'static str {
    "ok"
}

/// Report whether the process is ready for requests.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses(
    (status = 200, description = "The process is ready for requests", body = ReadinessReport), (status = 503, description = "The process is not ready; the checks contain the reasons", body = ReadinessReport)))]
pub(crate) async fn report_readiness(State(api): State<ApiState>) -> Response {
    let (bases, catalog) = directory_servers(&api).await;
    let mut checks = vec![
        serving_check(&api),
        ready_check("catalog", catalog),
        ready_check("data_dir", check_writable(&api)),
        disk_space_check(&api, &bases),
        ready_check("open_files", descriptors::check_free(&api.app.config.data_dir)),
        runner_check(&api),
        workers_check(&api),
    ];
    checks.extend(certificate_check(&api));
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Extension(OwnBody), JsonBody(ReadinessReport { ready, checks })).into_response()
}

/// Get the metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()), responses((status = 200, description = "Metrics in the text format of Prometheus", body = String)))]
pub(crate) async fn report_metrics(State(api): State<ApiState>) -> Response {
    api.gauges.refresh_gauges(&api.app).await;
    let text = api.metrics.as_ref().map(metrics_exporter_prometheus::PrometheusHandle::render).unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn ready_check(name: &'static str, found: Result<(), &'static str>) -> ReadyCheck {
    ReadyCheck { name: name.to_owned(), ok: found.is_ok(), detail: found.err().unwrap_or_default().to_owned() }
}

fn serving_check(api: &ApiState) -> ReadyCheck {
    let draining = api.draining.is_cancelled();
    ready_check("serving", if draining { Err("the process is shutting down") } else { Ok(()) })
}

fn runner_check(api: &ApiState) -> ReadyCheck {
    let alive = api.app.runner.is_alive();
    ready_check("runner", if alive { Ok(()) } else { Err("steps are not being run") })
}

fn workers_check(api: &ApiState) -> ReadyCheck {
    let stuck = api.app.sqlite_stuck();
    ready_check("workers", if stuck { Err("too many SQLite workers are stuck in statements") } else { Ok(()) })
}

/// The certificate check. It never makes the process unready, because another process on the same files would have the
/// same certificate.
fn certificate_check(api: &ApiState) -> Option<ReadyCheck> {
    let state = api.certificates.as_ref()?.current_state();
    let age = state.validity.map(|validity| validity.phase_at(api.app.catalog.now()));
    let mut wrong = Vec::new();
    match age {
        Some(ValidityPhase::Expired) => wrong.push("the certificate has expired"),
        Some(ValidityPhase::ExpiresSoon) => wrong.push("the certificate expires soon"),
        Some(ValidityPhase::NotYetValid) => wrong.push("the certificate is not valid yet"),
        Some(ValidityPhase::Valid) | None => {}
    }
    if state.refused.is_some() {
        wrong.push("the new certificate cannot be used; the previous one stays in use");
    }
    Some(ReadyCheck { name: "certificate".to_owned(), ok: true, detail: wrong.join("; ") })
}

/// The servers that are directories, and whether the catalog can be read. If it cannot, the servers are those of the
/// last reading. So each disk is reported even while a full disk has stopped the catalog.
async fn directory_servers(api: &ApiState) -> (Vec<BaseDirectory>, Result<(), &'static str>) {
    let answers = async {
        let mut tx = api.app.catalog.read().await?;
        catalog::servers::server_directories(&mut tx).await
    };
    let found = answers.await;
    let mut known = api.bases.lock().unwrap_or_else(PoisonError::into_inner);
    match found {
        Ok(bases) => {
            known.clone_from(&bases);
            (bases, Ok(()))
        }
        Err(error) if error.kind() == catalog::ErrorKind::DiskFull => {
            (known.clone(), Err("the disk of the catalog is full"))
        }
        Err(_) => (known.clone(), Err("the catalog does not answer")),
    }
}

/// Asks the file system without writing, because a probe must not wear the disk.
fn check_writable(api: &ApiState) -> Result<(), &'static str> {
    let directory = &api.app.config.data_dir;
    rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).map_err(|_| "the data directory cannot be written")
}

fn disk_space_check(api: &ApiState, bases: &[BaseDirectory]) -> ReadyCheck {
    let data_dir = disks::of_data_dir(&api.app.config.data_dir, &api.app.catalog);
    let (ok, detail) = disks::disk_readiness(&data_dir, &disks::of_bases(bases));
    ReadyCheck { name: "disk_space".to_owned(), ok, detail }
}
