//! Implements [`crate::Engine::take_snapshot`]: a page image of a database while it serves requests.
//!
//! The pages are read inside one read transaction that also checks the identity and reads the ledger. So everything
//! that is reported about the image is true of it. A small database is copied in memory, a larger one page by page into
//! a private file. Both give equal bytes apart from the counters that the content hash leaves out. Nothing is
//! checkpointed, and the file is not written to.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use bytes::Bytes;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, MAIN_DB};

use super::migrate::newest_version;
use crate::disk::require_room;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{ExpectedIdentity, Identity};
use crate::placement::Placement;
use crate::snapshot::{Snapshot, SnapshotImage, SnapshotInfo};
use crate::sqlite::SqliteEngine;
use crate::sqlite::error::from_sqlite;
use crate::sqlite::migrations::{foreign_keys, ledger};
use crate::sqlite::storage::files::io_fault;
use crate::sqlite::storage::image;
use crate::sqlite::storage::open::{FileSharing, open_database};

/// An image up to this size is kept in memory. A larger one needs a scratch file, which costs little beside compressing
/// it. Memory for many images at once would not be returned to the operating system for long.
const MEMORY_BYTES_MAX: u64 = 1 << 20;
/// Pages copied between two checks of the result: 4 MiB.
const STEP_PAGES: i32 = 1024;

/// See [`crate::Engine::take_snapshot`].
pub(in crate::sqlite) async fn take_snapshot(
    engine: &SqliteEngine,
    at: &Placement,
    expected: &ExpectedIdentity,
) -> Result<Snapshot> {
    let (on, expected, scratch) = (at.clone(), expected.clone(), engine.scratch_directory().to_path_buf());
    engine.blocking_on(at, move || snapshot_placement(&on, &expected, &scratch, MEMORY_BYTES_MAX)).await
}

fn snapshot_placement(
    at: &Placement,
    expected: &ExpectedIdentity,
    scratch: &Path,
    memory_bytes_max: u64,
) -> Result<Snapshot> {
    let database = open_database(at, FileSharing::Shared)?;
    database.read_transaction(Some(expected), |db, identity| {
        let image = match size_in_transaction(db)? {
            small if small <= memory_bytes_max => in_memory(db)?,
            _ => in_file(db, scratch)?,
        };
        describe_snapshot(db, identity, image)
    })
}

/// Describes an image of the database that was made in the open transaction.
pub(super) fn describe_snapshot(db: &Connection, identity: Identity, image: SnapshotImage) -> Result<Snapshot> {
    let (content_hash, size_bytes) = hash_image(&image)?;
    let info = SnapshotInfo {
        identity,
        schema_version: newest_version(&ledger::read_ledger(db)?),
        content_hash,
        size_bytes,
        engine_version: format!("sqlite {}", rusqlite::version()),
        foreign_key_violations: foreign_keys::count_violations(db)?,
        classes: std::collections::BTreeMap::new(),
        rows: None,
        left_out: Vec::new(),
    };
    Ok(Snapshot { info, image })
}

/// Bytes of the database in the open transaction.
pub(super) fn size_in_transaction(db: &Connection) -> Result<u64> {
    let pragma = |name: &str| db.query_row(&format!("pragma {name}"), [], |row| row.get::<_, i64>(0));
    let bytes = pragma("page_count").and_then(|count| Ok(count * pragma("page_size")?)).map_err(from_sqlite)?;
    Ok(u64::try_from(bytes).unwrap_or_default())
}

/// Copies all pages of the open transaction into memory.
pub(super) fn in_memory(db: &Connection) -> Result<SnapshotImage> {
    Ok(SnapshotImage::Memory(Bytes::copy_from_slice(&db.serialize(MAIN_DB).map_err(from_sqlite)?)))
}

/// The open read transaction keeps a writer from restarting the copy. Without it, copying a busy database would never
/// end.
fn in_file(db: &Connection, scratch: &Path) -> Result<SnapshotImage> {
    let unusable = |e| io_fault("cannot write to the scratch directory", e);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(scratch).map_err(unusable)?;
    require_room(scratch, size_in_transaction(db)?)?;
    let path = tempfile::Builder::new().prefix("snapshot-").tempfile_in(scratch).map_err(unusable)?.into_temp_path();
    let mut copy = Connection::open(&path).map_err(from_sqlite)?;
    // The file is private, and worthless when interrupted.
    copy.execute_batch("pragma journal_mode=off; pragma synchronous=off").map_err(from_sqlite)?;
    {
        let backup = Backup::new(db, &mut copy).map_err(from_sqlite)?;
        loop {
            match backup.step(STEP_PAGES).map_err(from_sqlite)? {
                StepResult::Done => break,
                StepResult::More => {}
                _ => return Err(Error::new(ErrorKind::Busy, "the database was locked while it was being copied")),
            }
        }
    }
    copy.close().map_err(|(_, error)| from_sqlite(error))?;
    Ok(SnapshotImage::File(path))
}

fn hash_image(image: &SnapshotImage) -> Result<(String, u64)> {
    let hashed = match image {
        SnapshotImage::Memory(bytes) => image::content_hash(&bytes[..]),
        SnapshotImage::File(path) => std::fs::File::open(path).and_then(image::content_hash),
    };
    hashed.map_err(|e| io_fault("cannot read the snapshot back", e))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::identity::IdentityState;
    use crate::ids::{FleetId, Generation, TenantId};
    use crate::sqlite::identity as row;

    /// A database with deleted pages, and with a log that holds more than the main file.
    fn database(root: &Path) -> (Placement, ExpectedIdentity, Connection) {
        let tenant = TenantId::generate();
        let at = Placement::new_sqlite(root, tenant, Generation::FIRST, 1);
        std::fs::create_dir(at.file_path().parent().unwrap()).unwrap();
        let db = Connection::open(at.file_path()).unwrap();
        db.execute_batch("pragma journal_mode=wal; create table t(id integer primary key, body)").unwrap();
        let state = IdentityState::Active;
        let fleet = FleetId::generate();
        row::create_table(&db).unwrap();
        row::write_identity(
            &db,
            &Identity { tenant, fleet, generation: Generation::FIRST, state, op: None, stamped_at: 0 },
        )
        .unwrap();
        let many = "insert into t(body) with recursive n(i) as (select 1 union all select i + 1 from n where i < 2000)
                    select randomblob(700) from n";
        db.execute_batch(&format!("{many}; delete from t where id % 3 = 0")).unwrap();
        (at, ExpectedIdentity { tenant, fleet, generation: Generation::FIRST, states: vec![state] }, db)
    }

    #[test]
    fn both_routes_give_the_same_content() {
        let root = tempfile::tempdir().unwrap();
        let (at, expected, app) = database(root.path());
        let take = |max| snapshot_placement(&at, &expected, &root.path().join("new/scratch"), max).unwrap();
        let (memory, file) = (take(u64::MAX), take(0));
        assert_eq!(memory.info.content_hash, file.info.content_hash);
        assert_eq!(memory.info.size_bytes, file.info.size_bytes);
        let (SnapshotImage::Memory(bytes), SnapshotImage::File(path)) = (&memory.image, &file.image) else {
            panic!("both routes")
        };
        assert!(bytes[..] != std::fs::read(path).unwrap()[..], "the counters differ, or zeroing them proves nothing");
        assert_eq!(take(0).info.content_hash, file.info.content_hash, "unchanged is recognised");
        app.execute_batch("update t set body = 'x' where id = 1").unwrap();
        assert_ne!(take(0).info.content_hash, file.info.content_hash, "changed is too");

        let scratch = path.parent().unwrap().to_path_buf();
        drop((memory, file));
        assert_eq!(std::fs::read_dir(scratch).unwrap().count(), 0, "images go away with their values");
    }

    #[test]
    fn a_busy_writer_neither_spoils_nor_delays_the_copy() {
        let root = tempfile::tempdir().unwrap();
        let (at, expected, app) = database(root.path());
        app.execute_batch("create table pairs(a, b); insert into pairs values(0, 0)").unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = &stop;
            scope.spawn(move || {
                for n in 1.. {
                    app.execute("update pairs set a = ?1, b = ?1", [n]).unwrap();
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            for max in [0, u64::MAX, 0, u64::MAX] {
                let taken = snapshot_placement(&at, &expected, root.path(), max).unwrap();
                let copy = root.path().join("copy.db");
                match &taken.image {
                    SnapshotImage::Memory(bytes) => std::fs::write(&copy, bytes).unwrap(),
                    SnapshotImage::File(path) => drop(std::fs::copy(path, &copy).unwrap()),
                }
                let copy = Connection::open(&copy).unwrap();
                let whole: (bool, String) = copy
                    .query_row("select a = b, (select * from pragma_quick_check) from pairs", [], |r| {
                        Ok((r.get(0)?, r.get(1)?))
                    })
                    .unwrap();
                assert_eq!(whole, (true, "ok".to_owned()));
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
