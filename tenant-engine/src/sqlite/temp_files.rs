//! Temporary files of tenant SQL: where SQLite keeps them, and how much one statement may write to them.
//!
//! SQLite writes there what a sort, DISTINCT, an automatic index or a common table expression collects beyond its cache.
//! The files have no name and end with the statement. SQLite bounds neither, so [`TempFiles`] is asked while a statement
//! runs. The operating system counts what each thread writes, and a statement that reads writes only temporary files.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rusqlite::Connection;

use super::workers::lock;
use crate::disk::{DiskGauge, low_for_temp};
use crate::error::{Error, ErrorKind};
use crate::pool::Access;

/// Nanoseconds between two looks: some 10 MB on a fast disk. One look costs some microseconds.
const LOOK_EVERY: u64 = 5_000_000;

/// What a statement may write on any disk: reads that need no temporary files go on, and so do writes. What the thread of
/// a writer writes to the log of its database counts, too.
const ALWAYS_BYTES: u64 = 1 << 20;
const ALWAYS_BYTES_OF_WRITERS: u64 = 64 << 20;

/// Nothing was counted yet.
const UNKNOWN: u64 = u64::MAX;

/// Where SQLite takes the next directory from when it has none of ours.
const USUAL_PLACE: &str = "/var/tmp";

/// The directory that this process uses: SQLite has one setting for all connections.
static PLACE: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Lets SQLite keep its temporary files in `scratch`, for the whole process. A second engine uses the directory of the
/// first while it exists. Returns the gauge of the disk that holds them.
pub(super) fn keep_in(scratch: &Path) -> DiskGauge {
    let mut place = lock(&PLACE);
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
    std::fs::create_dir_all(scratch)?;
    let path = scratch.to_str().ok_or("the path is not UTF-8")?.replace('\'', "''");
    // SQLite itself checks that it can write there.
    Connection::open_in_memory()?.execute_batch(&format!("pragma temp_store_directory = '{path}'"))?;
    Ok(())
}

/// What the statement on one connection writes to temporary files.
#[derive(Debug)]
pub(super) struct TempFiles {
    disk: DiskGauge,
    access: Access,
    bytes_max: AtomicU64,
    look_at: AtomicU64,
    /// What the thread had written when the statement was first looked at.
    before: AtomicU64,
    low: AtomicBool,
    over: AtomicBool,
}

impl TempFiles {
    /// For a connection.
    pub(super) fn new(disk: DiskGauge, access: Access) -> Self {
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

    /// A statement begins that may write so much.
    pub(super) fn begin(&self, bytes_max: usize) {
        self.bytes_max.store(u64::try_from(bytes_max).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.look_at.store(0, Ordering::Relaxed);
        self.before.store(UNKNOWN, Ordering::Relaxed);
        self.low.store(false, Ordering::Relaxed);
        self.over.store(false, Ordering::Relaxed);
    }

    /// While it runs, on its thread; true stops it. `now` is in nanoseconds.
    pub(super) fn look(&self, now: u64) -> bool {
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
        self.judge(written.saturating_sub(self.before.load(Ordering::Relaxed)))
    }

    fn judge(&self, bytes: u64) -> bool {
        let always = match self.access {
            Access::Read => ALWAYS_BYTES,
            Access::Write => ALWAYS_BYTES_OF_WRITERS,
        };
        // How much a tenant may write to its own database is not decided here.
        let over = self.access == Access::Read && bytes > self.bytes_max.load(Ordering::Relaxed);
        let low = bytes > always && self.disk.is_low();
        self.over.store(over, Ordering::Relaxed);
        self.low.store(low, Ordering::Relaxed);
        over || low
    }

    /// Why the statement was stopped, if it was stopped here.
    pub(super) fn refusal(&self) -> Option<Error> {
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

/// Bytes that this thread has written to files, ever.
fn written_by_thread() -> Option<u64> {
    let counts = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    counts.lines().find_map(|line| line.strip_prefix("wchar: "))?.trim().parse().ok()
}
