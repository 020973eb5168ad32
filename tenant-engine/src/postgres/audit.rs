//! Whether roles, rights and settings of a server are as this program makes them, for `doctor`. Changes nothing.
//!
//! The shared catalogs tell nearly everything (`audit.sql`). Who owns the table of the identity is asked in a few
//! databases, drawn anew each time: a connection to every one of thousands takes too long.

use super::PostgresEngine;
use super::site::Site;
use super::sql::text;
use super::work::Work;
use crate::error::{Error, ErrorKind, Result};
use crate::server::{RoleAudit, RoleFinding, Server};

const DIFFERENCES: &str = include_str!("audit.sql");
/// Databases that are entered: well below a second.
const ENTERED_MAX: usize = 32;

/// The table belongs to the maintenance role, or to the one before it.
const IDENTITY: &str = "
    select format('table _fleet_identity of database %I belongs to %s', current_database(), c.relowner::regrole),
        format('alter table public._fleet_identity owner to %I', current_user)
    from pg_class c where c.oid = to_regclass('public._fleet_identity')
      and c.relowner in (select oid from pg_roles where rolname = 'fleet_owner' or rolname ~ '^t_[0-9a-f]{32}_g.*_[rwm]$')
    union all
    select format('database %I has no table _fleet_identity', current_database()), ''
    where to_regclass('public._fleet_identity') is null";

/// See [`crate::Engine::audit`].
pub(super) async fn audit(engine: &PostgresEngine, on: &Server) -> Result<RoleAudit> {
    let site = engine.site_of(on)?;
    let _slot = site.slot().await?;
    let mut center = site.center().await?;
    let mut found = findings(&mut center, DIFFERENCES).await?;
    let count =
        "select count(*)::text from pg_database where datname ~ '^t_[0-9a-f]{32}_g[0-9]+_[0-9]+$' and datallowconn";
    let answers = center.answers(count).await?;
    let databases = answers.iter().flatten().next().map(|row| text(row, 0)).transpose()?;
    let entered = some_databases(&mut center).await?;
    site.leave(center);
    for database in &entered {
        found.extend(inside(&site, database).await?);
    }
    Ok(RoleAudit {
        findings: found,
        databases: databases.and_then(|count| count.parse().ok()).unwrap_or_default(),
        entered: entered.len(),
    })
}

async fn some_databases(center: &mut Work) -> Result<Vec<String>> {
    let sql = format!(
        "select datname from pg_database where datname ~ '^t_[0-9a-f]{{32}}_g[0-9]+_[0-9]+$' and datallowconn
         order by random() limit {ENTERED_MAX}"
    );
    center.answers(sql).await?.iter().flatten().map(|row| text(row, 0)).collect()
}

/// One that was dropped meanwhile has no findings.
async fn inside(site: &Site, database: &str) -> Result<Vec<RoleFinding>> {
    let mut work = match site.enter(database).await {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        work => work?,
    };
    let found = findings(&mut work, IDENTITY).await;
    work.close().await;
    match found {
        Err(error) if error.kind() == ErrorKind::ConnectionLost => Ok(Vec::new()),
        found => found,
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Missing | ErrorKind::Fenced)
}

async fn findings(work: &mut Work, sql: &str) -> Result<Vec<RoleFinding>> {
    let answers = work.answers(sql).await?;
    let finding = |row| Ok(RoleFinding { what: text(row, 0)?, cure: text(row, 1)? });
    answers.iter().flatten().map(finding).collect()
}
