//! Checks of servers: whether they answer, their room and connections, their functions and their roles.

use std::path::Path;

use catalog::ServerRecord;
use tenant_engine::{EngineKind, FunctionRights, RoleAudit, ServerSurvey};

use super::check::HealthCheck;
use super::disks::{disk_check, space_check};
use crate::app::App;
use crate::error::Error;

/// The checks of one server.
pub(super) async fn server_checks(app: &App, record: &ServerRecord) -> Vec<HealthCheck> {
    let survey = survey_server(app, record).await;
    let reached = survey.is_ok();
    let mut checks: Vec<_> =
        survey.as_ref().ok().and_then(|survey| functions_check(record, survey)).into_iter().collect();
    checks.push(server_check(record, survey));
    if reached && record.engine == EngineKind::Postgres {
        checks.push(roles_check(record, audit_roles(app, record).await));
    }
    checks
}

/// The survey of a known server.
pub(crate) async fn survey_server(app: &App, record: &ServerRecord) -> Result<ServerSurvey, Error> {
    let server = app.context.load_server(record.id).await?;
    Ok(app.context.engine_of_kind(record.engine)?.survey_server(&server).await?)
}

/// Checks a server by its survey. The disk of a directory is checked here.
fn server_check(record: &ServerRecord, survey: Result<ServerSurvey, Error>) -> HealthCheck {
    let name = format!("server {}", record.name);
    let next = format!("fleetctl server get {}", record.name);
    let survey = match survey {
        Err(error) => return HealthCheck::new_failure(&name, format!("{}: {}", error.code(), error.detail), &next),
        Ok(survey) if !survey.lacks.is_empty() => {
            return HealthCheck::new_failure(&name, format!("its role lacks {}", survey.lacks.join("; ")), &next);
        }
        Ok(survey) => survey,
    };
    if record.engine == EngineKind::Sqlite {
        return disk_check(&name, Path::new(&record.base));
    }
    match (survey.disk_free_bytes, survey.disk_total_bytes, survey.connections_used, survey.connections_max) {
        (Some(free), Some(total), ..) => space_check(&name, free, total),
        (_, _, Some(used), Some(max)) if used >= max => {
            HealthCheck::new_warning(&name, format!("all {max} connections are in use"), "raise max_connections")
        }
        (_, _, Some(used), Some(max)) => HealthCheck::new_ok(&name, format!("{used} of {max} connections in use")),
        _ => HealthCheck::new_ok(&name, survey.version),
    }
}

/// PURE: checks whether the server itself hides other tenants from a tenant's SQL.
fn functions_check(record: &ServerRecord, survey: &ServerSurvey) -> Option<HealthCheck> {
    if record.engine != EngineKind::Postgres {
        return None;
    }
    let name = format!("server {} functions", record.name);
    let next = format!("fleetctl server prepare {} | psql <connection string of a superuser>", record.name);
    Some(match survey.function_rights {
        Some(FunctionRights::Revoked) => {
            HealthCheck::new_ok(&name, "only the fleet's role may ask about other tenants")
        }
        Some(FunctionRights::RevokedInNew) => {
            let detail = "databases from before the server was prepared rely on the check of each request's SQL alone";
            HealthCheck::new_warning(&name, detail, &next)
        }
        Some(FunctionRights::Outdated) => {
            HealthCheck::new_warning(&name, "the server was prepared by another version of this program", &next)
        }
        Some(FunctionRights::Granted) => {
            let detail = "only the check of each request's SQL keeps other tenants' names from a tenant; temporary files of \
                          a statement have the server's own limit";
            HealthCheck::new_warning(&name, detail, &next)
        }
        None => HealthCheck::new_unknown(&name, "the server did not report who may run its functions", &next),
    })
}

async fn audit_roles(app: &App, record: &ServerRecord) -> Result<RoleAudit, Error> {
    let server = app.context.load_server(record.id).await?;
    Ok(app.context.engine_of_kind(record.engine)?.audit_roles(&server).await?)
}

/// Maximum number of findings in one line.
const FINDINGS_SHOWN: usize = 5;

/// PURE: the check made from an audit of roles, rights and settings.
fn roles_check(record: &ServerRecord, audit: Result<RoleAudit, Error>) -> HealthCheck {
    let name = format!("server {} roles", record.name);
    let audit = match audit {
        Ok(audit) => audit,
        Err(error) => {
            let next = format!("fleetctl server get {}", record.name);
            return HealthCheck::new_unknown(
                &name,
                format!("could not look: {}: {}", error.code(), error.detail),
                &next,
            );
        }
    };
    if audit.findings.is_empty() {
        let (entered, databases) = (audit.entered, audit.databases);
        return HealthCheck::new_ok(
            &name,
            format!("as the fleet creates them; {entered} of {databases} databases were checked"),
        );
    }
    let shown = audit.findings.iter().take(FINDINGS_SHOWN);
    let more = audit.findings.len().saturating_sub(FINDINGS_SHOWN);
    let (what, cures): (Vec<_>, Vec<_>) = shown.map(|found| (found.what.clone(), found.cure.clone())).unzip();
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let cures: Vec<_> = cures.into_iter().filter(|cure| !cure.is_empty()).collect();
    let next = format!("find out who changed it, then run on the server: {}", cures.join("; "));
    HealthCheck::new_failure(&name, format!("{}{more}", what.join("; ")), &next)
}
