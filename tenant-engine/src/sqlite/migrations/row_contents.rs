//! Remembers the rows of a table by their content, so that a migration cannot lose a row unnoticed.
//!
//! Called by `references.rs` for child rows that DROP TABLE deletes and that the file is meant to restore. Equal
//! numbers of rows prove nothing, and neither do keys: a new row may have the number of a lost one.

use std::collections::HashMap;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::foreign_keys::{quoted_name, table_exists};
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::error::from_sqlite;

/// Maximum remembered rows of one table: some 100 MB. A larger table is refused.
const ROWS_MAX: usize = 2_000_000;

/// Part of a hash; no two different rows of a table share it.
type RowHash = [u8; 16];

/// The number of occurrences of each content.
#[derive(Debug)]
pub(super) struct RowContents {
    table: String,
    columns: Vec<String>,
    rows: HashMap<RowHash, u32>,
}

impl RowContents {
    /// Reads the current rows of the table.
    ///
    /// # Errors
    /// [`ErrorKind::MigrationFailed`] when it has too many rows; otherwise SQLite's.
    pub(super) fn read_table(db: &Connection, table: &str) -> Result<Self> {
        let columns = column_names(db, table)?;
        let mut rows = HashMap::new();
        each_row(db, table, &columns, |hash| {
            *rows.entry(hash).or_insert(0) += 1;
            rows.len() <= ROWS_MAX
        })?;
        if rows.len() > ROWS_MAX {
            let message = format!("'{table}' has too many rows to check whether the file restores them all");
            return Err(Error::new(ErrorKind::MigrationFailed, message));
        }
        Ok(Self { table: table.to_owned(), columns, rows })
    }

    /// The table's name when one of the rows is missing. A table that the file drops without replacement loses rows on
    /// purpose. A table that lost columns cannot be compared, and counts as changed.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn lost_table(mut self, db: &Connection) -> Result<Option<String>> {
        if !table_exists(db, &self.table)? {
            return Ok(None);
        }
        let now = column_names(db, &self.table)?;
        if !self.columns.iter().all(|name| now.iter().any(|other| other.eq_ignore_ascii_case(name))) {
            return Ok(Some(self.table));
        }
        let (table, names) = (self.table.clone(), std::mem::take(&mut self.columns));
        each_row(db, &table, &names, |hash| {
            if let Some(left) = self.rows.get_mut(&hash) {
                *left -= 1;
                if *left == 0 {
                    self.rows.remove(&hash);
                }
            }
            !self.rows.is_empty()
        })?;
        Ok((!self.rows.is_empty()).then_some(table))
    }
}

/// True when no two rows of the table can be equal: an INSERT of an existing row then fails.
///
/// # Errors
/// SQLite's.
pub(super) fn has_unique_key(db: &Connection, table: &str) -> Result<bool> {
    let sql = "select exists (select 1 from pragma_table_info(?1, 'main') where pk > 0) \
               or exists (select 1 from pragma_index_list(?1, 'main') where \"unique\" = 1 and partial = 0)";
    db.query_row(sql, [table], |row| row.get(0)).map_err(from_sqlite)
}

fn column_names(db: &Connection, table: &str) -> Result<Vec<String>> {
    let mut statement =
        db.prepare("select name from pragma_table_info(?1, 'main') order by cid").map_err(from_sqlite)?;
    let names = statement.query_map([table], |row| row.get(0)).map_err(from_sqlite)?;
    names.collect::<rusqlite::Result<_>>().map_err(from_sqlite)
}

/// Calls `seen` with each row until it returns false.
fn each_row(db: &Connection, table: &str, columns: &[String], mut seen: impl FnMut(RowHash) -> bool) -> Result<()> {
    let names = columns.iter().map(|name| quoted_name(name)).collect::<Vec<_>>().join(", ");
    let mut statement = db.prepare(&format!("select {names} from main.{}", quoted_name(table))).map_err(from_sqlite)?;
    let mut rows = statement.query([]).map_err(from_sqlite)?;
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        let mut hasher = blake3::Hasher::new();
        for column in 0..columns.len() {
            hash_value(&mut hasher, row.get_ref(column).map_err(from_sqlite)?);
        }
        let mut hash = RowHash::default();
        hasher.finalize_xof().fill(&mut hash);
        if !seen(hash) {
            break;
        }
    }
    Ok(())
}

/// Hashes kind, length and bytes, so that two different rows never look equal.
fn hash_value(hasher: &mut blake3::Hasher, value: ValueRef<'_>) {
    let (kind, bytes): (u8, &[u8]) = match value {
        ValueRef::Null => (0, &[]),
        ValueRef::Integer(number) => {
            hasher.update(&[1]).update(&number.to_le_bytes());
            return;
        }
        ValueRef::Real(number) => {
            hasher.update(&[2]).update(&number.to_bits().to_le_bytes());
            return;
        }
        ValueRef::Text(text) => (3, text),
        ValueRef::Blob(bytes) => (4, bytes),
    };
    hasher.update(&[kind]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}
