//! Compares the roles, rights and settings of a server with those that this program makes, for `doctor`. Changes
//! nothing.
//!
//! The shared system catalogs show nearly everything (`audit.sql`). The owner of the identity table is checked in a few
//! databases, chosen at random each time: connecting to each of thousands would take too long.

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::PostgresEngine;
use crate::postgres::servers::admin_connection::AdminConnection;
use crate::postgres::servers::server_state::PostgresServerState;
use crate::postgres::sql::text_column;
use crate::server::{DatabaseServer, RoleAudit, RoleFinding};

const DIFFERENCES: &str = include_str!("audit.sql");
/// Number of databases that an audit connects to: takes well below a second.
const ENTERED_MAX: usize = 32;

/// Finds an identity table that does not belong to the maintenance role or to the earlier maintenance role.
const IDENTITY: &str = "
    select format('table _fleet_identity of database %I belongs to %s', current_database(), c.relowner::regrole),
        format('alter table public._fleet_identity owner to %I', current_user)
    from pg_class c where c.oid = to_regclass('public._fleet_identity')
      and c.relowner in (select oid from pg_roles where rolname = 'fleet_owner' or rolname ~ '^t_[0-9a-f]{32}_g.*_[rwm]$')
    union all
    select format('database %I has no table _fleet_identity', current_database()), ''
    where to_regclass('public._fleet_identity') is null";

/// See [`crate::Engine::audit_roles`].
pub(in crate::postgres) async fn audit_roles(engine: &PostgresEngine, on: &DatabaseServer) -> Result<RoleAudit> {
    let site = engine.state_of_server(on)?;
    let _slot = site.take_slot().await?;
    let mut center = site.maintenance_connection().await?;
    let mut found = read_findings(&mut center, DIFFERENCES).await?;
    let count =
        "select count(*)::text from pg_database where datname ~ '^t_[0-9a-f]{32}_g[0-9]+_[0-9]+$' and datallowconn";
    let answers = center.fetch_answers(count).await?;
    let databases = answers.iter().flatten().next().map(|row| text_column(row, 0)).transpose()?;
    let entered = some_databases(&mut center).await?;
    site.return_connection(center);
    for database in &entered {
        found.extend(audit_database(&site, database).await?);
    }
    Ok(RoleAudit {
        findings: found,
        databases: databases.and_then(|count| count.parse().ok()).unwrap_or_default(),
        entered: entered.len(),
    })
}

async fn some_databases(center: &mut AdminConnection) -> Result<Vec<String>> {
    let sql = format!(
        "select datname from pg_database where datname ~ '^t_[0-9a-f]{{32}}_g[0-9]+_[0-9]+$' and datallowconn
         order by random() limit {ENTERED_MAX}"
    );
    center.fetch_answers(sql).await?.iter().flatten().map(|row| text_column(row, 0)).collect()
}

/// The findings of one database; a database that was dropped meanwhile has none.
async fn audit_database(site: &PostgresServerState, database: &str) -> Result<Vec<RoleFinding>> {
    let mut work = match site.open_connection(database).await {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        work => work?,
    };
    let found = read_findings(&mut work, IDENTITY).await;
    work.close().await;
    match found {
        Err(error) if error.kind() == ErrorKind::ConnectionLost => Ok(Vec::new()),
        found => found,
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Missing | ErrorKind::Fenced)
}

async fn read_findings(work: &mut AdminConnection, sql: &str) -> Result<Vec<RoleFinding>> {
    let answers = work.fetch_answers(sql).await?;
    let finding = |row| Ok(RoleFinding { what: text_column(row, 0)?, cure: text_column(row, 1)? });
    answers.iter().flatten().map(finding).collect()
}
