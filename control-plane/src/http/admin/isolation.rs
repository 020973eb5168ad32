//! `/v1/isolation`: checks of what keeps tenants apart, with evidence.

use axum::extract::State;
use fleet_api::isolation::{IsolationCheck, IsolationReport, IsolationVerdict};
use fleet_api::problem::ProblemBody;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::error::Result;
use crate::http::extract::JsonBody;
use crate::isolation;
use crate::isolation::line::{AuditLine, AuditVerdict};

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(check_isolation))
}

/// Check what keeps tenants apart, and change nothing. Every database is opened to read its identity.
#[utoipa::path(get, path = "/v1/isolation", tag = "status", responses((status = "4XX", description = "The request was refused", body = ProblemBody), (status = 200, description = "Results of the checks", body = IsolationReport)))]
async fn check_isolation(State(api): State<ApiState>, _caller: AdmittedCaller) -> Result<JsonBody<IsolationReport>> {
    let lines = isolation::check_isolation(&api.app).await?;
    Ok(JsonBody(IsolationReport { checks: lines.into_iter().map(IsolationCheck::from).collect() }))
}

impl From<AuditLine> for IsolationCheck {
    fn from(line: AuditLine) -> Self {
        let verdict = match line.verdict {
            AuditVerdict::Pass => IsolationVerdict::Pass,
            AuditVerdict::Fail => IsolationVerdict::Fail,
            AuditVerdict::NotLooked => IsolationVerdict::NotLooked,
            AuditVerdict::NotApplicable => IsolationVerdict::NotApplicable,
        };
        let AuditLine { area, check, evidence, next_step, .. } = line;
        Self { area: area.to_owned(), check, verdict, evidence, next_step }
    }
}
