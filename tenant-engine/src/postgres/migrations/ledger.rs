//! The ledger: the rows that list the applied versions of a database, exactly as sqlx 0.9 writes them.
//!
//! This module has the texts of the statements and parses their answers; its callers run them in their own
//! transactions. A database whose ledger does not have sqlx's own name records the name in the comment on its identity
//! table. Only the maintenance role writes this comment, and every dump holds it.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::error::{Error, ErrorKind, Result};
use crate::migration::{AppliedMigration, LedgerName, Migration};
use crate::postgres::sql::{bytea_literal, sql_literal};

/// More rows than any set has migrations; a larger table is not a ledger.
const ROWS_MAX: usize = 20_000;

/// Prefix of the comment on the identity table.
const MARK: &str = "ledger=";

/// Reads the comment on the identity table, if there is one. A database without an identity has none.
pub(in crate::postgres) const RECORD: &str = "select description from pg_catalog.pg_description
    where objoid = pg_catalog.to_regclass('public._fleet_identity')
    and classoid = 'pg_catalog.pg_class'::pg_catalog.regclass and objsubid = 0";

/// The table's name as SQL writes it.
pub(in crate::postgres) fn table(name: &LedgerName) -> String {
    format!("public.{}", name.sql())
}

/// Creates the table in sqlx's own layout, so that sqlx's command line accepts it.
pub(super) fn create(name: &LedgerName) -> String {
    format!(
        "create table if not exists {} (
    version bigint primary key,
    description text not null,
    installed_on timestamptz not null default now(),
    success boolean not null,
    checksum bytea not null,
    execution_time bigint not null
);",
        table(name)
    )
}

/// Records the name in the comment on the identity table, which must exist.
pub(super) fn record(name: &LedgerName) -> String {
    match name.is_usual() {
        true => String::new(),
        false => format!("comment on table public._fleet_identity is {};", sql_literal(&format!("{MARK}{name}"))),
    }
}

/// The name in the rows that [`RECORD`] returns.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when it is not a valid name.
pub(in crate::postgres) fn recorded(rows: &[PgRow]) -> Result<LedgerName> {
    let comment: Option<String> = rows.first().and_then(|row| row.try_get_unchecked(0).ok());
    named_in(comment.as_deref().unwrap_or_default())
}

/// PURE: the name in the comment. A comment of any other form was not written by this program.
fn named_in(comment: &str) -> Result<LedgerName> {
    let name = comment.strip_prefix(MARK).map(LedgerName::stored).transpose();
    let name = name.map_err(|why| Error::new(ErrorKind::Corrupt, format!("the name of the ledger {why}")))?;
    Ok(name.unwrap_or_default())
}

/// PURE: the name in a script that contains the comment.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when it is not a valid name.
pub(in crate::postgres) fn named_in_script(script: &str) -> Result<LedgerName> {
    let comment = script.lines().find_map(|line| line.strip_prefix("COMMENT ON TABLE public._fleet_identity IS '"));
    named_in(comment.and_then(|comment| comment.strip_suffix("';")).unwrap_or_default())
}

/// Reads all rows by the simple protocol, which returns text without casts. A new connection looks up every function,
/// operator and type in a statement, and most connections of migrations run this statement once.
pub(in crate::postgres) fn read(name: &LedgerName) -> String {
    format!("select version, checksum, success from {} limit 20001", table(name))
}

/// Parses the rows that [`read`] returns.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when the table is not a ledger.
pub(in crate::postgres) fn from_rows(rows: &[PgRow]) -> Result<Vec<AppliedMigration>> {
    if rows.len() > ROWS_MAX {
        return Err(Error::new(ErrorKind::Corrupt, format!("the ledger holds more than {ROWS_MAX} rows")));
    }
    let mut ledger: Vec<AppliedMigration> =
        rows.iter().map(|row| parse_applied(row).ok_or_else(no_ledger)).collect::<Result<_>>()?;
    ledger.sort_unstable_by_key(|row| row.version);
    Ok(ledger)
}

fn parse_applied(row: &PgRow) -> Option<AppliedMigration> {
    let text = |column: usize| row.try_get_unchecked::<String, _>(column).ok();
    Some(AppliedMigration {
        version: text(0)?.parse().ok()?,
        checksum: decode_hex(text(1)?.strip_prefix("\\x")?)?,
        success: text(2)? == "t",
    })
}

fn decode_hex(hex: &str) -> Option<Vec<u8>> {
    let pairs = (0..hex.len()).step_by(2).map(|at| hex.get(at..at + 2));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

fn no_ledger() -> Error {
    Error::new(ErrorKind::Corrupt, "the ledger does not hold what sqlx writes")
}

/// Inserts the row of a version that was applied, or (`success` false) that began outside a transaction.
pub(super) fn insert_row(migration: &Migration, success: bool, nanoseconds: i64) -> String {
    format!(
        "insert into {}(version, description, success, checksum, execution_time) \
         values ({}, {}, {success}, {}, {nanoseconds});",
        table(&migration.ledger),
        migration.version,
        sql_literal(&migration.description),
        bytea_literal(&migration.checksum),
    )
}

/// Marks a version that began outside a transaction as finished.
pub(super) fn finish_row(migration: &Migration, nanoseconds: i64) -> String {
    format!(
        "update {} set success = true, execution_time = {nanoseconds} where version = {};",
        table(&migration.ledger),
        migration.version
    )
}

/// Removes the row of a version that began and changed nothing.
pub(super) fn forget_row(migration: &Migration) -> String {
    format!("delete from {} where version = {} and not success;", table(&migration.ledger), migration.version)
}

/// The newest version in the ledger.
pub(in crate::postgres) fn newest_version(ledger: &[AppliedMigration]) -> Option<i64> {
    ledger.iter().map(|row| row.version).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_read_as_it_is_written() {
        let ops = LedgerName::parse("\"Ops\"").unwrap();
        let script = format!("--\nSET x;\n\n{}\n\n", record(&ops).replace("comment on table", "COMMENT ON TABLE"));
        assert_eq!(named_in_script(&script.replace(" is ", " IS ")).unwrap(), ops);
        assert_eq!(named_in("").unwrap(), LedgerName::default());
        assert_eq!(named_in("a note of somebody").unwrap(), LedgerName::default());
        assert_eq!(named_in("ledger=a b").unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(record(&LedgerName::default()), "");
    }

    #[test]
    fn hex_is_bytes() {
        assert_eq!(decode_hex("00ff7a"), Some(vec![0, 255, 122]));
        assert_eq!(decode_hex("0"), None);
    }
}
