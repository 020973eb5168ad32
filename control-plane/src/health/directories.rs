//! Checks of directories of databases: their owner and their file system.

use catalog::ServerRecord;

use super::check::{HealthCheck, shorten_names};
use super::disks::server_directories;
use crate::app::App;
use crate::config::NetworkFileSystem;
use crate::data_dir::base_marker::{BaseMarker, FoundMarker};
use crate::data_dir::file_system;

/// Checks which fleet owns the directories.
pub(super) fn markers_check(app: &App, known: &[(ServerRecord, i64)]) -> HealthCheck {
    let fleet = app.catalog.fleet_id().to_string();
    let (mut foreign, mut unmarked) = (Vec::new(), Vec::new());
    for (name, base) in server_directories(known) {
        match BaseMarker::read_marker(&base) {
            FoundMarker::Marked(marker) if marker.fleet_id == fleet => {}
            FoundMarker::Marked(_) => foreign.push(name),
            FoundMarker::Nothing | FoundMarker::Unreadable => unmarked.push(name),
        }
    }
    let next = "check that the right disks are mounted there";
    match (foreign.is_empty(), unmarked.is_empty()) {
        (true, true) => HealthCheck::new_ok("server_markers", "every directory of databases is marked as this fleet's"),
        (false, _) => {
            let detail = format!("marked by another fleet: {}", shorten_names(&foreign));
            HealthCheck::new_failure("server_markers", detail, next)
        }
        (true, false) => {
            let detail = format!("without a readable marker: {}", shorten_names(&unmarked));
            HealthCheck::new_unknown("server_markers", detail, next)
        }
    }
}

/// Checks whether SQLite is safe on the file systems of its files.
pub(super) fn file_systems(app: &App, known: &[(ServerRecord, i64)]) -> HealthCheck {
    const NAME: &str = "file_systems";
    let config = &app.config;
    let own = config.catalog_url.is_none().then(|| ("data_dir".to_owned(), config.data_dir.join("catalog.db")));
    let places = own.into_iter().chain(server_directories(known));
    let found =
        places.filter_map(|(name, place)| Some(format!("{name} is on {}", file_system::unsafe_at(&place).ok()??)));
    let found: Vec<_> = found.collect();
    let detail = format!("SQLite can lose data there without an error: {}", shorten_names(&found));
    let next = "move these databases to a local disk, or to Postgres";
    match (found.is_empty(), config.network_file_system) {
        (true, _) => HealthCheck::new_ok(NAME, "no SQLite database is on a network file system"),
        (false, NetworkFileSystem::Refused) => HealthCheck::new_failure(NAME, detail, next),
        (false, NetworkFileSystem::DataLossAccepted) => {
            HealthCheck::new_warning(NAME, format!("accepted: {detail}"), next)
        }
    }
}
