//! `/v1/doctor`: the checks that an experienced operator would make first, each with advice.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::health;
use crate::health::check::{HealthCheck, HealthVerdict};
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::bounded_number::BoundedNumber;
use crate::http::error::{ProblemBody, Result};
use crate::http::extract::{JsonBody, QueryParams};

/// Default maximum age of the newest backup, hours. A nightly backup may start late.
const BACKUP_AGE_HOURS: u32 = 26;
/// The requested maximum age, hours. At most ten years: a larger number is a typing error.
type AgeHours = BoundedNumber<1, 87_600>;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(run_doctor))
}

/// The results of all checks.
#[derive(Debug, Serialize, ToSchema)]
struct DoctorReport {
    /// One result per check.
    checks: Vec<DoctorCheck>,
}

/// The result of one check.
#[derive(Debug, Serialize, ToSchema)]
struct DoctorCheck {
    /// Name of the check.
    name: String,
    /// Result: ok, warn, fail, or unknown if the check could not be made.
    status: DoctorVerdict,
    /// Description of what the check found.
    detail: String,
    /// Advice for the operator; empty if the result is ok.
    next_step: String,
}

/// The result of a check, by severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum DoctorVerdict {
    Ok,
    Warn,
    Fail,
    Unknown,
}

/// Limits that the checks use.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DoctorExpectations {
    /// Maximum age of each tenant's newest backup, in hours: 1 to 87,600. Default: 26. An older backup fails the check
    /// `backups`.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 87_600)]
    backup_age_hours: Option<AgeHours>,
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
