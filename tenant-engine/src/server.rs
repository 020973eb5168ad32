//! A place databases live, as an engine reaches it. Made by whoever knows the catalog's record and its secret; the only
//! maker of placements.

use std::path::PathBuf;
use std::sync::Arc;

use crate::ids::{Generation, TenantId};
use crate::placement::{EngineKind, InvalidPlacement, Placement};
use crate::postgres::PostgresServer;

/// The file in a SQLite server's directory that says whose the directory is.
pub const BASE_MARKER: &str = ".fleet-server.json";

/// A server. Clones are cheap and the same server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Server {
    /// A directory.
    Sqlite {
        /// Absolute.
        root: PathBuf,
    },
    /// A PostgreSQL server, with what is needed to enter it.
    Postgres(Arc<PostgresServer>),
}

impl Server {
    /// The directory `root`, absolute.
    pub fn sqlite(root: impl Into<PathBuf>) -> Self {
        Self::Sqlite { root: root.into() }
    }

    /// The engine that understands its databases.
    #[must_use]
    pub fn engine(&self) -> EngineKind {
        match self {
            Self::Sqlite { .. } => EngineKind::Sqlite,
            Self::Postgres(_) => EngineKind::Postgres,
        }
    }

    /// A placement nobody has used: `epoch` is unique per attempt, so no path and no name is ever used twice.
    #[must_use]
    pub fn fresh(&self, tenant: TenantId, generation: Generation, epoch: i64) -> Placement {
        match self {
            Self::Sqlite { root } => Placement::sqlite(root, tenant, generation, epoch),
            Self::Postgres(server) => Placement::postgres(server, tenant, generation, epoch),
        }
    }

    /// The placement here that the catalog calls `reference` (a value of [`Placement::reference`]).
    ///
    /// # Errors
    /// When the reference is not of the form the engine writes; nothing else ever becomes a path or a name.
    pub fn placement(&self, reference: &str) -> Result<Placement, InvalidPlacement> {
        match self {
            Self::Sqlite { root } => crate::placement::parse_sqlite(root, reference),
            Self::Postgres(server) => crate::placement::parse_postgres(server, reference),
        }
    }
}

/// What an audit of a server's roles found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoleAudit {
    /// The most dangerous first.
    pub findings: Vec<RoleFinding>,
    /// Databases of tenants on the server.
    pub databases: u64,
    /// Of them, those that were entered to look at their own tables.
    pub entered: usize,
}

/// One role, right or setting that is not as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleFinding {
    /// In words.
    pub what: String,
    /// The statement that puts it right; empty when there is none.
    pub cure: String,
}

/// Who may run the functions of a server that tell of other databases, roles and sessions. In every case a check of each
/// request's words refuses their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionRights {
    /// Everybody, as on every PostgreSQL server by default.
    Granted,
    /// Everybody in databases that were made before the server was prepared.
    RevokedInNew,
    /// Only the maintenance role, for the functions that an earlier version of this program knew.
    Outdated,
    /// Only the maintenance role.
    Revoked,
}

/// What a server says about itself, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// For instance `PostgreSQL 15.18`.
    pub version: String,
    /// What tells one server from another, whatever it is called; `None` for a directory.
    pub system_id: Option<String>,
    /// What the role that we were given lacks, in words an operator can act on; empty when it has everything.
    pub lacks: Vec<String>,
    /// Who may run the functions that tell of other tenants; `None` for a directory, or when it could not be asked.
    pub function_rights: Option<FunctionRights>,
    /// Sessions open now, everybody's; `None` for a directory.
    pub connections_used: Option<u64>,
    /// Sessions the server allows to roles like ours; `None` for a directory.
    pub connections_max: Option<u64>,
    /// Of these, what all processes of a fleet together hold for requests at most; the rest is for fleet work and for
    /// others. `None` for a directory.
    pub connections_budget: Option<u64>,
    /// Bytes of all its databases; `None` for a directory, or when asking takes too long.
    pub databases_bytes: Option<u64>,
    /// Bytes free on its disk; `None` when it cannot be asked.
    pub disk_free_bytes: Option<u64>,
    /// Bytes of its disk; `None` when it cannot be asked.
    pub disk_total_bytes: Option<u64>,
}
