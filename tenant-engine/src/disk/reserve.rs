//! Room that is set apart on a disk and given up when the disk is full.
//!
//! A reserve is a directory with one file of real blocks and some empty files, which hold inodes. The code that is about to
//! write what frees room (the catalog, a stamp) calls [`DiskReserve::make_room`] first. On a full disk that removes
//! the reserve. On a disk with room it makes the reserve again.
//!
//! Several processes may do both at once: every act is repeatable, and a half-made reserve counts as missing.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

use super::{DiskRoom, DiskSpace};

/// The reserve in a directory of databases.
pub const BASE_RESERVE: &str = ".fleet-reserve";

/// The file with the blocks.
const BLOCKS: &str = "blocks";
/// What a missing reserve waits for between two looks: making one costs some milliseconds.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Written at once where blocks cannot be asked for.
const CHUNK_BYTES: usize = 64 << 10;

/// The reserve of one directory.
#[derive(Debug)]
pub struct DiskReserve {
    path: PathBuf,
    next_look: Mutex<Option<Instant>>,
}

/// Whether a reserve is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReserveState {
    /// It is.
    Kept,
    /// It was given up, or never made.
    Missing,
}

impl DiskReserve {
    /// The reserve at `path`, which is a name of its own in an existing directory.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path, next_look: Mutex::new(None) }
    }

    /// The reserve of a directory of databases.
    #[must_use]
    pub fn of_base(base: &Path) -> Self {
        Self::at(base.join(BASE_RESERVE))
    }

    /// Gives the reserve up when the disk is full, and makes it again when there is room. Cheap when neither is needed.
    /// Never fails: the write that follows tells what is wrong with the disk.
    pub fn make_room(&self) {
        let Ok(space) = DiskSpace::of(self.directory()) else { return };
        if space.is_full() {
            self.give_up();
        } else if space.fits_reserve() && self.is_due() && self.state() == ReserveState::Missing {
            self.make(space.reserve_size());
        }
    }

    /// Removes the reserve. The blocks go first: they help most.
    pub fn give_up(&self) {
        match fs::remove_file(self.path.join(BLOCKS)) {
            Ok(()) => tracing::warn!(reserve = %self.path.display(), "the disk is full: the reserve was given up"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(reserve = %self.path.display(), %error, "the reserve cannot be given up"),
        }
        self.clear();
    }

    /// Whether it is there, by the blocks it really has.
    #[must_use]
    pub fn state(&self) -> ReserveState {
        let wanted = DiskSpace::of(self.directory()).map_or(u64::MAX, |space| space.reserve_size().bytes);
        match fs::symlink_metadata(self.path.join(BLOCKS)) {
            Ok(found) if found.is_file() && found.blocks().saturating_mul(512) >= wanted => ReserveState::Kept,
            _ => ReserveState::Missing,
        }
    }

    fn directory(&self) -> &Path {
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

    fn make(&self, size: DiskRoom) {
        if let Err(error) = self.fill(size) {
            tracing::warn!(reserve = %self.path.display(), %error, "the reserve cannot be made");
            self.clear();
        }
    }

    fn fill(&self, size: DiskRoom) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // One inode is that of the blocks.
        for number in 1..size.files {
            create(&self.path.join(format!("inode-{number:03}")))?;
        }
        let part = self.path.join(format!("{BLOCKS}.{}", uuid::Uuid::now_v7().simple()));
        allocate(&create(&part)?, size.bytes)?;
        fs::rename(&part, self.path.join(BLOCKS))
    }

    /// Removes what is in the directory, if anything, and the directory.
    fn clear(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.map_while(io::Result::ok) {
            // What cannot be removed stays, and the reserve is still missing.
            let _ = fs::remove_file(entry.path());
        }
        let _ = fs::remove_dir(&self.path);
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Real blocks: a hole would be no reserve.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => write_noise(file, bytes),
        done => Ok(done?),
    }
}

/// Bytes that no file system can compress.
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
        assert_eq!(reserve.state(), ReserveState::Missing);
        reserve.make_room();
        assert_eq!(reserve.state(), ReserveState::Kept);
        reserve.give_up();
        assert_eq!(reserve.state(), ReserveState::Missing);
        assert!(!folder.path().join(BASE_RESERVE).exists());
        DiskReserve::of_base(folder.path()).make_room();
        assert_eq!(reserve.state(), ReserveState::Kept);
    }

    #[test]
    fn a_hole_is_no_reserve() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = DiskReserve::of_base(folder.path());
        fs::create_dir(folder.path().join(BASE_RESERVE)).unwrap();
        let blocks = File::create(folder.path().join(BASE_RESERVE).join(BLOCKS)).unwrap();
        blocks.set_len(1 << 30).unwrap();
        assert_eq!(reserve.state(), ReserveState::Missing);
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
