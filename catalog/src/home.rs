//! The names of a data directory's files that every process of a fleet needs: the control plane and embedded routers.

/// The catalog, if it is a SQLite file.
pub const CATALOG_FILE: &str = "catalog.db";
/// The fleet's key.
pub const KEY_FILE: &str = "fleet.key";
/// Says that the catalog was moved to a server, and where to.
pub const MOVED_FILE: &str = "catalog.moved";
/// The directory for temporary databases.
pub const SCRATCH_DIR: &str = "scratch";
/// The environment variable with the fleet's key.
pub const KEY_VARIABLE: &str = "FLEET_KEY";
/// The environment variable with the address of a catalog on PostgreSQL.
pub const CATALOG_URL_VARIABLE: &str = "FLEET_CATALOG_URL";
/// The environment variable with the data directory.
pub const DATA_DIR_VARIABLE: &str = "FLEET_DATA_DIR";
