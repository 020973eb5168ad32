//! The checks of what keeps tenants apart: files, databases, roles, tokens, listeners, backups and webhooks.
//!
//! `fleetctl audit` shows them. Each check looks at the fleet as it is, and says what it looked at. One file for each area;
//! [`check_isolation`] lists the areas.

use crate::app::App;
use crate::error::Result;
use crate::scrub::{self, InspectionScope};

mod backups;
mod databases;
mod files;
pub(crate) mod line;
mod listeners;
mod roles;
mod tokens;
mod webhooks;

use line::AuditLine;

/// Makes all checks and changes nothing. Opens every database to read its identity.
///
/// # Errors
/// Those of the catalog. What a check cannot look at is a result of the check.
pub(crate) async fn check_isolation(app: &App) -> Result<Vec<AuditLine>> {
    let known = catalog::servers::list_servers(&mut app.catalog.read().await?).await?;
    let servers: Vec<_> = known.into_iter().map(|(record, _)| record).collect();
    let mut lines = files::file_lines(app, &servers);
    lines.extend(databases::database_lines(&scrub::run_scrub(&app.context, &InspectionScope::Everything).await?));
    for server in &servers {
        lines.extend(roles::role_lines(app, server).await);
    }
    lines.extend(listeners::listener_lines(app, &servers).await);
    lines.extend(tokens::token_lines(app).await?);
    lines.extend(backups::backup_lines(app).await?);
    lines.extend(webhooks::webhook_lines(app).await?);
    Ok(lines)
}
