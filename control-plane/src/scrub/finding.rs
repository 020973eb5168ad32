//! What a scrub finds, one thing at a time.

use catalog::{Generation, TenantId};
use serde::{Deserialize, Serialize};
use tenant_engine::{FleetId, FoundKind, Identity, IdentityState};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A server does not answer; nothing is said about what is on it.
    ServerUnreachable,
    /// Two servers of the catalog are one place.
    SamePlace,
    /// Two databases of the catalog are one.
    SharedDatabase,
    /// The catalog names a database that is not there.
    MissingDatabase,
    /// It says that it is another tenant's.
    WrongTenant,
    /// It says that it is another fleet's.
    WrongFleet,
    /// It is stamped with another generation than the catalog has.
    WrongGeneration,
    /// It is stamped with another state than the catalog's would be.
    WrongState,
    /// It is proved to be damaged, or carries no identity.
    Unreadable,
    /// It could not be looked at; nothing is said about whether it is sound.
    NotLooked,
    /// A database that the catalog does not name.
    OrphanDatabase,
    /// A file that belongs to nothing the catalog names.
    OrphanFile,
    /// A login whose database is gone.
    OrphanRole,
    /// In a server's directory, and not proved to be of this fleet: it is never moved.
    ForeignFile,
}

impl Kind {
    /// Whether nobody owns it: what may be put aside.
    #[must_use]
    pub fn is_orphan(self) -> bool {
        matches!(self, Self::OrphanDatabase | Self::OrphanFile | Self::OrphanRole)
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Somebody should look.
    Warning,
    /// A tenant is not served, or could be served wrongly.
    Error,
}

/// What a database says of itself, as far as it decides whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whose {
    /// Whose data it says it is.
    pub tenant: TenantId,
    /// Whose fleet.
    pub fleet: FleetId,
    /// Stamped into it.
    pub generation: Generation,
    /// Stamped into it.
    pub state: IdentityState,
}

impl From<&Identity> for Whose {
    fn from(found: &Identity) -> Self {
        Self { tenant: found.tenant, fleet: found.fleet, generation: found.generation, state: found.state }
    }
}

/// One object on one server, and why it is remarkable: everything that must still be so when somebody acts on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// See [`Kind`].
    pub kind: Kind,
    /// The server's name.
    pub server: String,
    /// The object's name there; empty when the finding is about the server.
    pub name: String,
    /// What it looks like; `None` for what is not there.
    pub what: Option<FoundKind>,
    /// The thing itself; `None` for what is not there.
    pub physical: Option<String>,
    /// Whose it is by the catalog, else by its name.
    pub tenant: Option<TenantId>,
    /// What it says of itself; `None` when it does not, or was not asked.
    pub identity: Option<Whose>,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub subject: Subject,
    /// How bad it is.
    pub severity: Severity,
    /// As the catalog stores it; `None` when its name is no placement's.
    pub reference: Option<String>,
    /// The tenant's name, if the catalog knows it.
    pub tenant_name: Option<String>,
    /// Bytes, where known.
    pub size_bytes: Option<u64>,
    /// For a human.
    pub detail: String,
    /// What helps.
    pub next_step: String,
}
