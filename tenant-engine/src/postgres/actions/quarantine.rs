//! Implements [`crate::Engine::quarantine_object`]: closes and renames a database and disables its logins; nothing is
//! dropped.
//!
//! All changes are one transaction, and the server refuses it while a session is in the database.

use super::databases::{physical_id, system_identifier};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::ExpectedIdentity;
use crate::listing::{ListedObject, ListedObjectKind};
use crate::placement::parse_postgres;
use crate::postgres::servers::admin_connection::AdminConnection;
use crate::postgres::servers::logins::{login_name, migrator_login};
use crate::postgres::servers::server_state::PostgresServerState;
use crate::postgres::sql::{quoted_name, sql_literal, text_column};
use crate::postgres::{PostgresEngine, identity};
use crate::server::DatabaseServer;
use crate::statement::AccessMode;

/// Maximum bytes of a name on a server.
const NAME_BYTES_MAX: usize = 63;

/// See [`crate::Engine::quarantine_object`].
pub(in crate::postgres) async fn quarantine_object(
    engine: &PostgresEngine,
    on: &DatabaseServer,
    found: &ListedObject,
    expected: Option<&ExpectedIdentity>,
    label: &str,
) -> Result<String> {
    let site = engine.state_of_server(on)?;
    let _slot = site.take_slot().await?;
    let mut center = site.maintenance_connection().await?;
    if physical_id(&system_identifier(&mut center).await?, &found.name) != found.physical {
        return Err(Error::new(ErrorKind::Fenced, "this is another server now"));
    }
    let name = match found.what {
        ListedObjectKind::Database | ListedObjectKind::Part => {
            quarantine_database(&site, &mut center, &found.name, expected, label).await?
        }
        ListedObjectKind::Role => quarantine_login(&mut center, &found.name).await?,
        ListedObjectKind::SideFile | ListedObjectKind::Unknown => {
            let message = "this program does not make such names: check the object and move it by hand";
            return Err(Error::new(ErrorKind::Fenced, message));
        }
    };
    site.return_connection(center);
    Ok(name)
}

async fn quarantine_database(
    site: &PostgresServerState,
    center: &mut AdminConnection,
    name: &str,
    expected: Option<&ExpectedIdentity>,
    label: &str,
) -> Result<String> {
    parse_postgres(&site.server, name)
        .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()).with_source(error))?;
    let aside = quarantine_name(label, name);
    check_found(site, center, name, expected).await?;
    let close: String = logins_of(center, name).await?.iter().map(|login| no_login(login)).collect();
    let (from, to) = (quoted_name(name), quoted_name(&aside));
    center
        .run_sql(format!(
            "begin;
             {close}
             alter database {from} with allow_connections false;
             alter database {from} rename to {to};
             commit;"
        ))
        .await?;
    Ok(aside)
}

/// The name in quarantine. A long name keeps the tenant's id, with a digest in place of the numbers. The caller knows
/// both names.
fn quarantine_name(label: &str, name: &str) -> String {
    let whole = format!("quarantine_{label}_{name}");
    if whole.len() <= NAME_BYTES_MAX {
        return whole;
    }
    let digest = blake3::hash(name.as_bytes()).to_hex();
    let tenant: String = name.chars().skip(2).take(32).collect();
    format!("quarantine_{label}_{tenant}_{}", &digest[..8])
}

/// Checks that the database still has the expected identity, or still has none. A database that accepts no connections
/// is not entered.
async fn check_found(
    site: &PostgresServerState,
    center: &mut AdminConnection,
    name: &str,
    expected: Option<&ExpectedIdentity>,
) -> Result<()> {
    let sql = format!("select datallowconn::text from pg_database where datname = {}", sql_literal(name));
    let answers = center.fetch_answers(sql).await?;
    let row = answers.iter().flatten().next();
    let row = row.ok_or_else(|| Error::new(ErrorKind::Missing, "the database is gone"))?;
    let found = match text_column(row, 0)?.as_str() {
        "true" => {
            let mut work = site.open_connection(name).await?;
            let found = identity::read_identity(work.driver_connection()).await;
            work.close().await;
            found
        }
        _ => Err(Error::new(ErrorKind::Missing, "the database accepts no connections")),
    };
    match (found, expected) {
        (Ok(found), Some(expected)) => expected.check_identity(&found),
        (Ok(_), None) => Err(Error::new(ErrorKind::Fenced, "it carries an identity now")),
        (Err(error), None) if matches!(error.kind(), ErrorKind::Missing | ErrorKind::Corrupt) => Ok(()),
        (Err(error), _) => Err(error),
    }
}

/// The existing logins of a database.
async fn logins_of(center: &mut AdminConnection, database: &str) -> Result<Vec<String>> {
    let [read, write] = [AccessMode::Read, AccessMode::Write].map(|access| login_name(database, access));
    let names = [read, write, migrator_login(database)].map(|login| sql_literal(&login)).join(", ");
    let answers =
        center.fetch_answers(format!("select rolname::text from pg_roles where rolname in ({names})")).await?;
    answers.iter().flatten().map(|row| text_column(row, 0)).collect()
}

fn no_login(role: &str) -> String {
    format!("alter role {} nologin;\n", quoted_name(role))
}

/// Disables a login that has no database and may still log in.
async fn quarantine_login(center: &mut AdminConnection, name: &str) -> Result<String> {
    let name_text = sql_literal(name);
    let sql = format!(
        "select (rolcanlogin and left(rolname::text, -2) not in (select datname::text from pg_database))::text
         from pg_roles where rolname = {name_text} and rolname ~ '^t_[0-9a-f]{{32}}.*_[rwm]$'"
    );
    let answers = center.fetch_answers(sql).await?;
    let row = answers.iter().flatten().next();
    let row = row.ok_or_else(|| Error::new(ErrorKind::Missing, "the role is gone"))?;
    if text_column(row, 0)? != "true" {
        return Err(Error::new(ErrorKind::Fenced, "the role has a database again, or already may not log in"));
    }
    center.run_sql(no_login(name)).await?;
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_room_to_be_put_aside() {
        let short = format!("t_{}_g2_1", "a".repeat(32));
        assert_eq!(quarantine_name("20260101", &short), format!("quarantine_20260101_{short}"));
        let long = format!("t_{}_g{}_{}", "a".repeat(32), 9_999_999_999_i64, 9_999_999_999_i64);
        assert!(quarantine_name("20260101", &long).len() <= NAME_BYTES_MAX);
        assert_ne!(quarantine_name("20260101", &long), quarantine_name("20260101", &long.replace("_99", "_88")));
    }
}
