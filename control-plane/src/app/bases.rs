//! Prepares each directory of databases before a process uses it: the marker and the reserve.

use std::path::Path;

use catalog::{Catalog, ServerRecord, fleet, servers};
use tenant_engine::claim::{self, ClaimStatus};
use tenant_engine::disk::DiskReserve;
use tenant_engine::{EngineKind, FleetClaims};

use crate::config::{Config, ProcessRole};
use crate::data_dir::base_marker::{BaseMarker, FoundMarker};
use crate::data_dir::file_system;
use crate::error::{Error, ErrorKind, Result};

/// Marks directories that an earlier version left without a marker, and creates the reserves. Refuses directories that
/// another fleet has marked. Skips those that a copy of this data directory uses. Returns how many servers are not
/// directories.
///
/// # Errors
/// `base_in_use` and `network_file_system`, for a serving process; those of the catalog.
pub(super) async fn prepare_bases(catalog: &Catalog, config: &Config) -> Result<usize> {
    let mut tx = catalog.read().await?;
    let (known, claims) = (servers::list_servers(&mut tx).await?, fleet::fleet_claims(&mut tx).await?);
    let none = FleetClaims::default();
    let of = |server: &ServerRecord| if servers::is_inside(&tx, server) { &none } else { &claims };
    for (server, _) in known.iter().filter(|(server, _)| server.engine == EngineKind::Sqlite) {
        let safe = file_system::require_safe(Path::new(&server.base), config.network_file_system);
        let ours = safe.and_then(|()| Ok(servers::refuse_other_home(&tx, server)?));
        match ours.and_then(|()| claim_base(&catalog.fleet_id().to_string(), server, of(server))) {
            // The other servers can be used. This one is refused whenever it is reached.
            Err(error) if error.kind == ErrorKind::DataDirCopied => {
                tracing::warn!(server = %server.name, %error, "a server is not used: another data directory uses it");
                continue;
            }
            // A command that runs alone may be the one that repairs this.
            Err(error) if config.role != ProcessRole::Serving => {
                tracing::warn!(server = %server.name, %error, "a directory of databases cannot be used");
            }
            claimed => claimed?,
        }
        DiskReserve::of_base(Path::new(&server.base)).make_room();
    }
    Ok(known.iter().filter(|(server, _)| server.engine == EngineKind::Postgres).count())
}

/// Claims a directory for this fleet. A missing or unwritable directory is reported later, by the work that uses it.
fn claim_base(fleet: &str, server: &ServerRecord, claims: &FleetClaims) -> Result<()> {
    let base = Path::new(&server.base);
    let found = BaseMarker::read_marker(base);
    let held = match &found {
        FoundMarker::Marked(marker) => claims.compare_with_server(marker.claim.as_deref()),
        FoundMarker::Nothing | FoundMarker::Unreadable => ClaimStatus::Due,
    };
    match found {
        FoundMarker::Marked(marker) if marker.fleet_id != fleet => {
            let detail = format!("the directory of server '{}' belongs to another fleet: {}", server.name, server.base);
            Err(Error::new(ErrorKind::BaseInUse, detail)
                .try_next("check that the right disk is mounted there")
                .try_next("if it was copied from another fleet, remove its marker .fleet-server.json"))
        }
        FoundMarker::Marked(_) if held == ClaimStatus::Held => Ok(()),
        FoundMarker::Marked(_) if held == ClaimStatus::Others => {
            let server = format_args!("'{}' ({})", server.name, server.base);
            Err(claim::refuse_others(held, server).map_or_else(Error::from, |()| Error::internal("a claim")))
        }
        FoundMarker::Marked(_) | FoundMarker::Nothing if base.is_dir() => {
            let claim = claims.newest_id().map(str::to_owned);
            let marker = BaseMarker { fleet_id: fleet.to_owned(), server_id: server.id.to_string(), claim };
            if let Err(error) = marker.write_marker(base) {
                tracing::warn!(server = %server.name, %error, "its directory cannot be marked");
            }
            Ok(())
        }
        FoundMarker::Marked(_) | FoundMarker::Nothing | FoundMarker::Unreadable => Ok(()),
    }
}
