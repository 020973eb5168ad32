//! What a process does with each directory of databases before it uses them: the marker and the reserve.

use std::path::Path;

use catalog::{Catalog, ServerRecord, servers};
use tenant_engine::EngineKind;
use tenant_engine::disk::DiskReserve;

use crate::config::{Config, Role};
use crate::error::{Error, Result};
use crate::home::base_marker::{BaseMarker, FoundMarker};
use crate::home::file_system;

/// Marks what an earlier version left without a marker, refuses what another fleet has marked, and makes the reserves.
/// Returns how many servers are not directories.
///
/// # Errors
/// `base_in_use` and `network_file_system`, for a process that serves; those of the catalog.
pub(super) async fn prepare(catalog: &Catalog, config: &Config) -> Result<usize> {
    let known = servers::list(&mut catalog.read().await?).await?;
    for (server, _) in known.iter().filter(|(server, _)| server.engine == EngineKind::Sqlite) {
        let safe = file_system::require_safe(Path::new(&server.base), config.network_file_system);
        match safe.and_then(|()| claim(&catalog.fleet_id().to_string(), server)) {
            // A command that runs alone may be the one that repairs this.
            Err(error) if config.role != Role::Serving => {
                tracing::warn!(server = %server.name, %error, "a directory of databases cannot be used");
            }
            claimed => claimed?,
        }
        DiskReserve::of_base(Path::new(&server.base)).make_room();
    }
    Ok(known.iter().filter(|(server, _)| server.engine == EngineKind::Postgres).count())
}

/// A directory that is not there, or cannot be written now, is reported by the work that uses it.
fn claim(fleet: &str, server: &ServerRecord) -> Result<()> {
    let base = Path::new(&server.base);
    match BaseMarker::read(base) {
        FoundMarker::Marked(marker) if marker.fleet_id != fleet => {
            let detail = format!("the directory of server '{}' belongs to another fleet: {}", server.name, server.base);
            Err(Error::new(409, "base_in_use", detail)
                .try_next("check that the right disk is mounted there")
                .try_next("if it was copied from another fleet, remove its marker .fleet-server.json"))
        }
        FoundMarker::Nothing if base.is_dir() => {
            let marker = BaseMarker { fleet_id: fleet.to_owned(), server_id: server.id.to_string() };
            if let Err(error) = marker.write(base) {
                tracing::warn!(server = %server.name, %error, "its directory cannot be marked");
            }
            Ok(())
        }
        FoundMarker::Marked(_) | FoundMarker::Nothing | FoundMarker::Unreadable => Ok(()),
    }
}
