//! Disk space that is reserved, and released when the disk is full.
//!
//! A reserve is a directory with one file of allocated blocks and some empty files, which hold inodes. Code that is
//! about to write something that frees space (the catalog, a stamp) calls [`DiskReserve::make_room`] first. On a full
//! disk, that call removes the reserve. On a disk with enough space, it makes the reserve again.
//!
//! Several processes may do both at once: every action is repeatable, and an unfinished reserve counts as missing.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

use super::{DiskRoom, DiskSpace};

/// Name of the reserve in a directory of databases.
pub const BASE_RESERVE: &str = ".fleet-reserve";

/// Name of the file with the allocated blocks.
const BLOCKS: &str = "blocks";
/// Time between two attempts to make a missing reserve: an attempt costs some milliseconds.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Bytes written at once where the file system cannot allocate blocks.
const CHUNK_BYTES: usize = 64 << 10;

/// The reserve of one directory, at a path of its own.
#[derive(Debug)]
pub struct DiskReserve {
    path: PathBuf,
    next_look: Mutex<Option<Instant>>,
}

/// Whether a reserve is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReserveState {
    /// The reserve exists with all its blocks.
    Kept,
    /// It was removed to free space, or never made.
    Missing,
}

impl DiskReserve {
    /// The reserve at `path`, which must be an unused name in an existing directory.
    #[must_use]
    pub fn at_path(path: PathBuf) -> Self {
        Self { path, next_look: Mutex::new(None) }
    }

    /// The reserve of a directory of databases.
    #[must_use]
    pub fn of_base(base: &Path) -> Self {
        Self::at_path(base.join(BASE_RESERVE))
    }

    /// Removes the reserve when the disk is full, and makes it again when there is space. Cheap when neither is needed.
    /// Never fails: the write that follows reports what is wrong with the disk.
    pub fn make_room(&self) {
        let Ok(space) = DiskSpace::at_path(self.parent_directory()) else { return };
        if space.is_full() {
            self.give_up();
        } else if space.fits_reserve() && self.is_due() && self.reserve_state() == ReserveState::Missing {
            self.create_reserve(space.reserve_size());
        }
    }

    /// Removes the reserve. The blocks go first, because they free the most space.
    pub fn give_up(&self) {
        match fs::remove_file(self.path.join(BLOCKS)) {
            Ok(()) => tracing::warn!(reserve = %self.path.display(), "the disk is full: the reserve was removed"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(reserve = %self.path.display(), %error, "the reserve cannot be removed"),
        }
        self.remove_reserve();
    }

    /// Whether the reserve exists, judged by the blocks that it really has.
    #[must_use]
    pub fn reserve_state(&self) -> ReserveState {
        let wanted = DiskSpace::at_path(self.parent_directory()).map_or(u64::MAX, |space| space.reserve_size().bytes);
        match fs::symlink_metadata(self.path.join(BLOCKS)) {
            Ok(found) if found.is_file() && found.blocks().saturating_mul(512) >= wanted => ReserveState::Kept,
            _ => ReserveState::Missing,
        }
    }

    fn parent_directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// True at most once in [`LOOK_EVERY`].
    fn is_due(&self) -> bool {
        let mut next = self.next_look.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if next.is_some_and(|at| now < at) {
            return false;
        }
        *next = Some(now + LOOK_EVERY);
        true
    }

    fn create_reserve(&self, size: DiskRoom) {
        if let Err(error) = self.write_reserve(size) {
            tracing::warn!(reserve = %self.path.display(), %error, "the reserve cannot be made");
            self.remove_reserve();
        }
    }

    fn write_reserve(&self, size: DiskRoom) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // The file of blocks holds one inode itself.
        for number in 1..size.files {
            create_file(&self.path.join(format!("inode-{number:03}")))?;
        }
        let part = self.path.join(format!("{BLOCKS}.{}", uuid::Uuid::now_v7().simple()));
        allocate_blocks(&create_file(&part)?, size.bytes)?;
        fs::rename(&part, self.path.join(BLOCKS))
    }

    /// Removes the directory of the reserve and its files, if it exists.
    fn remove_reserve(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.map_while(io::Result::ok) {
            // A file that cannot be removed stays, and the reserve still counts as missing.
            let _ = fs::remove_file(entry.path());
        }
        let _ = fs::remove_dir(&self.path);
    }
}

fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Allocates real blocks: a sparse file would reserve nothing.
fn allocate_blocks(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => write_noise(file, bytes),
        done => Ok(done?),
    }
}

/// Writes bytes that no file system can compress.
fn write_noise(mut file: &File, bytes: u64) -> io::Result<()> {
    let (mut state, mut left) = (0x9E37_79B9_7F4A_7C15_u64, bytes);
    while left > 0 {
        let chunk: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(CHUNK_BYTES / 8)
        .flatten()
        .collect();
        let length = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        file.write_all(&chunk[..length])?;
        left -= length as u64;
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_has_real_blocks_and_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = DiskReserve::of_base(folder.path());
        assert_eq!(reserve.reserve_state(), ReserveState::Missing);
        reserve.make_room();
        assert_eq!(reserve.reserve_state(), ReserveState::Kept);
        reserve.give_up();
        assert_eq!(reserve.reserve_state(), ReserveState::Missing);
        assert!(!folder.path().join(BASE_RESERVE).exists());
        DiskReserve::of_base(folder.path()).make_room();
        assert_eq!(reserve.reserve_state(), ReserveState::Kept);
    }

    #[test]
    fn a_hole_is_no_reserve() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = DiskReserve::of_base(folder.path());
        fs::create_dir(folder.path().join(BASE_RESERVE)).unwrap();
        let blocks = File::create(folder.path().join(BASE_RESERVE).join(BLOCKS)).unwrap();
        blocks.set_len(1 << 30).unwrap();
        assert_eq!(reserve.reserve_state(), ReserveState::Missing);
    }

    #[test]
    fn where_blocks_cannot_be_asked_for_they_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("noise")).unwrap();
        write_noise(&file, 200_000).unwrap();
        let found = file.metadata().unwrap();
        assert!(found.len() == 200_000 && found.blocks() * 512 >= 200_000);
    }
}
