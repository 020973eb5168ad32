//! Statements on the fleet's own tables (`own_tables.rs`), inside the transaction of a request.
//!
//! They run outside the sandbox, which hides these tables from tenant SQL. Called on worker threads by `transaction.rs`.

use super::connection::SqliteTenantConnection;
use super::statement::run_statement;
use crate::answers::AnswerHold;
use crate::error::Result;
use crate::own_tables;
use crate::sqlite::error::from_sqlite;
use crate::sqlite::storage::disk_full;
use crate::statement::{AccessMode, SessionLimits, SqlStatement};
use crate::value::Rows;

/// Whether the tables exist. A writing transaction makes the missing ones, and they commit or roll back with it.
///
/// # Errors
/// SQLite's.
pub(super) fn prepare_own_tables(conn: &SqliteTenantConnection, access: AccessMode) -> Result<bool> {
    let db = conn.raw_connection();
    let sql =
        "/*fleet*/ select name from main.sqlite_schema where type = 'table' and name like '\\_fleet\\_%' escape '\\'";
    let mut statement = db.prepare_cached(sql).map_err(from_sqlite)?;
    let names = statement.query_map([], |row| row.get::<_, String>(0)).map_err(from_sqlite)?;
    let found: Vec<String> = names.collect::<rusqlite::Result<_>>().map_err(from_sqlite)?;
    let missing: Vec<_> = own_tables::own_table_names().filter(|own| !found.iter().any(|name| name == own)).collect();
    if !missing.is_empty() && access == AccessMode::Write {
        missing
            .iter()
            .try_for_each(|name| db.execute_batch(&own_tables::sqlite_definition(name)))
            .map_err(from_sqlite)?;
        return Ok(true);
    }
    Ok(missing.is_empty())
}

/// Runs one statement to its end and returns its whole answer.
///
/// # Errors
/// Those of the database.
pub(super) fn execute_own(
    conn: &SqliteTenantConnection,
    access: AccessMode,
    limits: &SessionLimits,
    hold: AnswerHold,
    statement: &SqlStatement,
) -> Result<Rows> {
    let ran = run_statement(conn, access, limits, hold, &statement.sql, &statement.params);
    ran.map_err(|error| disk_full::explain_page_limit(conn.raw_connection(), error))
}
