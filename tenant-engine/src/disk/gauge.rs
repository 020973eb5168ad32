//! Whether one disk is low, asked as often as anybody likes.
//!
//! The operating system is asked at most once in [`ASK_EVERY`]; between that an answer is two atomic loads. Clones share
//! the answer. Called by `sqlite/` before and while a tenant writes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::DiskSpace;
use crate::error::{Error, ErrorKind, Result};

/// A disk that takes 2 GB/s loses 10 MB meanwhile: less than lies between the limit and a full disk.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// The room of one file system, remembered for a moment.
#[derive(Debug, Clone)]
pub struct DiskGauge(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    /// What is asked of the disk.
    test: fn(&DiskSpace) -> bool,
    base: Instant,
    /// Nanoseconds after `base` from which the system is asked again.
    ask_at: AtomicU64,
    low: AtomicBool,
}

impl DiskGauge {
    /// Whether the file system that holds `directory` is low for writes.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self::asking(directory, DiskSpace::is_low)
    }

    /// Whether it is low for temporary files.
    #[must_use]
    pub fn of_temp(directory: PathBuf) -> Self {
        Self::asking(directory, DiskSpace::is_low_for_temp)
    }

    fn asking(directory: PathBuf, test: fn(&DiskSpace) -> bool) -> Self {
        let (ask_at, low) = (AtomicU64::new(0), AtomicBool::new(false));
        Self(Arc::new(Inner { directory, test, base: Instant::now(), ask_at, low }))
    }

    /// True when tenants' writes, or temporary files, are refused. A disk that cannot be asked refuses nothing.
    #[must_use]
    pub fn is_low(&self) -> bool {
        let now = u64::try_from(self.0.base.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if now >= self.0.ask_at.load(Ordering::Relaxed) {
            let pause = u64::try_from(ASK_EVERY.as_nanos()).unwrap_or(u64::MAX);
            self.0.ask_at.store(now.saturating_add(pause), Ordering::Relaxed);
            let low = DiskSpace::of(&self.0.directory).is_ok_and(|space| (self.0.test)(&space));
            self.0.low.store(low, Ordering::Relaxed);
        }
        self.0.low.load(Ordering::Relaxed)
    }

    /// Refuses a tenant's write on a disk that is low.
    ///
    /// # Errors
    /// [`ErrorKind::DiskLow`].
    pub fn check(&self) -> Result<()> {
        if self.is_low() { Err(low()) } else { Ok(()) }
    }
}

/// The error of a write that was refused so that the disk does not become full.
pub(crate) fn low() -> Error {
    Error::new(ErrorKind::DiskLow, "the disk is almost full: tenants' writes are refused, reads go on")
}

/// The error of a statement that was stopped so that its temporary files do not fill the disk.
pub(crate) fn low_for_temp() -> Error {
    let message = "the disk has little room for temporary files: a statement that sorts or collects so much is refused";
    Error::new(ErrorKind::DiskLow, message)
}
