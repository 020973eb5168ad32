//! Checks of disks: their free space, and the space that is reserved on them.

use std::path::{Path, PathBuf};

use catalog::ServerRecord;
use tenant_engine::EngineKind;
use tenant_engine::disk::DiskSpace;

use super::check::{HealthCheck, shorten_names};
use crate::app::App;
use crate::disks;

/// Minimum share of free space on a disk, per cent. Below it, a migration of every tenant may fill the disk.
const FREE_PERCENT_MIN: u64 = 10;

/// Checks that the process can write to a directory, and that its disk has room.
pub(super) fn disk_check(name: &str, directory: &Path) -> HealthCheck {
    if rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_err() {
        return HealthCheck::new_failure(
            name,
            "this process cannot write there",
            "check that it is mounted and who owns it",
        );
    }
    match DiskSpace::at_path(directory) {
        Ok(found) if found.is_low() => {
            let detail = format!("writes of tenants are refused: {}", found.describe_free_room());
            HealthCheck::new_failure(name, detail, "free some space: suspend, delete and purge still work")
        }
        Ok(found) => space_check(name, found.free.bytes, found.total.bytes),
        Err(_) => HealthCheck::new_unknown(name, "its disk does not answer", "check that it is mounted"),
    }
}

/// PURE: the check of a disk's free space.
pub(super) fn space_check(name: &str, free: u64, total: u64) -> HealthCheck {
    let detail = format!("{} of {} MiB free", free >> 20, total >> 20);
    match free.saturating_mul(100).checked_div(total).unwrap_or(0) {
        _ if free == 0 => HealthCheck::new_failure(name, detail, "free some space: nothing can be written"),
        percent if percent < FREE_PERCENT_MIN => {
            HealthCheck::new_warning(name, detail, "free some space, or add a server")
        }
        _ => HealthCheck::new_ok(name, detail),
    }
}

/// Servers that are directories.
pub(super) fn server_directories(known: &[(ServerRecord, i64)]) -> Vec<(String, PathBuf)> {
    let files = known.iter().filter(|(server, _)| server.engine == EngineKind::Sqlite);
    files.map(|(server, _)| (server.name.clone(), server.base.clone().into())).collect()
}

/// Checks the space that is reserved on each disk for the work that frees a full one.
pub(super) fn reserves_check(app: &App, known: &[(ServerRecord, i64)]) -> HealthCheck {
    let data_dir = disks::of_data_dir(&app.config.data_dir, &app.catalog);
    let all: Vec<_> = std::iter::once(data_dir).chain(disks::of_bases(&server_directories(known))).collect();
    let wanted = all.iter().filter(|disk| disk.reserve.is_some()).count();
    match all.iter().filter(|disk| disk.lacks_reserve()).map(|disk| disk.name.clone()).collect::<Vec<_>>() {
        missing if missing.is_empty() => {
            HealthCheck::new_ok("disk_reserves", format!("{wanted} of {wanted} are there"))
        }
        missing => {
            let detail = format!("{} of {wanted} are missing: {}", missing.len(), shorten_names(&missing));
            let next = "free some space; they are created again automatically";
            HealthCheck::new_warning("disk_reserves", detail, next)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::check::HealthVerdict;

    #[test]
    fn little_space_warns_and_none_fails() {
        assert_eq!(space_check("x", 50, 100).verdict, HealthVerdict::Ok);
        assert_eq!(space_check("x", 9, 100).verdict, HealthVerdict::Warn);
        assert_eq!(space_check("x", 0, 100).verdict, HealthVerdict::Fail);
        assert_eq!(space_check("x", 0, 0).verdict, HealthVerdict::Fail);
    }
}
