//! What the tests of the suite share: two base versions, and the check of a result.

use bytes::Bytes;

use crate::migration::MigrationFile;
use crate::{ErrorKind, MigrationSet, Result, SnapshotImage};

pub(super) const BASE: [(&str, &str); 2] =
    [("1_v.sql", "create table t1(a integer);"), ("2_v.sql", "create table t2(a integer);")];

pub(super) fn base_set() -> MigrationSet {
    base_and(&[])
}

/// The two base versions, followed by these.
pub(super) fn base_and(more: &[&str]) -> MigrationSet {
    let more =
        more.iter().zip(3..).map(|(sql, n)| MigrationFile { name: format!("{n}_v.sql"), sql: (*sql).to_owned() });
    expect_ok(MigrationSet::from_files(&BASE.iter().map(migration_file).chain(more).collect::<Vec<_>>()))
}

pub(super) fn migration_file((name, sql): &(&str, &str)) -> MigrationFile {
    MigrationFile { name: (*name).to_owned(), sql: (*sql).to_owned() }
}

pub(super) fn bytes_of(image: &SnapshotImage) -> Bytes {
    match image {
        SnapshotImage::Memory(bytes) => bytes.clone(),
        SnapshotImage::File(path) => std::fs::read(path).expect("an image can be read").into(),
    }
}

#[track_caller]
pub(super) fn expect_ok<T>(outcome: Result<T>) -> T {
    outcome.unwrap_or_else(|error| panic!("{:?}: {error}", error.kind()))
}

/// The message of an error, which must have this kind.
#[track_caller]
pub(super) fn expect_refusal<T>(outcome: Result<T>, kind: ErrorKind) -> String {
    match outcome {
        Ok(_) => panic!("expected {kind:?}, and it succeeded"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{error}");
            error.to_string()
        }
    }
}
