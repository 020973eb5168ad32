//! The verb `databases`: what a server holds under names like ours. Asks its catalogs, enters no database.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::sql::text;
use super::{PostgresEngine, work};
use crate::error::{Error, ErrorKind, Result};
use crate::found::{Found, FoundKind, Listing};
use crate::ids::TenantId;
use crate::server::Server;

/// Which cluster this is.
pub(super) const SYSTEM: &str = "select system_identifier::text from pg_control_system()";

/// Databases named as ours are, each with whether it was ever opened to its logins: their rights and the permission to
/// enter come in one transaction (`database.rs`). Then the logins of databases that are gone, but for those that may not
/// log in any more, which is how they are put aside.
fn questions(of: Option<TenantId>) -> String {
    let tenant = of.map_or_else(|| "[0-9a-f]{32}".to_owned(), |tenant| tenant.uuid().simple().to_string());
    format!(
        "select datname::text, (datallowconn or datacl is not null)::text from pg_database
            where datname like 't\\_%' and datname ~ '^t_{tenant}' order by datname;
         select rolname::text from pg_roles where rolcanlogin and rolname like 't\\_%' and rolname ~ '^t_{tenant}.*_[rwm]$'
            and left(rolname::text, -2) not in (select datname::text from pg_database) order by rolname;"
    )
}

/// See [`crate::Engine::databases`].
pub(super) async fn databases(engine: &PostgresEngine, on: &Server, of: Option<TenantId>) -> Result<Listing> {
    let site = engine.site_of(on)?;
    let _slot = site.slot().await?;
    let mut center = site.center().await?;
    let place = system(&mut center).await?;
    let answers = center.answers(questions(of)).await?;
    site.leave(center);
    let [databases, roles] = answers.as_slice() else {
        return Err(Error::new(ErrorKind::Internal, "two questions have two answers"));
    };
    let mut found = Vec::with_capacity(databases.len() + roles.len());
    for row in databases {
        found.push(database(row, &place, on)?);
    }
    for row in roles {
        found.push(object(text(row, 0)?, FoundKind::Role, &place));
    }
    Ok(Listing { place, found })
}

/// The cluster's own identifier, the same under every address.
pub(super) async fn system(center: &mut work::Work) -> Result<String> {
    let answers = center.answers(SYSTEM).await?;
    let row = answers.iter().flatten().next();
    row.map_or_else(|| Err(Error::new(ErrorKind::Internal, "the server does not say which it is")), |row| text(row, 0))
}

fn database(row: &PgRow, place: &str, on: &Server) -> Result<Found> {
    let name = text(row, 0)?;
    let is_ours = on.placement(&name).is_ok();
    let what = match row.try_get_unchecked::<String, _>(1).is_ok_and(|opened| opened == "true") {
        _ if !is_ours => FoundKind::Unknown,
        true => FoundKind::Database,
        false => FoundKind::Part,
    };
    let reference = is_ours.then(|| name.clone());
    Ok(Found { reference, ..object(name, what, place) })
}

fn object(name: String, what: FoundKind, place: &str) -> Found {
    let uuid = name.get(2..34).and_then(|digits| uuid::Uuid::try_parse(digits).ok());
    let born = uuid.and_then(|uuid| uuid.get_timestamp()).map(|at| at.to_unix());
    Found {
        reference: None,
        tenant: uuid.map(TenantId::from_uuid),
        what,
        physical: physical(place, &name),
        name,
        size_bytes: None,
        since: born.and_then(|(seconds, nanos)| i64::try_from(seconds * 1_000 + u64::from(nanos) / 1_000_000).ok()),
    }
}

/// What tells a database from any other, whatever its server is called.
pub(super) fn physical(place: &str, name: &str) -> String {
    format!("{place}:{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_tenant_and_time() {
        let uuid = uuid::Uuid::now_v7();
        let found = object(format!("t_{}_g1_1_r", uuid.simple()), FoundKind::Role, "7");
        assert_eq!(found.tenant, Some(TenantId::from_uuid(uuid)));
        assert_eq!(found.physical, format!("7:{}", found.name));
        assert!(found.since.is_some_and(|at| at > 1_700_000_000_000), "{found:?}");
        assert_eq!(object("t_x".to_owned(), FoundKind::Unknown, "7").since, None);
    }
}
