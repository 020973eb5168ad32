//! Tells whether one disk is low, and may be asked as often as a caller likes.
//!
//! The operating system is asked at most once in [`ASK_EVERY`]. Between two such calls an answer costs two atomic
//! loads. Clones share the answer. Called by `sqlite/` before and while a tenant writes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::DiskSpace;
use crate::error::{Error, ErrorKind, Result};

/// A disk that writes 2 GB/s loses 10 MB in this time. That is less than the distance between the limit and a full
/// disk.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// The free space of one file system, cached for some milliseconds.
#[derive(Debug, Clone)]
pub struct DiskGauge(Arc<DiskGaugeInner>);

#[derive(Debug)]
struct DiskGaugeInner {
    directory: PathBuf,
    /// The condition that makes this disk low.
    test: fn(&DiskSpace) -> bool,
    base: Instant,
    /// The system is asked again after this many nanoseconds since `base`.
    ask_at: AtomicU64,
    low: AtomicBool,
}

impl DiskGauge {
    /// Measures whether the file system that holds `directory` is low for writes.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self::with_test(directory, DiskSpace::is_low)
    }

    /// Measures whether that file system is low for temporary files.
    #[must_use]
    pub fn of_temp(directory: PathBuf) -> Self {
        Self::with_test(directory, DiskSpace::is_low_for_temp)
    }

    fn with_test(directory: PathBuf, test: fn(&DiskSpace) -> bool) -> Self {
        let (ask_at, low) = (AtomicU64::new(0), AtomicBool::new(false));
        Self(Arc::new(DiskGaugeInner { directory, test, base: Instant::now(), ask_at, low }))
    }

    /// True when tenants' writes, or temporary files, are refused. When the disk cannot be queried, nothing is refused.
    #[must_use]
    pub fn is_low(&self) -> bool {
        let now = u64::try_from(self.0.base.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if now >= self.0.ask_at.load(Ordering::Relaxed) {
            let pause = u64::try_from(ASK_EVERY.as_nanos()).unwrap_or(u64::MAX);
            self.0.ask_at.store(now.saturating_add(pause), Ordering::Relaxed);
            let low = DiskSpace::at_path(&self.0.directory).is_ok_and(|space| (self.0.test)(&space));
            self.0.low.store(low, Ordering::Relaxed);
        }
        self.0.low.load(Ordering::Relaxed)
    }

    /// Refuses a tenant's write on a disk that is low.
    ///
    /// # Errors
    /// [`ErrorKind::DiskLow`] when the disk is low.
    pub fn require_free_room(&self) -> Result<()> {
        if self.is_low() { Err(disk_low_error()) } else { Ok(()) }
    }
}

/// The error of a write that is refused to keep the disk from becoming full.
pub(crate) fn disk_low_error() -> Error {
    Error::new(ErrorKind::DiskLow, "the disk is almost full: tenants' writes are refused, reads continue")
}

/// The error of a statement that is stopped because its temporary files would fill the disk.
pub(crate) fn low_for_temp() -> Error {
    let message = "the disk has little room for temporary files: a statement that sorts or collects so much is refused";
    Error::new(ErrorKind::DiskLow, message)
}
