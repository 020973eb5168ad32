//! The objects of a database, one by one and by class: what a copy must have besides its rows.
//!
//! Only the system catalogs are read, so it costs milliseconds. Definitions are compared only between servers of one
//! major version. Another version may print the same object differently, so then only names are compared.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::fingerprint::{ClassSum, SchemaObjects};
use crate::migration::LedgerName;
use crate::postgres::migrations::ledger;
use crate::postgres::servers::admin_connection::AdminConnection;
use crate::postgres::sql::text_column;

/// Names no table of a tenant. It runs with the search path `pg_catalog`.
const OBJECTS: &str = include_str!("objects.sql");

/// Reads the objects, in the open transaction if there is one. Leaves out the identity and the ledger of this name.
pub(in crate::postgres) async fn read_objects(work: &mut AdminConnection, name: &LedgerName) -> Result<SchemaObjects> {
    let mut objects = SchemaObjects { version: work.server_version() / 10_000, ..SchemaObjects::default() };
    for row in work.fetch_answers(OBJECTS.replace("{ledger}", &ledger::table(name))).await?.iter().flatten() {
        objects.by_name.insert(text_column(row, 0)?, (text_column(row, 1)?, text_column(row, 2)?));
    }
    Ok(objects)
}

/// A count and a hash for the objects of each class.
pub(in crate::postgres) fn class_sums(objects: &SchemaObjects) -> BTreeMap<String, ClassSum> {
    let mut hashers: BTreeMap<String, (u64, blake3::Hasher)> = BTreeMap::new();
    for (name, (class, definition)) in &objects.by_name {
        let (count, hasher) = hashers.entry(class.clone()).or_default();
        *count += 1;
        hasher.update(name.as_bytes()).update(definition.as_bytes());
    }
    let sum = |(class, (count, hasher)): (String, (u64, blake3::Hasher))| {
        let sum = hasher.finalize().to_hex()[..HASH_DIGITS].to_owned();
        (class, ClassSum { count, sum, version: objects.version })
    };
    hashers.into_iter().map(sum).collect()
}

/// 64 bits detect an accidental difference and keep a manifest small.
const HASH_DIGITS: usize = 16;
