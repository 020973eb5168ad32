//! Decides which file systems may hold SQLite databases.
//!
//! SQLite's write-ahead log needs memory and locks that all users of a file share. Two machines share neither, and a
//! file system in user space may promise locks that it does not keep. Such a file system corrupts databases without an
//! error. The decision is pure: it uses the number that `statfs` returns. Called for the data directory, by
//! `app/bases.rs` for each directory of databases, when a server is added, and by `doctor`.

use std::path::Path;

use crate::config::NetworkFileSystem;
use crate::error::{Error, ErrorKind, Result};

/// File systems that are refused, by the number that `statfs` returns. Any other one is allowed, because new local file
/// systems appear more often than new network ones. virtiofs, sshfs and s3fs are FUSE.
const REFUSED: [(u64, &str); 26] = [
    (0x6969, "NFS"),
    (0x6E66_7364, "NFS (nfsd)"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x564C, "NCP"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
    (0x1983_0326, "BeeGFS"),
    (0x2003_0528, "OrangeFS"),
    (0xAAD7_AAEA, "PanFS"),
    (0xBEEF_DEAD, "SNFS"),
    (0x6163_6673, "ACFS"),
    (0x0131_11A8, "IBRIX"),
    (0xBACB_ACBC, "VMware shared folders"),
    (0x786F_4256, "VirtualBox shared folders"),
    (0x7C7C_6673, "Parallels shared folders"),
    (0x5346_4846, "WSL"),
];

/// PURE: the name of a file system on which SQLite is not safe. `None` for every other one.
fn refused_name(kind: u64) -> Option<&'static str> {
    // Some numbers have their highest bit set, and arrive sign-extended.
    let kind = kind & 0xFFFF_FFFF;
    REFUSED.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name)
}

/// The file system that holds `path`, if SQLite is not safe on it.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn unsafe_at(path: &Path) -> std::io::Result<Option<&'static str>> {
    let kind = rustix::fs::statfs(path)?.f_type;
    #[expect(clippy::cast_sign_loss, reason = "the number is a bit pattern; only its lower half counts")]
    Ok(refused_name(kind as u64))
}

/// Refuses such a file system for SQLite databases, unless the risk was accepted. A path that does not exist yet is
/// judged by its nearest existing folder. A path that cannot be read is reported by the work that uses it.
///
/// # Errors
/// `network_file_system`.
pub(crate) fn require_safe(path: &Path, setting: NetworkFileSystem) -> Result<()> {
    let Some(name) = path.ancestors().find_map(|folder| unsafe_at(folder).ok()).flatten() else { return Ok(()) };
    match setting {
        NetworkFileSystem::DataLossAccepted => Ok(()),
        NetworkFileSystem::Refused => Err(network_refusal(path, name)),
    }
}

fn network_refusal(path: &Path, name: &str) -> Error {
    let detail = format!("{} is on {name}, where SQLite can lose data without an error", path.display());
    Error::new(ErrorKind::NetworkFileSystem, detail)
        .try_next("use a local disk, or a Postgres server for tenants and catalog")
        .try_next("only if losing data is acceptable: FLEET_NETWORK_FILE_SYSTEM=accept-data-loss")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_file_system_is_refused_however_its_number_arrives() {
        for (number, name) in REFUSED {
            assert_eq!(refused_name(number), Some(name), "{number:x}");
            assert_eq!(refused_name(number | 0xFFFF_FFFF_0000_0000), Some(name), "{number:x}");
        }
    }

    #[test]
    fn local_file_systems_are_allowed() {
        // ext4, xfs, btrfs, overlayfs, tmpfs, ramfs, ZFS, F2FS, bcachefs, ReiserFS, JFS, NTFS3, exFAT, FAT, eCryptfs.
        for kind in [
            0xEF53,
            0x5846_5342,
            0x9123_683E,
            0x794C_7630,
            0x0102_1994,
            0x8584_58F6,
            0x2FC1_2FC1,
            0xF2F5_2010,
            0xCA45_1A4E,
            0x5265_4973,
            0x3153_464A,
            0x7366_746E,
            0x2011_BAB0,
            0x4D44,
            0xF15F,
        ] {
            assert_eq!(refused_name(kind), None, "{kind:x}");
        }
    }

    #[test]
    fn no_number_stands_twice() {
        let numbers: std::collections::BTreeSet<u64> = REFUSED.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers.len(), REFUSED.len());
    }

    #[test]
    fn a_place_that_does_not_exist_yet_is_judged_by_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        assert!(require_safe(&dir.path().join("not/there/yet"), NetworkFileSystem::Refused).is_ok());
        // Only the name is made up: the kernel's own file systems stand in for a refused one.
        let error = network_refusal(Path::new("/srv/fleet"), "NFS");
        assert!(
            error.kind == ErrorKind::NetworkFileSystem && error.detail.contains("NFS") && error.next_steps.len() == 2,
            "{error:?}"
        );
    }
}
