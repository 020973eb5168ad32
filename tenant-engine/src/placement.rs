//! Where one database is. A placement is used once: restore, move and clone always fill a new placement.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Generation, TenantId};
use crate::postgres::PostgresServer;

/// The kinds of database a tenant can live in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// One file per tenant.
    Sqlite,
    /// One database of a PostgreSQL server per tenant.
    Postgres,
}

impl EngineKind {
    /// All engine kinds.
    pub const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];

    /// The name that users write, which is also the folder of the engine's migrations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EngineKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| format!("'{text}' is not an engine; this program knows sqlite and postgres"))
    }
}

/// Where one database is: its server, and a name on that server that is made of ids only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Placement {
    /// `<root>/<tenant uuid>/g<generation>-<epoch>.db`
    Sqlite {
        /// Absolute path of the server's directory.
        root: PathBuf,
        /// Path relative to the root; the catalog stores this.
        file: String,
    },
    /// The database `t_<tenant uuid>_g<generation>_<epoch>`, at most 59 bytes. The names of its two logins are derived
    /// from its name.
    Postgres {
        /// The server that holds the database.
        server: Arc<PostgresServer>,
        /// Name of the database on the server; the catalog stores this.
        database: String,
    },
}

impl Placement {
    /// A new SQLite placement. `epoch` is unique for each attempt, so no path is ever used twice.
    #[must_use]
    pub fn new_sqlite(root: &Path, tenant: TenantId, generation: Generation, epoch: i64) -> Self {
        Self::Sqlite { root: root.to_path_buf(), file: format!("{}/g{generation}-{epoch}.db", tenant.uuid()) }
    }

    /// A new Postgres placement. `epoch` is unique for each attempt, so no name is ever used twice.
    #[must_use]
    pub fn new_postgres(server: &Arc<PostgresServer>, tenant: TenantId, generation: Generation, epoch: i64) -> Self {
        let database = format!("t_{}_g{generation}_{epoch}", tenant.uuid().simple());
        Self::Postgres { server: Arc::clone(server), database }
    }

    /// The text that the catalog stores: the place of the database relative to its server.
    #[must_use]
    pub fn catalog_reference(&self) -> &str {
        match self {
            Self::Sqlite { file, .. } => file,
            Self::Postgres { database, .. } => database,
        }
    }

    /// The engine that understands this placement.
    #[must_use]
    pub fn engine_kind(&self) -> EngineKind {
        match self {
            Self::Sqlite { .. } => EngineKind::Sqlite,
            Self::Postgres { .. } => EngineKind::Postgres,
        }
    }

    /// The directory of the SQLite server. Empty for a database that is not a file; no directory has an empty path.
    #[must_use]
    pub fn server_root(&self) -> &Path {
        match self {
            Self::Sqlite { root, .. } => root,
            Self::Postgres { .. } => Path::new(""),
        }
    }

    /// The file of a SQLite placement. Empty for a database that is not a file; no file has an empty path.
    #[must_use]
    pub fn file_path(&self) -> PathBuf {
        match self {
            Self::Sqlite { root, file } => root.join(file),
            Self::Postgres { .. } => PathBuf::new(),
        }
    }

    /// The server and the database of a Postgres placement; `None` for any other.
    #[must_use]
    pub fn postgres_database(&self) -> Option<(&Arc<PostgresServer>, &str)> {
        match self {
            Self::Sqlite { .. } => None,
            Self::Postgres { server, database } => Some((server, database)),
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.engine_kind(), self.catalog_reference())
    }
}

/// The text is not a placement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a placement: expected <tenant uuid>/g<generation>-<epoch>.db or t_<tenant uuid>_g<generation>_<epoch>"
)]
pub struct InvalidPlacement(String);

fn invalid_placement(reference: &str) -> InvalidPlacement {
    InvalidPlacement(reference.chars().take(120).collect())
}

pub(crate) fn parse_sqlite(root: &Path, reference: &str) -> Result<Placement, InvalidPlacement> {
    let parts = || {
        let (tenant, file) = reference.split_once('/')?;
        let (generation, epoch) = file.strip_prefix('g')?.strip_suffix(".db")?.split_once('-')?;
        parse_numbers(tenant, generation, epoch)
    };
    let (tenant, generation, epoch) = parts().ok_or_else(|| invalid_placement(reference))?;
    require_exact(Placement::new_sqlite(root, tenant, generation, epoch), reference)
}

pub(crate) fn parse_postgres(server: &Arc<PostgresServer>, reference: &str) -> Result<Placement, InvalidPlacement> {
    let parts = || {
        let (tenant, rest) = reference.strip_prefix("t_")?.split_once("_g")?;
        let (generation, epoch) = rest.split_once('_')?;
        parse_numbers(tenant, generation, epoch)
    };
    let (tenant, generation, epoch) = parts().ok_or_else(|| invalid_placement(reference))?;
    require_exact(Placement::new_postgres(server, tenant, generation, epoch), reference)
}

fn parse_numbers(tenant: &str, generation: &str, epoch: &str) -> Option<(TenantId, Generation, i64)> {
    let tenant = TenantId::from_uuid(uuid::Uuid::try_parse(tenant).ok()?);
    Some((tenant, Generation(generation.parse().ok()?), epoch.parse().ok()?))
}

/// Accepts only the exact spelling that this program writes: "+1", "007" or upper-case hex would name another database.
fn require_exact(placement: Placement, reference: &str) -> Result<Placement, InvalidPlacement> {
    if placement.catalog_reference() == reference { Ok(placement) } else { Err(invalid_placement(reference)) }
}
