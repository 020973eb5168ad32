//! How much free space a disk has, and which work is still allowed there.
//!
//! A full disk must not stop the work that frees space. So free space has three limits, the highest first:
//! ```text
//! low      tenants' writes, new databases and migrations are refused; reads, stamps and deletions go on
//! give up  the reserve (see `reserve.rs`) is removed, so that the catalog and stamps can still be written
//! nothing  the disk is full
//! ```
//! Temporary files of statements have a limit of their own above these, because a sort must not cause writes to be
//! refused. Removing the reserve never lifts the free space above `low`: that space is for the work that frees more.
//! Inodes are counted like bytes: without a free inode, no file can be created or opened for writing.
//!
//! The limits are pure. Called by the engine, the catalog and the control plane.

mod gauge;
mod reserve;

pub use gauge::DiskGauge;
pub(crate) use gauge::{disk_low_error, low_for_temp};
pub use reserve::{BASE_RESERVE, DiskReserve, ReserveState};

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// Below this, the catalog's write-ahead log, a checkpoint and hundreds of stamps might not fit.
const LOW_BYTES_MAX: u64 = 64 << 20;
/// A small disk keeps one sixteenth free.
const LOW_SHARE: u64 = 16;
/// Between two checks of the disk, each statement may write tens of megabytes of temporary files. That must not reach
/// `low`.
const TEMP_BYTES_MAX: u64 = 512 << 20;
/// A small disk keeps one eighth free for this.
const TEMP_SHARE: u64 = 8;
/// Inodes for hundreds of write-ahead logs and their shared memory.
const LOW_FILES_MAX: u64 = 256;
/// A file system with few inodes keeps a sixteenth of them.
const LOW_FILES_SHARE: u64 = 16;

/// An amount of disk space, in bytes and inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskRoom {
    /// Number of bytes.
    pub bytes: u64,
    /// Number of inodes; `u64::MAX` on a file system that does not count them.
    pub files: u64,
}

impl DiskRoom {
    fn is_below(self, other: Self) -> bool {
        self.bytes < other.bytes || self.files < other.files
    }

    fn divided_by(self, of: u64) -> Self {
        Self { bytes: self.bytes / of, files: self.files / of }
    }
}

/// Free and total space of a file system at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Space that this process may still use.
    pub free: DiskRoom,
    /// Total space of the file system.
    pub total: DiskRoom,
}

impl DiskSpace {
    /// Asks the file system that holds `path`: one system call, without disk access.
    ///
    /// # Errors
    /// The error of the operating system.
    pub fn at_path(path: &Path) -> std::io::Result<Self> {
        let found = rustix::fs::statvfs(path)?;
        let files = |count: u64| if found.f_files == 0 { u64::MAX } else { count };
        Ok(Self {
            free: DiskRoom { bytes: found.f_bavail.saturating_mul(found.f_frsize), files: files(found.f_favail) },
            total: DiskRoom { bytes: found.f_blocks.saturating_mul(found.f_frsize), files: files(found.f_files) },
        })
    }

    /// Tenants' writes are refused when less than this is free.
    #[must_use]
    pub fn low_limit(&self) -> DiskRoom {
        DiskRoom {
            bytes: (self.total.bytes / LOW_SHARE).min(LOW_BYTES_MAX),
            files: (self.total.files / LOW_FILES_SHARE).min(LOW_FILES_MAX),
        }
    }

    /// True when statements must stop writing temporary files here.
    #[must_use]
    pub fn is_low_for_temp(&self) -> bool {
        let bytes = (self.total.bytes / TEMP_SHARE).min(TEMP_BYTES_MAX);
        self.free.is_below(DiskRoom { bytes, ..self.low_limit() })
    }

    /// Size of the reserve. Together with [`DiskSpace::give_up_limit`] it is less than [`DiskSpace::low_limit`].
    #[must_use]
    pub fn reserve_size(&self) -> DiskRoom {
        let part = self.low_limit().divided_by(4);
        let counted = self.total.files != u64::MAX;
        DiskRoom { bytes: part.bytes, files: if counted { part.files } else { 0 } }
    }

    /// The reserve is removed when less than this is free.
    #[must_use]
    pub fn give_up_limit(&self) -> DiskRoom {
        self.low_limit().divided_by(8)
    }

    /// True when tenants' writes are refused here.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.free.is_below(self.low_limit())
    }

    /// True when even the catalog may find no free space.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.free.is_below(self.give_up_limit())
    }

    /// True when a reserve fits and leaves the disk far from low. Otherwise the reserve would be made and removed again
    /// and again.
    #[must_use]
    pub fn fits_reserve(&self) -> bool {
        let (low, reserve) = (self.low_limit(), self.reserve_size());
        let bytes = low.bytes.saturating_mul(2).saturating_add(reserve.bytes);
        let files = low.files.saturating_mul(2).saturating_add(reserve.files);
        !self.free.is_below(DiskRoom { bytes, files })
    }

    /// True when the disk stays above its limit after `bytes` more are written.
    #[must_use]
    pub fn fits_bytes(&self, bytes: u64) -> bool {
        let low = self.low_limit();
        !self.free.is_below(DiskRoom { bytes: low.bytes.saturating_add(bytes), files: low.files })
    }

    /// Text for people: how much is free and how much must stay free.
    #[must_use]
    pub fn describe_free_room(&self) -> String {
        let (free, low) = (self.free, self.low_limit());
        if free.files < low.files {
            return format!("{} inodes are free, and {} must stay free", free.files, low.files);
        }
        format!("{} KiB are free, and {} KiB must stay free", free.bytes >> 10, low.bytes >> 10)
    }
}

/// Refuses work that needs `bytes` under `directory` before the work begins.
///
/// # Errors
/// [`ErrorKind::DiskFull`] when it does not fit. When the disk cannot be queried, nothing is refused: the work itself
/// will fail if there is no space.
pub fn require_room(directory: &Path, bytes: u64) -> Result<()> {
    match DiskSpace::at_path(directory) {
        Ok(space) if !space.fits_bytes(bytes) => {
            let needs = format!("this needs {} KiB", bytes >> 10);
            Err(Error::new(
                ErrorKind::DiskFull,
                format!("the disk has no room for it: {needs}; {}", space.describe_free_room()),
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(total: u64, free: u64) -> DiskSpace {
        let room = |bytes| DiskRoom { bytes, files: u64::MAX };
        DiskSpace { free: room(free), total: room(total) }
    }

    #[test]
    fn a_given_up_reserve_never_lets_tenants_write_again() {
        for total in [1 << 20, 6 << 20, 64 << 20, 1 << 30, 1 << 40, u64::MAX] {
            let disk = space(total, 0);
            let (low, reserve, give_up) = (disk.low_limit(), disk.reserve_size(), disk.give_up_limit());
            assert!(reserve.bytes + give_up.bytes < low.bytes, "{total}");
            assert!(reserve.files.saturating_add(give_up.files) < low.files, "{total}");
            assert!(space(total, give_up.bytes + reserve.bytes).is_low());
        }
    }

    #[test]
    fn limits_follow_the_size_of_the_disk_up_to_a_bound() {
        assert_eq!(space(1 << 40, 0).low_limit().bytes, LOW_BYTES_MAX);
        assert_eq!(space(16 << 20, 0).low_limit().bytes, 1 << 20);
        assert!(space(1 << 30, 0).is_full() && space(1 << 30, 0).is_low());
        assert!(!space(1 << 30, 64 << 20).is_low() && space(1 << 30, 64 << 20).fits_bytes(0));
        assert!(!space(1 << 30, 64 << 20).fits_bytes(1) && !space(1 << 30, 64 << 20).fits_bytes(u64::MAX));
        assert!(!space(1 << 30, 130 << 20).fits_reserve() && space(1 << 30, 144 << 20).fits_reserve());
    }

    #[test]
    fn temporary_files_end_before_writes_do() {
        for total in [1 << 20, 64 << 20, 1 << 30, 1 << 40] {
            let low = space(total, 0).low_limit().bytes;
            assert!(space(total, 2 * low - 1).is_low_for_temp() && !space(total, 2 * low - 1).is_low(), "{total}");
        }
        assert!(space(1 << 40, (512 << 20) - 1).is_low_for_temp() && !space(1 << 40, 512 << 20).is_low_for_temp());
    }

    #[test]
    fn inodes_count_like_bytes() {
        let files = |files| DiskRoom { bytes: 1 << 40, files };
        let disk = |free| DiskSpace { free: files(free), total: files(16_000) };
        assert!(disk(0).is_full() && disk(255).is_low() && !disk(256).is_low());
        assert!(!disk(255).fits_bytes(0) && disk(255).describe_free_room().contains("inodes"));
    }
}
