//! The objects of a database, one by one and by class: what a copy must have besides its rows.
//!
//! Only the system catalogs are read, so it costs milliseconds. A definition is compared between servers of one major
//! version; another version may print the same object in other words, so there only names count.

use std::collections::BTreeMap;

use super::sql::text;
use super::work::Work;
use crate::error::Result;
use crate::fingerprint::{ClassSum, Objects};

/// Names no table of a tenant's, and is run with the search path `pg_catalog`.
const OBJECTS: &str = include_str!("objects.sql");

/// Reads them, in the transaction that is open if there is one.
pub(super) async fn read(work: &mut Work) -> Result<Objects> {
    let mut objects = Objects { version: work.version() / 10_000, ..Objects::default() };
    for row in work.answers(OBJECTS).await?.iter().flatten() {
        objects.by_name.insert(text(row, 0)?, (text(row, 1)?, text(row, 2)?));
    }
    Ok(objects)
}

/// The objects of each class in two numbers.
pub(super) fn classes(objects: &Objects) -> BTreeMap<String, ClassSum> {
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

/// 64 bits tell an accidental difference, and keep a manifest small.
const HASH_DIGITS: usize = 16;
