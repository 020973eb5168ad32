//! `public._sqlx_migrations`: the rows that say which versions a database has, exactly as sqlx 0.9 writes them.
//!
//! Texts of statements and the meaning of their answers; the verbs put them into their own transactions.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::sql::{bytea, literal};
use crate::error::{Error, ErrorKind, Result};
use crate::migration::{Applied, Migration};

/// More than any set holds; a larger table is not a ledger.
const ROWS_MAX: usize = 20_000;

/// sqlx's own layout, so that its command line finds what it would have made.
pub(super) const CREATE: &str = "create table if not exists public._sqlx_migrations (
    version bigint primary key,
    description text not null,
    installed_on timestamptz not null default now(),
    success boolean not null,
    checksum bytea not null,
    execution_time bigint not null
);";

/// All rows, by the simple protocol: as text without being asked. A connection that has just begun looks up every
/// function, operator and type that a statement names, and most of a migration's connections run this one once.
pub(super) const READ: &str = "select version, checksum, success from public._sqlx_migrations limit 20001";

/// What the rows that [`READ`] answers with say.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when the table is not a ledger.
pub(super) fn from_rows(rows: &[PgRow]) -> Result<Vec<Applied>> {
    if rows.len() > ROWS_MAX {
        return Err(Error::new(ErrorKind::Corrupt, format!("_sqlx_migrations holds more than {ROWS_MAX} rows")));
    }
    let mut ledger: Vec<Applied> = rows.iter().map(|row| applied(row).ok_or_else(no_ledger)).collect::<Result<_>>()?;
    ledger.sort_unstable_by_key(|row| row.version);
    Ok(ledger)
}

fn applied(row: &PgRow) -> Option<Applied> {
    let text = |column: usize| row.try_get_unchecked::<String, _>(column).ok();
    Some(Applied {
        version: text(0)?.parse().ok()?,
        checksum: bytes(text(1)?.strip_prefix("\\x")?)?,
        success: text(2)? == "t",
    })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = (0..hex.len()).step_by(2).map(|at| hex.get(at..at + 2));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

fn no_ledger() -> Error {
    Error::new(ErrorKind::Corrupt, "_sqlx_migrations does not hold what sqlx writes")
}

/// The row of a version that was applied, or (`success` false) has begun outside a transaction.
pub(super) fn insert(migration: &Migration, success: bool, nanoseconds: i64) -> String {
    format!(
        "insert into public._sqlx_migrations(version, description, success, checksum, execution_time) \
         values ({}, {}, {success}, {}, {nanoseconds});",
        migration.version,
        literal(&migration.description),
        bytea(&migration.checksum),
    )
}

/// Marks a version begun outside a transaction as finished.
pub(super) fn finish(migration: &Migration, nanoseconds: i64) -> String {
    format!(
        "update public._sqlx_migrations set success = true, execution_time = {nanoseconds} where version = {};",
        migration.version
    )
}

/// Removes the row of a version that was begun and changed nothing.
pub(super) fn forget(migration: &Migration) -> String {
    format!("delete from public._sqlx_migrations where version = {} and not success;", migration.version)
}

/// The newest version.
pub(super) fn newest(ledger: &[Applied]) -> Option<i64> {
    ledger.iter().map(|row| row.version).max()
}

/// The advisory lock that sqlx's migrator takes in a database of this name, so that it and ours exclude each other;
/// a stamp takes it, too, so that no migration goes on under an identity that is being replaced.
pub(super) fn lock_key(database: &str) -> i64 {
    0x3d32_ad9e * i64::from(crc32(database.as_bytes()))
}

/// CRC-32 as zip and sqlx compute it.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(lock_key("123456789"), 0x3d32_ad9e * 0xcbf4_3926);
    }

    #[test]
    fn hex_is_bytes() {
        assert_eq!(bytes("00ff7a"), Some(vec![0, 255, 122]));
        assert_eq!(bytes("0"), None);
    }
}
