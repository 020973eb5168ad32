//! Disk space for a catalog in a file: the reserve beside it, and a size limit for its write-ahead log.
//!
//! Called by `db.rs` before each write transaction, with the write connection and outside of a transaction. The
//! catalog's own reads are short, so they do not prevent a reset of the log for long. Another program's read may do so.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::AnyConnection;
use tenant_engine::disk::DiskReserve;

use crate::error::{Error, ErrorKind, Result};
use crate::file;

/// Log size from which it is reset: eight times what SQLite's own checkpoints leave.
const RESET_FROM_BYTES: u64 = 32 << 20;
/// Maximum log size. A fleet writes some kilobytes per step, so this is enough for a hundred thousand steps during one
/// read.
const LOG_BYTES_MAX: u64 = 1 << 30;
/// The interval between resets. A reset waits up to two seconds for readers, and blocks all writes meanwhile.
const RESET_EVERY: Duration = Duration::from_secs(20);

/// The reserve and the log of a catalog's file.
#[derive(Debug)]
pub(crate) struct CatalogFileSpace {
    reserve: DiskReserve,
    log: PathBuf,
    next_reset: Mutex<Option<Instant>>,
}

impl CatalogFileSpace {
    pub(super) fn for_catalog(catalog: &Path) -> Self {
        let mut log = catalog.as_os_str().to_owned();
        log.push("-wal");
        let reserve = DiskReserve::at_path(catalog.with_extension("reserve"));
        Self { reserve, log: log.into(), next_reset: Mutex::new(None) }
    }

    pub(super) fn disk_reserve(&self) -> &DiskReserve {
        &self.reserve
    }

    /// Makes space for a write.
    ///
    /// # Errors
    /// `Unavailable` when the log reached its limit and a reader keeps it from being reset.
    pub(super) async fn prepare_write(&self, connection: &mut AnyConnection) -> Result<()> {
        self.reserve.make_room();
        if file::file_length(&self.log) > RESET_FROM_BYTES && self.is_due() {
            // The log's length shows whether readers allowed the reset.
            let _ = sqlx::raw_sql("pragma wal_checkpoint(truncate)").execute(connection).await;
        }
        match file::file_length(&self.log) {
            bytes if bytes > LOG_BYTES_MAX => Err(log_too_long(bytes)),
            _ => Ok(()),
        }
    }

    fn is_due(&self) -> bool {
        let mut next = self.next_reset.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if next.is_some_and(|at| now < at) {
            return false;
        }
        *next = Some(now + RESET_EVERY);
        true
    }
}

fn log_too_long(bytes: u64) -> Error {
    let message = format!(
        "the catalog's write-ahead log reached {} MiB, because a program keeps a read transaction open on the file: \
         end that program",
        bytes >> 20
    );
    Error::new(ErrorKind::Unavailable, message)
}

#[cfg(test)]
mod tests {
    use sqlx::{AnyConnection, Connection as _};

    use super::*;

    async fn run(connection: &mut AnyConnection, sql: &'static str) {
        sqlx::raw_sql(sql).execute(connection).await.unwrap();
    }

    #[tokio::test]
    async fn a_long_log_is_reset_when_the_reader_ends() {
        sqlx::any::install_default_drivers();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.db");
        let url = format!("sqlite://{}?mode=rwc", path.display());
        let mut writer = AnyConnection::connect(&url).await.unwrap();
        run(&mut writer, "pragma journal_mode=wal; pragma synchronous=off; pragma busy_timeout=1; create table t (x)")
            .await;
        let mut reader = AnyConnection::connect(&url).await.unwrap();
        run(&mut reader, "begin; select count(*) from t").await;
        let room = CatalogFileSpace::for_catalog(&path);
        for _ in 0..36 {
            run(&mut writer, "insert into t values (zeroblob(1000000))").await;
        }
        room.prepare_write(&mut writer).await.unwrap();
        assert!(file::file_length(&room.log) > RESET_FROM_BYTES, "the reader needs it");
        run(&mut reader, "rollback").await;
        *room.next_reset.lock().unwrap() = None;
        room.prepare_write(&mut writer).await.unwrap();
        assert_eq!(file::file_length(&room.log), 0);
        assert!(log_too_long(LOG_BYTES_MAX + 1).to_string().contains("1024 MiB"));
    }
}
