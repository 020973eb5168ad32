//! Where one database is. A placement is used once: restore, move and clone always fill a new one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{Generation, TenantId};

/// The kinds of database a tenant can live in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// One file per tenant.
    Sqlite,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
        })
    }
}

impl FromStr for EngineKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sqlite" => Ok(Self::Sqlite),
            other => Err(format!("'{other}' is not an engine; this program knows sqlite")),
        }
    }
}

/// Where one database is: the server's root and the path below it, which is made of ids only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Placement {
    /// `<root>/<tenant uuid>/g<generation>-<epoch>.db`
    Sqlite {
        /// The server's directory, absolute.
        root: PathBuf,
        /// Relative to the root; what the catalog stores.
        file: String,
    },
}

impl Placement {
    /// A fresh SQLite placement: `epoch` makes it unique per attempt, so no path is ever used twice.
    #[must_use]
    pub fn sqlite(root: &Path, tenant: TenantId, generation: Generation, epoch: i64) -> Self {
        Self::Sqlite { root: root.to_path_buf(), file: format!("{}/g{generation}-{epoch}.db", tenant.uuid()) }
    }

    /// The placement that `reference` (a value of [`Placement::reference`]) names below a server's base.
    ///
    /// # Errors
    /// When the reference is not of the form the engine writes; nothing else ever becomes a path.
    pub fn parse(engine: EngineKind, base: &str, reference: &str) -> Result<Self, InvalidPlacement> {
        match engine {
            EngineKind::Sqlite => parse_sqlite(base, reference),
        }
    }

    /// What the catalog stores: the database's place relative to its server.
    #[must_use]
    pub fn reference(&self) -> &str {
        match self {
            Self::Sqlite { file, .. } => file,
        }
    }

    /// The engine that understands this placement.
    #[must_use]
    pub fn engine(&self) -> EngineKind {
        match self {
            Self::Sqlite { .. } => EngineKind::Sqlite,
        }
    }

    /// The directory of the server that holds it.
    #[must_use]
    pub fn root(&self) -> &Path {
        match self {
            Self::Sqlite { root, .. } => root,
        }
    }

    /// The file of a SQLite placement.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Sqlite { root, file } => root.join(file),
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.engine(), self.reference())
    }
}

/// The text is no placement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a placement: expected <tenant uuid>/g<generation>-<epoch>.db")]
pub struct InvalidPlacement(String);

fn parse_sqlite(base: &str, reference: &str) -> Result<Placement, InvalidPlacement> {
    let invalid = || InvalidPlacement(reference.chars().take(120).collect());
    let (tenant, file) = reference.split_once('/').ok_or_else(invalid)?;
    let tenant = uuid::Uuid::try_parse(tenant).map_err(|_| invalid())?;
    let (generation, epoch) = file
        .strip_prefix('g')
        .and_then(|rest| rest.strip_suffix(".db"))
        .and_then(|rest| rest.split_once('-'))
        .ok_or_else(invalid)?;
    let generation: i64 = generation.parse().map_err(|_| invalid())?;
    let epoch: i64 = epoch.parse().map_err(|_| invalid())?;
    let placement = Placement::sqlite(Path::new(base), TenantId::from_uuid(tenant), Generation(generation), epoch);
    // Only the one spelling this program writes is accepted: "+1", "007" or upper-case hex would name another file.
    if placement.reference() == reference { Ok(placement) } else { Err(invalid()) }
}
