//! `/v1/doctor`: the checks that an experienced operator would make first, each with advice.

use axum::extract::State;
use fleet_api::bounded_number::AgeHours;
use fleet_api::doctor::{DoctorCheck, DoctorExpectations, DoctorReport, DoctorVerdict};
use fleet_api::problem::ProblemBody;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::health;
use crate::health::check::{HealthCheck, HealthVerdict};
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::error::Result;
use crate::http::extract::{JsonBody, QueryParams};

/// Default maximum age of the newest backup, hours. A nightly backup may start late.
const BACKUP_AGE_HOURS: u32 = 26;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(run_doctor))
}

/// Check the fleet and change nothing.
///
/// The only exception is a small object that is written to the backup store and removed again.
#[utoipa::path(get, path = "/v1/doctor", tag = "status", params(DoctorExpectations), responses((status = "4XX", description = "The request was refused", body = ProblemBody), (status = 200, description = "Results of the checks", body = DoctorReport)))]
async fn run_doctor(
    State(api): State<ApiState>,
    _caller: AdmittedCaller,
    QueryParams(expected): QueryParams<DoctorExpectations>,
) -> Result<JsonBody<DoctorReport>> {
    let hours = expected.backup_age_hours.map_or(BACKUP_AGE_HOURS, AgeHours::to_u32);
    let found = health::check_fleet(&api.app, api.certificates.as_deref(), hours).await?;
    let checks = found.into_iter().map(DoctorCheck::from).collect();
    Ok(JsonBody(DoctorReport { checks }))
}

impl From<HealthCheck> for DoctorCheck {
    fn from(check: HealthCheck) -> Self {
        let status = match check.verdict {
            HealthVerdict::Ok => DoctorVerdict::Ok,
            HealthVerdict::Warn => DoctorVerdict::Warn,
            HealthVerdict::Fail => DoctorVerdict::Fail,
            HealthVerdict::Unknown => DoctorVerdict::Unknown,
        };
        Self { name: check.name, status, detail: check.detail, next_step: check.next_step }
    }
}
