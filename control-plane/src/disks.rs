//! The disks that hold the fleet's files: the free space of each, and whether its reserve exists.
//!
//! Read by `/readyz`, `/v1/doctor` and `/metrics`. Reading changes nothing. The limits are those of
//! [`tenant_engine::disk`]. Pure functions here decide what they mean for the process.

use std::path::{Path, PathBuf};

use catalog::Catalog;
use tenant_engine::disk::{DiskReserve, DiskSpace, ReserveState};

/// One directory and the disk under it.
#[derive(Debug, Clone)]
pub(crate) struct DiskState {
    /// `data_dir`, or the server's name.
    pub(crate) name: String,
    /// The disk's space. `None`: it cannot be read.
    pub(crate) space: Option<DiskSpace>,
    /// The state of the reserve. `None`: the directory needs none.
    pub(crate) reserve: Option<ReserveState>,
}

/// A directory of databases, by its server's name.
pub(crate) type BaseDirectory = (String, PathBuf);

/// The state of the data directory. Its reserve is the catalog's.
pub(crate) fn of_data_dir(directory: &Path, catalog: &Catalog) -> DiskState {
    let reserve = catalog.disk_reserve().map(DiskReserve::reserve_state);
    DiskState { name: "data_dir".to_owned(), space: DiskSpace::at_path(directory).ok(), reserve }
}

/// The state of each directory of databases.
pub(crate) fn of_bases(bases: &[BaseDirectory]) -> Vec<DiskState> {
    let state = |(name, base): &BaseDirectory| DiskState {
        name: name.clone(),
        space: DiskSpace::at_path(base).ok(),
        reserve: Some(DiskReserve::of_base(base).reserve_state()),
    };
    bases.iter().map(state).collect()
}

/// Whether the process should get requests, and the problems in any case. One disk of several that refuses writes does
/// not take the other tenants out of service.
pub(crate) fn disk_readiness(data_dir: &DiskState, bases: &[DiskState]) -> (bool, String) {
    let low = |disk: &&DiskState| disk.space.is_some_and(|space| space.is_low());
    let full = data_dir.space.is_some_and(|space| space.is_full());
    let refusing = bases.iter().filter(low).count();
    let all = std::iter::once(data_dir).chain(bases);
    let wrong: Vec<String> = all.filter_map(DiskState::describe_problem).collect();
    (!full && (bases.is_empty() || refusing < bases.len()), wrong.join("; "))
}

impl DiskState {
    /// Whether the directory should have a reserve and has none.
    pub(crate) fn lacks_reserve(&self) -> bool {
        self.reserve == Some(ReserveState::Missing)
    }

    /// The problem of this disk in words. `None` if it has none.
    fn describe_problem(&self) -> Option<String> {
        let name = &self.name;
        match self.space {
            None => Some(format!("{name}: its disk cannot be read")),
            Some(space) if space.is_full() => {
                Some(format!("{name}: the disk is full ({})", space.describe_free_room()))
            }
            Some(space) if space.is_low() => {
                Some(format!("{name}: writes are refused ({})", space.describe_free_room()))
            }
            Some(_) if self.lacks_reserve() => Some(format!("{name}: the reserve is missing")),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tenant_engine::disk::DiskRoom;

    use super::*;

    fn disk(name: &str, free_mib: u64, reserve: ReserveState) -> DiskState {
        let room = |mib: u64| DiskRoom { bytes: mib << 20, files: u64::MAX };
        let space = DiskSpace { free: room(free_mib), total: room(10_000) };
        DiskState { name: name.to_owned(), space: Some(space), reserve: Some(reserve) }
    }

    #[test]
    fn a_process_is_ready_while_any_disk_takes_writes_and_says_what_is_wrong() {
        use ReserveState::{Kept, Missing};
        let good = disk("data_dir", 1_000, Kept);
        assert_eq!(disk_readiness(&good, &[disk("a", 1_000, Kept)]), (true, String::new()));
        let (ready, detail) = disk_readiness(&good, &[disk("a", 20, Kept), disk("b", 1_000, Kept)]);
        assert!(ready && detail.contains("a: writes are refused"), "{detail}");
        let (ready, detail) = disk_readiness(&good, &[disk("a", 20, Missing)]);
        assert!(!ready && detail.contains("a: writes are refused"), "{detail}");
        let (ready, detail) = disk_readiness(&disk("data_dir", 1, Missing), &[]);
        assert!(!ready && detail.contains("data_dir: the disk is full"), "{detail}");
        let (ready, detail) = disk_readiness(&disk("data_dir", 900, Missing), &[]);
        assert!(ready && detail.contains("the reserve is missing"), "{detail}");
    }
}
