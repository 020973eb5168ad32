//! Implements [`crate::Engine::compute_fingerprint`]: counts and hashes of every table, in one transaction.

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::error::Result;
use crate::fingerprint::{DatabaseFingerprint, TableSum};
use crate::identity::ExpectedIdentity;
use crate::own_tables;
use crate::placement::Placement;
use crate::sqlite::SqliteEngine;
use crate::sqlite::error::from_sqlite;
use crate::sqlite::limits::schema;
use crate::sqlite::storage::open::{FileSharing, open_database};

/// Finds the tables with rows, including those behind virtual tables, which have no page. Leaves out the identity,
/// which differs on purpose, and SQLite's own statistics.
const TABLES: &str = "select name from main.sqlite_schema where type = 'table' and rootpage > 0 \
                      and name not in ('_fleet_identity', 'sqlite_schema', 'sqlite_stat1', 'sqlite_stat4')";
/// Reads the schema without the fence triggers and the fleet's own tables.
fn schema_sql() -> String {
    let own = own_tables::quoted_names();
    format!(
        "select type, name, tbl_name, sql from sqlite_schema \
         where substr(name, 1, 13) <> '_fleet_fence_' and tbl_name not in ({own})"
    )
}

/// See [`crate::Engine::compute_fingerprint`].
pub(in crate::sqlite) async fn compute_fingerprint(
    engine: &SqliteEngine,
    at: &Placement,
    expected: &ExpectedIdentity,
) -> Result<DatabaseFingerprint> {
    let (on, expected) = (at.clone(), expected.clone());
    engine.blocking_on(at, move || fingerprint_placement(&on, &expected)).await
}

fn fingerprint_placement(at: &Placement, expected: &ExpectedIdentity) -> Result<DatabaseFingerprint> {
    let database = open_database(at, FileSharing::Shared)?;
    database.read_transaction(Some(expected), |db, _| {
        schema::require_bounded(db)?;
        fingerprint_connection(db).map_err(from_sqlite)
    })
}

pub(super) fn fingerprint_connection(db: &Connection) -> rusqlite::Result<DatabaseFingerprint> {
    let mut tables = db.prepare(TABLES)?;
    let names: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut print = DatabaseFingerprint::default();
    print.tables.insert("the schema".to_owned(), sum_rows(db, &schema_sql())?);
    for name in names {
        let all = format!("select * from main.\"{}\"", name.replace('"', "\"\""));
        let sum = sum_rows(db, &all)?;
        print.tables.insert(name, sum);
    }
    Ok(print)
}

/// Adds up the hashes of the rows, so that their order does not count.
fn sum_rows(db: &Connection, sql: &str) -> rusqlite::Result<TableSum> {
    let mut statement = db.prepare(sql)?;
    let columns = statement.column_count();
    let (mut rows, mut sum) = (0, 0u128);
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let mut hasher = blake3::Hasher::new();
        for column in 0..columns {
            hash_value(&mut hasher, row.get_ref(column)?);
        }
        let mut head = [0; 16];
        hasher.finalize_xof().fill(&mut head);
        sum = sum.wrapping_add(u128::from_be_bytes(head));
        rows += 1;
    }
    Ok(TableSum { rows, sum: format!("{sum:032x}") })
}

/// Hashes kind and length with the value, so that two different rows never look equal.
fn hash_value(hasher: &mut blake3::Hasher, value: ValueRef<'_>) {
    let mut part = |kind: u8, bytes: &[u8]| {
        hasher.update(&[kind]).update(&(bytes.len() as u64).to_be_bytes()).update(bytes);
    };
    match value {
        ValueRef::Null => part(0, &[]),
        ValueRef::Integer(number) => part(1, &number.to_be_bytes()),
        ValueRef::Real(number) => part(2, &number.to_bits().to_be_bytes()),
        ValueRef::Text(text) => part(3, text),
        ValueRef::Blob(bytes) => part(4, bytes),
    }
}
