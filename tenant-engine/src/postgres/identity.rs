//! The row `public._fleet_identity` of a tenant database, and the only statement that reads it.
//!
//! The table belongs to the maintenance role: the logins may read it, and no migration can change it. It is read once
//! per connection, right after connecting; whoever changes it ends the connections that were opened before.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::error::from_sqlx;
use super::sql::literal;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Expected, Identity};
use crate::ids::Generation;

/// As text, by the simple protocol: one round trip, and nothing is prepared on the server.
pub(super) const READ: &str =
    "select tenant_id, fleet_id, generation, state, op_id, stamped_at from public._fleet_identity";

/// Whose database this is.
///
/// # Errors
/// [`ErrorKind::Missing`] when the database carries no identity: it was never finished, or is nobody's.
pub(super) async fn read(connection: &mut PgConnection) -> Result<Identity> {
    let rows = sqlx::raw_sql(READ).fetch_all(connection).await.map_err(without_table)?;
    from_rows(&rows)
}

/// What the rows that [`READ`] answers with say.
pub(super) fn from_rows(rows: &[PgRow]) -> Result<Identity> {
    match rows {
        [row] => identity(row),
        [] => Err(none()),
        _ => Err(Error::new(ErrorKind::Corrupt, "the database carries more than one identity")),
    }
}

/// Refuses any database but the expected one.
pub(super) async fn check(connection: &mut PgConnection, expected: &Expected) -> Result<Identity> {
    let found = read(connection).await?;
    expected.check(&found)?;
    Ok(found)
}

/// The row, as a statement that makes it or replaces it.
pub(super) fn write(identity: &Identity) -> String {
    let op = identity.op.map_or_else(|| "null".to_owned(), |op| literal(&op.to_string()));
    format!(
        "insert into public._fleet_identity (one, tenant_id, fleet_id, generation, state, op_id, stamped_at) \
         values (1, {}, {}, {}, {}, {op}, {}) on conflict (one) do update set tenant_id = excluded.tenant_id, \
         fleet_id = excluded.fleet_id, generation = excluded.generation, state = excluded.state, \
         op_id = excluded.op_id, stamped_at = excluded.stamped_at;",
        literal(&identity.tenant.to_string()),
        literal(&identity.fleet.to_string()),
        identity.generation.0,
        literal(identity.state.as_str()),
        identity.stamped_at,
    )
}

fn identity(row: &PgRow) -> Result<Identity> {
    let text = |column: usize| row.try_get_unchecked::<String, _>(column).map_err(corrupt);
    let number = |column: usize| text(column)?.parse::<i64>().map_err(corrupt);
    let op: Option<String> = row.try_get_unchecked(4).map_err(corrupt)?;
    Ok(Identity {
        tenant: text(0)?.parse().map_err(corrupt)?,
        fleet: text(1)?.parse().map_err(corrupt)?,
        generation: Generation(number(2)?),
        state: text(3)?.parse()?,
        op: op.map(|op| op.parse()).transpose().map_err(corrupt)?,
        stamped_at: number(5)?,
    })
}

fn none() -> Error {
    Error::new(ErrorKind::Missing, "the database carries no identity: it was never finished, or is nobody's")
}

fn corrupt(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Corrupt, "the identity of the database cannot be read").with_source(error)
}

/// The same for a statement among others of ours.
pub(super) fn missing(why: super::work::Why) -> Error {
    match why {
        super::work::Why::Sql(error) if super::error::code(&error).as_deref() == Some("42P01") => without_table(error),
        why => why.into_ours(),
    }
}

/// `undefined_table`: the database is there, its identity is not.
fn without_table(error: sqlx::Error) -> Error {
    match error.as_database_error().and_then(|error| error.code()) {
        Some(code) if code == "42P01" => none().with_source(error),
        _ => from_sqlx(error),
    }
}
