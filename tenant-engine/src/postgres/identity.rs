//! The row `public._fleet_identity` of a tenant database, and the only statement that reads it.
//!
//! The table belongs to the maintenance role: the logins may read it, and no migration can change it. It is read once
//! per connection, right after connecting; whoever changes it ends the connections that were opened before.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::error::from_sqlx;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Expected, Identity};
use crate::ids::Generation;

/// As text, by the simple protocol: one round trip, and nothing is prepared on the server.
const READ: &str =
    "select tenant_id, fleet_id, generation::text, state, op_id, stamped_at::text from public._fleet_identity";

/// Whose database this is.
///
/// # Errors
/// [`ErrorKind::Missing`] when the database carries no identity: it was never finished, or is nobody's.
pub(super) async fn read(connection: &mut PgConnection) -> Result<Identity> {
    let rows = sqlx::raw_sql(READ).fetch_all(connection).await.map_err(without_table)?;
    match rows.as_slice() {
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

/// `undefined_table`: the database is there, its identity is not.
fn without_table(error: sqlx::Error) -> Error {
    match error.as_database_error().and_then(|error| error.code()) {
        Some(code) if code == "42P01" => none().with_source(error),
        _ => from_sqlx(error),
    }
}
