//! Limits the size of the write-ahead log of one tenant's database.
//!
//! SQLite restarts a log when no reader needs it any more. Readers that overlap without a pause, or a reader that never
//! ends, let the log grow without limit. So each write checks its size first:
//! ```text
//! up to RESET_FROM   nothing is done: SQLite's own checkpoints keep it there
//! beyond it          the log is copied into the file and cut off, as soon as readers allow it
//! beyond the limit   writes wait until that has succeeded, or fail with `log_max`
//! ```
//! While writes wait, new readers read the newest state, and a checkpoint only has to wait for the older readers.
//! Readers of this process end at their deadline. Called by `pool.rs` on workers.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::connection::SqliteTenantConnection;
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::locks::lock_ignoring_poison;
use crate::sqlite::storage::files::{file_length, path_beside};

/// Four times the size that SQLite's own checkpoints leave.
const RESET_FROM_BYTES: u64 = 16 << 20;
/// A reader that copies a database of this size for minutes, while others write steadily, must not stop the writes.
const LIMIT_BYTES: u64 = 256 << 20;
/// A reset that readers prevented is tried again after this time: each attempt waits for them for some milliseconds.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// The write-ahead log of one database.
#[derive(Debug)]
pub(super) struct WriteAheadLog {
    database: PathBuf,
    path: PathBuf,
    next_try: Mutex<Option<Instant>>,
}

impl WriteAheadLog {
    pub(super) fn for_database(database: &Path) -> Self {
        Self { database: database.to_path_buf(), path: path_beside(database, "-wal"), next_try: Mutex::new(None) }
    }

    /// Resets a log that is too long; refuses the write when that is not possible and the limit is reached. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::LogMax`].
    pub(super) fn bound_size(&self, conn: &SqliteTenantConnection) -> Result<()> {
        let bytes = file_length(&self.path);
        if bytes <= RESET_FROM_BYTES {
            return Ok(());
        }
        // Copying a larger database takes longer, and the log may grow to the size of the database meanwhile.
        self.bound_to(bytes, LIMIT_BYTES.saturating_add(file_length(&self.database)), || {
            // A full disk or a reader may prevent it; the length of the log shows whether it was reset.
            let _ = conn.truncate_log();
        })
    }

    fn bound_to(&self, bytes: u64, limit: u64, reset: impl FnOnce()) -> Result<()> {
        if bytes > limit || self.is_due() {
            reset();
        }
        if file_length(&self.path) <= limit {
            return Ok(());
        }
        let message = format!("readers keep the write-ahead log from being reset, and it reached {} MiB", bytes >> 20);
        Err(Error::new(ErrorKind::LogMax, message))
    }

    fn is_due(&self) -> bool {
        let (mut next, now) = (lock_ignoring_poison(&self.next_try), Instant::now());
        if next.is_some_and(|at| now < at) {
            return false;
        }
        *next = Some(now + RETRY_EVERY);
        true
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    fn write(db: &Connection) {
        db.execute("insert into t values (zeroblob(100000))", []).unwrap();
    }

    #[test]
    fn a_log_that_a_reader_holds_is_bounded_and_reset_when_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let writer = Connection::open(&path).unwrap();
        writer.busy_timeout(Duration::from_millis(1)).unwrap();
        writer.execute_batch("pragma journal_mode=wal; pragma synchronous=off; create table t(x)").unwrap();
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("begin; select count(*) from t").unwrap();
        let log = WriteAheadLog::for_database(&path);
        let bound = || {
            log.bound_to(file_length(&log.path), 1_000_000, || {
                let _ = writer.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()));
            })
        };
        let mut written = 0;
        while bound().is_ok() {
            write(&writer);
            written += 1;
            assert!(written < 100, "the log is not bounded");
        }
        assert_eq!(bound().unwrap_err().kind(), ErrorKind::LogMax);
        reader.execute_batch("rollback").unwrap();
        bound().unwrap();
        assert_eq!(file_length(&log.path), 0);
        let kept: i64 = reader.query_row("select count(*) from t", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, written);
    }
}
