//! Backups: a tenant without one can be lost.

use catalog::backups::{self, BackupFreshness};

use super::line::AuditLine;
use crate::app::App;
use crate::error::Result;

const AREA: &str = "backups";
const HOUR_MS: i64 = 3_600_000;
/// A nightly backup may start late.
const FRESH_HOURS: i64 = 26;

/// The line of all tenants' newest backups.
pub(super) async fn backup_lines(app: &App) -> Result<Vec<AuditLine>> {
    let mut tx = app.catalog.read().await?;
    let now = tx.now();
    let found = backups::backup_freshness(&mut tx, now - FRESH_HOURS * HOUR_MS, now + HOUR_MS).await?;
    Ok(vec![freshness_line(&found)])
}

/// PURE: a new tenant without a backup counts, too: its data can be lost now.
fn freshness_line(found: &BackupFreshness) -> AuditLine {
    let missing = found.never + found.young;
    match (found.tenants, missing, found.stale + found.in_future) {
        (0, ..) => AuditLine::not_applicable(AREA, "fresh", "there is no tenant that needs a backup"),
        (tenants, 0, 0) => AuditLine::pass(
            AREA,
            "fresh",
            format!("each of {tenants} tenants has a backup of the last {FRESH_HOURS} hours"),
        ),
        (tenants, missing, stale) => AuditLine::fail(
            AREA,
            "fresh",
            format!("of {tenants} tenants, {missing} have no backup, and {stale} none of the last {FRESH_HOURS} hours"),
            "fleetctl backup run --all",
        ),
    }
}
