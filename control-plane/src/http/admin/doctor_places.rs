//! The checks of `/v1/doctor` about directories of databases: whose they are, and on which file system.

use catalog::ServerRecord;

use super::doctor::{DoctorCheck, directories, shortened};
use crate::config::NetworkFileSystem;
use crate::home::base_marker::{BaseMarker, FoundMarker};
use crate::home::file_system;
use crate::http::Api;

/// Whose the directories are.
pub(super) fn markers(api: &Api, known: &[(ServerRecord, i64)]) -> DoctorCheck {
    let fleet = api.app.catalog.fleet_id().to_string();
    let (mut foreign, mut unmarked) = (Vec::new(), Vec::new());
    for (name, base) in directories(known) {
        match BaseMarker::read(&base) {
            FoundMarker::Marked(marker) if marker.fleet_id == fleet => {}
            FoundMarker::Marked(_) => foreign.push(name),
            FoundMarker::Nothing | FoundMarker::Unreadable => unmarked.push(name),
        }
    }
    let next = "check that the right disks are mounted there";
    match (foreign.is_empty(), unmarked.is_empty()) {
        (true, true) => DoctorCheck::ok("server_markers", "every directory of databases is marked as this fleet's"),
        (false, _) => {
            let detail = format!("marked by another fleet: {}", shortened(&foreign));
            DoctorCheck::fail("server_markers", detail, next)
        }
        (true, false) => {
            let detail = format!("without a marker that can be read: {}", shortened(&unmarked));
            DoctorCheck::unknown("server_markers", detail, next)
        }
    }
}

/// Whether SQLite is safe where its files are.
pub(super) fn file_systems(api: &Api, known: &[(ServerRecord, i64)]) -> DoctorCheck {
    const NAME: &str = "file_systems";
    let config = &api.app.config;
    let own = config.catalog_url.is_none().then(|| ("data_dir".to_owned(), config.data_dir.join("catalog.db")));
    let places = own.into_iter().chain(directories(known));
    let found =
        places.filter_map(|(name, place)| Some(format!("{name} is on {}", file_system::unsafe_at(&place).ok()??)));
    let found: Vec<_> = found.collect();
    let detail = format!("SQLite can lose data there without an error: {}", shortened(&found));
    let next = "move these databases to a local disk, or to Postgres";
    match (found.is_empty(), config.network_file_system) {
        (true, _) => DoctorCheck::ok(NAME, "no SQLite database is on a network file system"),
        (false, NetworkFileSystem::Refused) => DoctorCheck::fail(NAME, detail, next),
        (false, NetworkFileSystem::DataLossAccepted) => DoctorCheck::warn(NAME, format!("accepted: {detail}"), next),
    }
}
