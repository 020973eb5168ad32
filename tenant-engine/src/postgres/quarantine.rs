//! The verb `quarantine`: a database is closed and renamed, its logins may not log in; nothing is dropped.
//!
//! One transaction does it all, and the server refuses it while anybody is in the database.

use super::databases::{physical, system};
use super::logins::{login, migrator};
use super::site::Site;
use super::sql::{literal, quoted, text};
use super::work::Work;
use super::{PostgresEngine, identity};
use crate::error::{Error, ErrorKind, Result};
use crate::found::{Found, FoundKind};
use crate::identity::Expected;
use crate::placement::parse_postgres;
use crate::pool::Access;
use crate::server::Server;

/// What a server allows.
const NAME_BYTES_MAX: usize = 63;

/// See [`crate::Engine::quarantine`].
pub(super) async fn quarantine(
    engine: &PostgresEngine,
    on: &Server,
    found: &Found,
    expected: Option<&Expected>,
    label: &str,
) -> Result<String> {
    let site = engine.site_of(on)?;
    let _slot = site.slot().await?;
    let mut center = site.center().await?;
    if physical(&system(&mut center).await?, &found.name) != found.physical {
        return Err(Error::new(ErrorKind::Fenced, "this is another server now"));
    }
    let name = match found.what {
        FoundKind::Database | FoundKind::Part => database(&site, &mut center, &found.name, expected, label).await?,
        FoundKind::Role => role(&mut center, &found.name).await?,
        FoundKind::SideFile | FoundKind::Unknown => {
            let message = "its name is none that this program makes: look at it, and put it aside by hand";
            return Err(Error::new(ErrorKind::Fenced, message));
        }
    };
    site.leave(center);
    Ok(name)
}

async fn database(
    site: &Site,
    center: &mut Work,
    name: &str,
    expected: Option<&Expected>,
    label: &str,
) -> Result<String> {
    parse_postgres(&site.server, name)
        .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()).with_source(error))?;
    let aside = aside(label, name);
    check(site, center, name, expected).await?;
    let close: String = logins_of(center, name).await?.iter().map(|login| no_login(login)).collect();
    let (from, to) = (quoted(name), quoted(&aside));
    center
        .run(format!(
            "begin;
             {close}
             alter database {from} with allow_connections false;
             alter database {from} rename to {to};
             commit;"
        ))
        .await?;
    Ok(aside)
}

/// Its name from now on. A long one keeps the tenant's id, and a digest in place of the numbers: whoever asked has both
/// names.
fn aside(label: &str, name: &str) -> String {
    let whole = format!("quarantine_{label}_{name}");
    if whole.len() <= NAME_BYTES_MAX {
        return whole;
    }
    let digest = blake3::hash(name.as_bytes()).to_hex();
    let tenant: String = name.chars().skip(2).take(32).collect();
    format!("quarantine_{label}_{tenant}_{}", &digest[..8])
}

/// The identity that was found, or, as was found, none; a database that nobody may enter is not entered.
async fn check(site: &Site, center: &mut Work, name: &str, expected: Option<&Expected>) -> Result<()> {
    let sql = format!("select datallowconn::text from pg_database where datname = {}", literal(name));
    let answers = center.answers(sql).await?;
    let row = answers.iter().flatten().next();
    let row = row.ok_or_else(|| Error::new(ErrorKind::Missing, "the database is gone"))?;
    let found = match text(row, 0)?.as_str() {
        "true" => {
            let mut work = site.enter(name).await?;
            let found = identity::read(work.connection()).await;
            work.close().await;
            found
        }
        _ => Err(Error::new(ErrorKind::Missing, "nobody may enter the database")),
    };
    match (found, expected) {
        (Ok(found), Some(expected)) => expected.check(&found),
        (Ok(_), None) => Err(Error::new(ErrorKind::Fenced, "it carries an identity now")),
        (Err(error), None) if matches!(error.kind(), ErrorKind::Missing | ErrorKind::Corrupt) => Ok(()),
        (Err(error), _) => Err(error),
    }
}

/// Those of a database's logins that are there.
async fn logins_of(center: &mut Work, database: &str) -> Result<Vec<String>> {
    let [read, write] = [Access::Read, Access::Write].map(|access| login(database, access));
    let names = [read, write, migrator(database)].map(|login| literal(&login)).join(", ");
    let answers = center.answers(format!("select rolname::text from pg_roles where rolname in ({names})")).await?;
    answers.iter().flatten().map(|row| text(row, 0)).collect()
}

fn no_login(role: &str) -> String {
    format!("alter role {} nologin;\n", quoted(role))
}

/// A login that has no database and may still log in.
async fn role(center: &mut Work, name: &str) -> Result<String> {
    let name_text = literal(name);
    let sql = format!(
        "select (rolcanlogin and left(rolname::text, -2) not in (select datname::text from pg_database))::text
         from pg_roles where rolname = {name_text} and rolname ~ '^t_[0-9a-f]{{32}}.*_[rwm]$'"
    );
    let answers = center.answers(sql).await?;
    let row = answers.iter().flatten().next();
    let row = row.ok_or_else(|| Error::new(ErrorKind::Missing, "the role is gone"))?;
    if text(row, 0)? != "true" {
        return Err(Error::new(ErrorKind::Fenced, "the role has a database again, or may not log in already"));
    }
    center.run(no_login(name)).await?;
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_room_to_be_put_aside() {
        let short = format!("t_{}_g2_1", "a".repeat(32));
        assert_eq!(aside("20260101", &short), format!("quarantine_20260101_{short}"));
        let long = format!("t_{}_g{}_{}", "a".repeat(32), 9_999_999_999_i64, 9_999_999_999_i64);
        assert!(aside("20260101", &long).len() <= NAME_BYTES_MAX);
        assert_ne!(aside("20260101", &long), aside("20260101", &long.replace("_99", "_88")));
    }
}
