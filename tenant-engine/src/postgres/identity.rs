//! The row `public._fleet_identity` of a tenant database, and the only statement that reads it.
//!
//! The table belongs to the maintenance role. The logins may read it, and no migration can change it. It is read once
//! per connection, right after connecting. Code that changes the row also ends the connections that were opened before.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::error::from_sqlx;
use super::sql::sql_literal;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{ExpectedIdentity, Identity};
use crate::ids::Generation;

/// Reads the row as text by the simple protocol: one round trip, and nothing is prepared on the server.
pub(super) const READ: &str =
    "select tenant_id, fleet_id, generation, state, op_id, stamped_at from public._fleet_identity";

/// Reads the identity of the database.
///
/// # Errors
/// [`ErrorKind::Missing`] when the database carries no identity: it was never finished, or belongs to no fleet.
pub(super) async fn read_identity(connection: &mut PgConnection) -> Result<Identity> {
    let rows = sqlx::raw_sql(READ).fetch_all(connection).await.map_err(without_table)?;
    from_rows(&rows)
}

/// Parses the rows that [`READ`] returns.
pub(super) fn from_rows(rows: &[PgRow]) -> Result<Identity> {
    match rows {
        [row] => parse_identity(row),
        [] => Err(no_identity()),
        _ => Err(Error::new(ErrorKind::Corrupt, "the database carries more than one identity")),
    }
}

/// Refuses any database other than the expected one.
pub(super) async fn check_identity(connection: &mut PgConnection, expected: &ExpectedIdentity) -> Result<Identity> {
    let found = read_identity(connection).await?;
    expected.check_identity(&found)?;
    Ok(found)
}

/// The statement that inserts or replaces the row.
pub(super) fn write_identity(identity: &Identity) -> String {
    let op = identity.op.map_or_else(|| "null".to_owned(), |op| sql_literal(&op.to_string()));
    format!(
        "insert into public._fleet_identity (one, tenant_id, fleet_id, generation, state, op_id, stamped_at) \
         values (1, {}, {}, {}, {}, {op}, {}) on conflict (one) do update set tenant_id = excluded.tenant_id, \
         fleet_id = excluded.fleet_id, generation = excluded.generation, state = excluded.state, \
         op_id = excluded.op_id, stamped_at = excluded.stamped_at;",
        sql_literal(&identity.tenant.to_string()),
        sql_literal(&identity.fleet.to_string()),
        identity.generation.0,
        sql_literal(identity.state.as_str()),
        identity.stamped_at,
    )
}

fn parse_identity(row: &PgRow) -> Result<Identity> {
    let text = |column: usize| row.try_get_unchecked::<String, _>(column).map_err(corrupt_identity);
    let number = |column: usize| text(column)?.parse::<i64>().map_err(corrupt_identity);
    let op: Option<String> = row.try_get_unchecked(4).map_err(corrupt_identity)?;
    Ok(Identity {
        tenant: text(0)?.parse().map_err(corrupt_identity)?,
        fleet: text(1)?.parse().map_err(corrupt_identity)?,
        generation: Generation(number(2)?),
        state: text(3)?.parse()?,
        op: op.map(|op| op.parse()).transpose().map_err(corrupt_identity)?,
        stamped_at: number(5)?,
    })
}

fn no_identity() -> Error {
    Error::new(ErrorKind::Missing, "the database carries no identity: it was never finished, or belongs to no tenant")
}

fn corrupt_identity(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Corrupt, "the identity of the database cannot be read").with_source(error)
}

/// The error of reading the identity together with other statements.
pub(super) fn identity_read_error(why: super::error::AdminConnectionError) -> Error {
    match why {
        super::error::AdminConnectionError::Sql(error)
            if super::error::sqlstate_code(&error).as_deref() == Some("42P01") =>
        {
            without_table(error)
        }
        why => why.into_ours(),
    }
}

/// `undefined_table`: the database exists, but its identity does not.
fn without_table(error: sqlx::Error) -> Error {
    match error.as_database_error().and_then(|error| error.code()) {
        Some(code) if code == "42P01" => no_identity().with_source(error),
        _ => from_sqlx(error),
    }
}
