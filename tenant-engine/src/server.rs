//! A server of databases, as an engine reaches it. The caller makes it from the catalog's record and the server's
//! secret. It is the only maker of placements.

use std::path::PathBuf;
use std::sync::Arc;

use crate::ids::{Generation, TenantId};
use crate::placement::{EngineKind, InvalidPlacement, Placement};
use crate::postgres::PostgresServer;

/// The file in a SQLite server's directory that records whose directory it is.
pub const BASE_MARKER: &str = ".fleet-server.json";

/// A server of tenant databases. Clones are cheap and refer to the same server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DatabaseServer {
    /// A directory of SQLite files.
    Sqlite {
        /// Absolute path of the directory.
        root: PathBuf,
    },
    /// A PostgreSQL server, with the data that is needed to connect to it.
    Postgres(Arc<PostgresServer>),
}

impl DatabaseServer {
    /// The SQLite server in the directory `root`, an absolute path.
    pub fn new_sqlite(root: impl Into<PathBuf>) -> Self {
        Self::Sqlite { root: root.into() }
    }

    /// The engine that understands its databases.
    #[must_use]
    pub fn engine_kind(&self) -> EngineKind {
        match self {
            Self::Sqlite { .. } => EngineKind::Sqlite,
            Self::Postgres(_) => EngineKind::Postgres,
        }
    }

    /// A placement that was never used. `epoch` is unique for each attempt, so no path or name is ever used twice.
    #[must_use]
    pub fn fresh_placement(&self, tenant: TenantId, generation: Generation, epoch: i64) -> Placement {
        match self {
            Self::Sqlite { root } => Placement::new_sqlite(root, tenant, generation, epoch),
            Self::Postgres(server) => Placement::new_postgres(server, tenant, generation, epoch),
        }
    }

    /// The placement on this server with the catalog's text `reference` (a value of [`Placement::catalog_reference`]).
    ///
    /// # Errors
    /// When the reference does not have the form that the engine writes. No other text ever becomes a path or a name.
    pub fn parse_placement(&self, reference: &str) -> Result<Placement, InvalidPlacement> {
        match self {
            Self::Sqlite { root } => crate::placement::parse_sqlite(root, reference),
            Self::Postgres(server) => crate::placement::parse_postgres(server, reference),
        }
    }
}

/// The result of auditing a server's roles.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoleAudit {
    /// The findings, the most dangerous first.
    pub findings: Vec<RoleFinding>,
    /// Number of tenant databases on the server.
    pub databases: u64,
    /// Number of those databases that the audit connected to, to check their own tables.
    pub entered: usize,
}

/// One role, right or setting that differs from how this program made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleFinding {
    /// Description of the difference, for people.
    pub what: String,
    /// The SQL statement that corrects the difference; empty when there is none.
    pub cure: String,
}

/// Who may run the server's functions that tell about other databases, roles and sessions. In every case, the check of
/// each request's SQL refuses the names of these functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionRights {
    /// Every role, as on every PostgreSQL server by default.
    Granted,
    /// Every role, but only in databases that were made before the server was prepared.
    RevokedInNew,
    /// Only the maintenance role, but only for the functions that an earlier version of this program knew.
    Outdated,
    /// Only the maintenance role.
    Revoked,
}

/// The state that a server reports about itself, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerSurvey {
    /// Product and version, for instance `PostgreSQL 15.18`.
    pub version: String,
    /// Identifies the server under any address; `None` for a directory.
    pub system_id: Option<String>,
    /// Rights that the role of the connection string lacks, in words that an operator can act on. Empty when it has
    /// every right.
    pub lacks: Vec<String>,
    /// Who may run the functions that tell about other tenants; `None` for a directory, or when the server could not be
    /// asked.
    pub function_rights: Option<FunctionRights>,
    /// Sessions that are open now, of all roles; `None` for a directory.
    pub connections_used: Option<u64>,
    /// Sessions that the server allows to ordinary roles; `None` for a directory.
    pub connections_max: Option<u64>,
    /// The part of these sessions that all processes of a fleet together may hold for requests. The rest is for fleet
    /// work and for other programs. `None` for a directory.
    pub connections_budget: Option<u64>,
    /// Total bytes of all databases on the server; `None` for a directory, or when asking takes too long.
    pub databases_bytes: Option<u64>,
    /// Free bytes on the server's disk; `None` when the disk cannot be queried.
    pub disk_free_bytes: Option<u64>,
    /// Total bytes of the server's disk; `None` when the disk cannot be queried.
    pub disk_total_bytes: Option<u64>,
}
