//! Roles and rights on PostgreSQL servers: a tenant's logins enter one database and nothing else.

use catalog::ServerRecord;
use tenant_engine::{EngineKind, RoleAudit};

use super::line::{AuditLine, few_names};
use crate::app::App;
use crate::error::Error;

const AREA: &str = "roles";

/// The line of one server. A directory of SQLite files has no roles: the files' modes count.
pub(super) async fn role_lines(app: &App, server: &ServerRecord) -> Option<AuditLine> {
    if server.engine != EngineKind::Postgres {
        return None;
    }
    Some(role_line(server, audit_server(app, server).await))
}

async fn audit_server(app: &App, server: &ServerRecord) -> Result<RoleAudit, Error> {
    let address = app.context.load_server(server.id).await?;
    Ok(app.context.engine_of_kind(server.engine)?.audit_roles(&address).await?)
}

/// PURE: the line of an audit of roles.
fn role_line(server: &ServerRecord, audit: Result<RoleAudit, Error>) -> AuditLine {
    let name = format!("server {}", server.name);
    let audit = match audit {
        Ok(audit) => audit,
        Err(error) => {
            let next = format!("fleetctl server get {}", server.name);
            return AuditLine::not_looked(AREA, name, format!("{}: {}", error.code(), error.detail), next);
        }
    };
    if audit.findings.is_empty() {
        let (entered, databases) = (audit.entered, audit.databases);
        let evidence =
            format!("roles and rights of {databases} databases are as the fleet makes them; {entered} were entered");
        return AuditLine::pass(AREA, name, evidence);
    }
    let found: Vec<String> = audit.findings.iter().map(|finding| finding.what.clone()).collect();
    let cures: Vec<&str> =
        audit.findings.iter().map(|finding| &*finding.cure).filter(|cure| !cure.is_empty()).collect();
    let next = format!("find out who changed it, then run on the server: {}", cures.join("; "));
    AuditLine::fail(AREA, name, few_names(&found), next)
}
