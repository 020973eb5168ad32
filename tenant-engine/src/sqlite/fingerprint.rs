//! The verb `fingerprint`: counts and hashes of every table, in one transaction.

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::SqliteEngine;
use super::error::from_sqlite;
use super::open::{Sharing, open};
use super::schema;
use crate::error::Result;
use crate::fingerprint::{Fingerprint, TableSum};
use crate::identity::Expected;
use crate::placement::Placement;

/// Tables with rows: also those behind virtual ones, which have no page. Not the identity, which differs on purpose, nor
/// what SQLite gathers for itself.
const TABLES: &str = "select name from main.sqlite_schema where type = 'table' and rootpage > 0 \
                      and name not in ('_fleet_identity', 'sqlite_schema', 'sqlite_stat1', 'sqlite_stat4')";
/// What there is, without the fence.
const SCHEMA: &str = "select type, name, tbl_name, sql from sqlite_schema where substr(name, 1, 13) <> '_fleet_fence_'";

/// See [`crate::Engine::fingerprint`].
pub(super) async fn fingerprint(engine: &SqliteEngine, at: &Placement, expected: &Expected) -> Result<Fingerprint> {
    let (on, expected) = (at.clone(), expected.clone());
    engine.blocking_on(at, move || look(&on, &expected)).await
}

fn look(at: &Placement, expected: &Expected) -> Result<Fingerprint> {
    let database = open(at, Sharing::Shared)?;
    database.read(Some(expected), |db, _| {
        schema::require_bounded(db)?;
        take(db).map_err(from_sqlite)
    })
}

pub(super) fn take(db: &Connection) -> rusqlite::Result<Fingerprint> {
    let mut tables = db.prepare(TABLES)?;
    let names: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut print = Fingerprint::default();
    print.tables.insert("the schema".to_owned(), sum(db, SCHEMA)?);
    for name in names {
        let all = format!("select * from main.\"{}\"", name.replace('"', "\"\""));
        let sum = sum(db, &all)?;
        print.tables.insert(name, sum);
    }
    Ok(print)
}

/// The rows' hashes added up, so that their order does not count.
fn sum(db: &Connection, sql: &str) -> rusqlite::Result<TableSum> {
    let mut statement = db.prepare(sql)?;
    let columns = statement.column_count();
    let (mut rows, mut sum) = (0, 0u128);
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let mut hasher = blake3::Hasher::new();
        for column in 0..columns {
            add(&mut hasher, row.get_ref(column)?);
        }
        let mut head = [0; 16];
        hasher.finalize_xof().fill(&mut head);
        sum = sum.wrapping_add(u128::from_be_bytes(head));
        rows += 1;
    }
    Ok(TableSum { rows, sum: format!("{sum:032x}") })
}

/// With kind and length, so that no two rows look alike.
fn add(hasher: &mut blake3::Hasher, value: ValueRef<'_>) {
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
