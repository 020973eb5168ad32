//! Explains SQLite's error "database or disk is full". It also occurs at two limits that free disk space does not lift;
//! these are the statement's fault.

use rusqlite::Connection;

use crate::error::{Error, ErrorKind};

/// SQLite's own maximum, unless a pragma lowers it.
pub(in crate::sqlite) const PAGES_MAX: i64 = 4_294_967_294;

/// Returns the error unchanged, or a better one when the disk is not the reason. Call it while no tenant's SQL runs on
/// the connection.
pub(in crate::sqlite) fn explain_disk_full(db: &Connection, error: Error) -> Error {
    if error.kind() != ErrorKind::DiskFull {
        return error;
    }
    let why = if read_number(db, "pragma max_page_count").is_some_and(|pages| pages < PAGES_MAX) {
        "the database has as many pages as its max_page_count allows"
    } else if has_used_all_numbers(db) {
        "a table with AUTOINCREMENT has used its largest row number, 9223372036854775807: it takes no more rows"
    } else {
        return error;
    };
    Error::new(ErrorKind::SqlInvalid, why).with_source(error)
}

/// As [`explain_disk_full`], on a connection whose pages this program limits.
pub(in crate::sqlite) fn explain_page_limit(db: &Connection, error: Error) -> Error {
    let is_limited = || read_number(db, "pragma max_page_count").is_some_and(|pages| pages < PAGES_MAX);
    if error.kind() == ErrorKind::DiskFull && is_limited() {
        let why = "the database is as large as it may be: delete data, or ask for more room";
        return Error::new(ErrorKind::StorageFull, why).with_source(error);
    }
    explain_disk_full(db, error)
}

fn has_used_all_numbers(db: &Connection) -> bool {
    read_number(db, "select max(seq) from main.sqlite_sequence") == Some(i64::MAX)
}

/// Reads one number; `None` also when there is no such table.
fn read_number(db: &Connection, sql: &str) -> Option<i64> {
    db.query_row(sql, [], |row| row.get(0)).ok()
}
