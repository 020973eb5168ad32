//! Implements [`crate::Engine::list_databases`]: the objects on a server with names like this program's. Reads the
//! system catalogs and connects to no tenant database.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::TenantId;
use crate::listing::{ListedObject, ListedObjectKind, ServerListing};
use crate::postgres::PostgresEngine;
use crate::postgres::servers::admin_connection;
use crate::postgres::sql::text_column;
use crate::server::DatabaseServer;

/// The identifier of the cluster.
pub(super) const SYSTEM: &str = "select system_identifier::text from pg_control_system()";

/// Lists the databases named like this program's, each with whether it was ever opened to its logins: their rights and
/// the permission to connect come in one transaction (`servers/database.rs`). Then lists the logins whose databases do
/// not exist, except logins that may no longer log in, because those are in quarantine.
fn listing_sql(of: Option<TenantId>) -> String {
    let tenant = of.map_or_else(|| "[0-9a-f]{32}".to_owned(), |tenant| tenant.uuid().simple().to_string());
    format!(
        "select datname::text, (datallowconn or datacl is not null)::text from pg_database
            where datname like 't\\_%' and datname ~ '^t_{tenant}' order by datname;
         select rolname::text from pg_roles where rolcanlogin and rolname like 't\\_%' and rolname ~ '^t_{tenant}.*_[rwm]$'
            and left(rolname::text, -2) not in (select datname::text from pg_database) order by rolname;"
    )
}

/// See [`crate::Engine::list_databases`].
pub(in crate::postgres) async fn list_databases(
    engine: &PostgresEngine,
    on: &DatabaseServer,
    of: Option<TenantId>,
) -> Result<ServerListing> {
    let site = engine.state_of_server(on)?;
    let _slot = site.take_slot().await?;
    let mut center = site.maintenance_connection().await?;
    let place = system_identifier(&mut center).await?;
    let answers = center.fetch_answers(listing_sql(of)).await?;
    site.return_connection(center);
    let [databases, roles] = answers.as_slice() else {
        return Err(Error::new(ErrorKind::Internal, "two questions have two answers"));
    };
    let mut found = Vec::with_capacity(databases.len() + roles.len());
    for row in databases {
        found.push(listed_database(row, &place, on)?);
    }
    for row in roles {
        found.push(listed_object(text_column(row, 0)?, ListedObjectKind::Role, &place));
    }
    Ok(ServerListing { place, found })
}

/// The cluster's own identifier, equal under every address.
pub(super) async fn system_identifier(center: &mut admin_connection::AdminConnection) -> Result<String> {
    let answers = center.fetch_answers(SYSTEM).await?;
    let row = answers.iter().flatten().next();
    row.map_or_else(
        || Err(Error::new(ErrorKind::Internal, "the server does not report its system identifier")),
        |row| text_column(row, 0),
    )
}

fn listed_database(row: &PgRow, place: &str, on: &DatabaseServer) -> Result<ListedObject> {
    let name = text_column(row, 0)?;
    let is_ours = on.parse_placement(&name).is_ok();
    let what = match row.try_get_unchecked::<String, _>(1).is_ok_and(|opened| opened == "true") {
        _ if !is_ours => ListedObjectKind::Unknown,
        true => ListedObjectKind::Database,
        false => ListedObjectKind::Part,
    };
    let reference = is_ours.then(|| name.clone());
    Ok(ListedObject { reference, ..listed_object(name, what, place) })
}

fn listed_object(name: String, what: ListedObjectKind, place: &str) -> ListedObject {
    let uuid = name.get(2..34).and_then(|digits| uuid::Uuid::try_parse(digits).ok());
    let born = uuid.and_then(|uuid| uuid.get_timestamp()).map(|at| at.to_unix());
    ListedObject {
        reference: None,
        tenant: uuid.map(TenantId::from_uuid),
        what,
        physical: physical_id(place, &name),
        name,
        size_bytes: None,
        since: born.and_then(|(seconds, nanos)| i64::try_from(seconds * 1_000 + u64::from(nanos) / 1_000_000).ok()),
    }
}

/// Identifies a database under any address of its server.
pub(super) fn physical_id(place: &str, name: &str) -> String {
    format!("{place}:{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_tenant_and_time() {
        let uuid = uuid::Uuid::now_v7();
        let found = listed_object(format!("t_{}_g1_1_r", uuid.simple()), ListedObjectKind::Role, "7");
        assert_eq!(found.tenant, Some(TenantId::from_uuid(uuid)));
        assert_eq!(found.physical, format!("7:{}", found.name));
        assert!(found.since.is_some_and(|at| at > 1_700_000_000_000), "{found:?}");
        assert_eq!(listed_object("t_x".to_owned(), ListedObjectKind::Unknown, "7").since, None);
    }
}
