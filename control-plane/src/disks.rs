//! The disks that a fleet on files needs: how much room each has, and whether its reserve is there.
//!
//! Read by `/readyz`, `/v1/doctor` and `/metrics`. Reading changes nothing. The limits are those of
//! [`tenant_engine::disk`]; what they mean for the process is decided here, by pure functions.

use std::path::{Path, PathBuf};

use catalog::Catalog;
use tenant_engine::disk::{DiskReserve, DiskSpace, ReserveState};

/// One directory and the disk under it.
#[derive(Debug, Clone)]
pub(crate) struct DiskState {
    /// `data_dir`, or the server's name.
    pub(crate) name: String,
    /// `None`: it cannot be asked.
    pub(crate) space: Option<DiskSpace>,
    /// `None`: it needs no reserve.
    pub(crate) reserve: Option<ReserveState>,
}

/// A directory of databases, by its server's name.
pub(crate) type Base = (String, PathBuf);

/// The data directory; its reserve is the catalog's.
pub(crate) fn of_data_dir(directory: &Path, catalog: &Catalog) -> DiskState {
    let reserve = catalog.reserve().map(DiskReserve::state);
    DiskState { name: "data_dir".to_owned(), space: DiskSpace::of(directory).ok(), reserve }
}

/// Each directory of databases.
pub(crate) fn of_bases(bases: &[Base]) -> Vec<DiskState> {
    let state = |(name, base): &Base| DiskState {
        name: name.clone(),
        space: DiskSpace::of(base).ok(),
        reserve: Some(DiskReserve::of_base(base).state()),
    };
    bases.iter().map(state).collect()
}

/// Whether the process should get requests, and what is wrong in any case. One disk of several that refuses writes does
/// not take the other tenants out of service.
pub(crate) fn readiness(data_dir: &DiskState, bases: &[DiskState]) -> (bool, String) {
    let low = |disk: &&DiskState| disk.space.is_some_and(|space| space.is_low());
    let full = data_dir.space.is_some_and(|space| space.is_full());
    let refusing = bases.iter().filter(low).count();
    let all = std::iter::once(data_dir).chain(bases);
    let wrong: Vec<String> = all.filter_map(DiskState::trouble).collect();
    (!full && (bases.is_empty() || refusing < bases.len()), wrong.join("; "))
}

impl DiskState {
    /// True when it should have a reserve and has none.
    pub(crate) fn lacks_reserve(&self) -> bool {
        self.reserve == Some(ReserveState::Missing)
    }

    /// What is wrong, in words.
    fn trouble(&self) -> Option<String> {
        let name = &self.name;
        match self.space {
            None => Some(format!("{name}: its disk cannot be asked")),
            Some(space) if space.is_full() => Some(format!("{name}: the disk is full ({})", space.describe())),
            Some(space) if space.is_low() => Some(format!("{name}: writes are refused ({})", space.describe())),
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
        assert_eq!(readiness(&good, &[disk("a", 1_000, Kept)]), (true, String::new()));
        let (ready, detail) = readiness(&good, &[disk("a", 20, Kept), disk("b", 1_000, Kept)]);
        assert!(ready && detail.contains("a: writes are refused"), "{detail}");
        let (ready, detail) = readiness(&good, &[disk("a", 20, Missing)]);
        assert!(!ready && detail.contains("a: writes are refused"), "{detail}");
        let (ready, detail) = readiness(&disk("data_dir", 1, Missing), &[]);
        assert!(!ready && detail.contains("data_dir: the disk is full"), "{detail}");
        let (ready, detail) = readiness(&disk("data_dir", 900, Missing), &[]);
        assert!(ready && detail.contains("the reserve is missing"), "{detail}");
    }
}
