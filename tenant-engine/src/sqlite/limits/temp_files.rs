//! Temporary files of tenant SQL: where SQLite keeps them, and how much one statement may write to them.
//!
//! SQLite writes there what a sort, DISTINCT, an automatic index or a common table expression collects beyond its
//! cache. The files have no name and end with the statement. SQLite limits neither their size nor their number, so
//! [`TempFiles`] is asked while a statement runs. The operating system counts the bytes that each thread writes, and a
//! statement that reads writes only temporary files.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rusqlite::Connection;

use crate::disk::{DiskGauge, low_for_temp};
use crate::error::{Error, ErrorKind};
use crate::sqlite::locks::lock_ignoring_poison;
use crate::statement::AccessMode;

/// Nanoseconds between two checks: some 10 MB on a fast disk. One check costs some microseconds.
const LOOK_EVERY: u64 = 5_000_000;

/// Bytes that a statement may write on any disk, so that reads without temporary files continue, and so do writes.
/// Bytes that a writer's thread writes to the log of its database count, too.
const ALWAYS_BYTES: u64 = 1 << 20;
const ALWAYS_BYTES_OF_WRITERS: u64 = 64 << 20;

/// Marks that nothing was counted yet.
const UNKNOWN: u64 = u64::MAX;

/// The directory from which SQLite chooses when none was set.
const USUAL_PLACE: &str = "/var/tmp";

/// The directory that this process uses: SQLite has one setting for all connections.
static PLACE: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Makes SQLite keep its temporary files in `scratch`, for the whole process. A second engine uses the directory of the
/// first while it exists. Returns the gauge of the disk that holds them.
pub(in crate::sqlite) fn keep_in(scratch: &Path) -> DiskGauge {
    let mut place = lock_ignoring_poison(&PLACE);
    if place.as_ref().is_none_or(|kept| !kept.is_dir()) {
        *place = match set_directory(scratch) {
            Ok(()) => Some(scratch.to_path_buf()),
            Err(error) => {
                tracing::warn!(%error, "SQLite's temporary files stay in the usual directory");
                None
            }
        };
    }
    DiskGauge::of_temp(place.clone().unwrap_or_else(|| PathBuf::from(USUAL_PLACE)))
}

fn set_directory(scratch: &Path) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(scratch)?;
    let path = scratch.to_str().ok_or("the path is not UTF-8")?.replace('\'', "''");
    // SQLite itself checks that it can write there.
    Connection::open_in_memory()?.execute_batch(&format!("pragma temp_store_directory = '{path}'"))?;
    Ok(())
}

/// The bytes that the statement on one connection writes to temporary files.
#[derive(Debug)]
pub(in crate::sqlite) struct TempFiles {
    disk: DiskGauge,
    access: AccessMode,
    bytes_max: AtomicU64,
    look_at: AtomicU64,
    /// Bytes that the thread had written when the statement was first checked.
    before: AtomicU64,
    low: AtomicBool,
    over: AtomicBool,
}

impl TempFiles {
    /// A counter for a connection.
    pub(in crate::sqlite) fn new(disk: DiskGauge, access: AccessMode) -> Self {
        Self {
            disk,
            access,
            bytes_max: AtomicU64::new(u64::MAX),
            look_at: AtomicU64::new(0),
            before: AtomicU64::new(UNKNOWN),
            low: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    /// Starts a statement that may write this many bytes.
    pub(in crate::sqlite) fn begin_statement(&self, bytes_max: usize) {
        self.bytes_max.store(u64::try_from(bytes_max).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.look_at.store(0, Ordering::Relaxed);
        self.before.store(UNKNOWN, Ordering::Relaxed);
        self.low.store(false, Ordering::Relaxed);
        self.over.store(false, Ordering::Relaxed);
    }

    /// Called while it runs, on its thread; true interrupts it. `now` is in nanoseconds.
    pub(in crate::sqlite) fn check_progress(&self, now: u64) -> bool {
        if now < self.look_at.load(Ordering::Relaxed) {
            return false;
        }
        self.look_at.store(now.saturating_add(LOOK_EVERY), Ordering::Relaxed);
        // A system that does not count refuses nothing.
        let Some(written) = written_by_thread() else { return false };
        if self.before.load(Ordering::Relaxed) == UNKNOWN {
            self.before.store(written, Ordering::Relaxed);
            return false;
        }
        self.judge_written(written.saturating_sub(self.before.load(Ordering::Relaxed)))
    }

    fn judge_written(&self, bytes: u64) -> bool {
        let always = match self.access {
            AccessMode::Read => ALWAYS_BYTES,
            AccessMode::Write => ALWAYS_BYTES_OF_WRITERS,
        };
        // This limit does not apply to a tenant's writes to its own database.
        let over = self.access == AccessMode::Read && bytes > self.bytes_max.load(Ordering::Relaxed);
        let low = bytes > always && self.disk.is_low();
        self.over.store(over, Ordering::Relaxed);
        self.low.store(low, Ordering::Relaxed);
        over || low
    }

    /// The reason why the statement was interrupted, if it was interrupted here.
    pub(in crate::sqlite) fn stop_error(&self) -> Option<Error> {
        if self.over.load(Ordering::Relaxed) {
            let max = self.bytes_max.load(Ordering::Relaxed);
            let message = format!(
                "the statement sorts or collects so much that it writes more than {max} bytes of temporary files; \
                 ask for less, or add an index"
            );
            return Some(Error::new(ErrorKind::BytesMax, message));
        }
        self.low.load(Ordering::Relaxed).then(low_for_temp)
    }
}

/// Bytes that this thread has written to files since it started.
fn written_by_thread() -> Option<u64> {
    let counts = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    counts.lines().find_map(|line| line.strip_prefix("wchar: "))?.trim().parse().ok()
}
