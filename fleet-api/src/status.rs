//! The state of the fleet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::migrations::VersionCount;
use crate::servers::ServerView;

/// A summary of the fleet.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FleetStatus {
    /// Id of the fleet: `flt_…`.
    pub fleet_id: String,
    /// Version of this program.
    pub version: String,
    /// Number of tenants in each state.
    pub tenants: BTreeMap<String, i64>,
    /// Number of tenants at each version of the newest migration, without deleted tenants.
    pub schema_versions: Vec<VersionCount>,
    /// Release from which new tenants start. Null: new tenants start with an empty database.
    pub current_release: Option<String>,
    /// Servers of the fleet.
    pub servers: Vec<ServerView>,
    /// Numbers of operations.
    pub operations: OperationsStatus,
    /// Time of the newest backup of any tenant, RFC 3339; null if there is none.
    pub last_backup_at: Option<String>,
    /// Time of the oldest backup, RFC 3339; null if there is none.
    pub oldest_backup_at: Option<String>,
    /// State of the catalog.
    pub catalog: CatalogStatus,
}

/// Numbers of operations.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OperationsStatus {
    /// Number of operations that are pending or running.
    pub running: usize,
    /// Number of operations that failed, wholly or in part, within the last day. Counts at most 100.
    pub failed_recent: usize,
}

/// The state of the catalog.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CatalogStatus {
    /// Number of the newest change in the catalog's change feed.
    pub change_seq: i64,
    /// Size of the catalog's file in bytes; null if the catalog is not a file of this data directory.
    pub size_bytes: Option<u64>,
}
