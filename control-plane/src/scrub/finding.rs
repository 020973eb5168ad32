//! The findings of a scrub.

use catalog::{Generation, TenantId};
use serde::{Deserialize, Serialize};
use tenant_engine::{FleetId, Identity, IdentityState, ListedObjectKind};

/// The kind of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A server does not answer. Its contents are not judged.
    ServerUnreachable,
    /// Two servers of the catalog are the same place.
    SamePlace,
    /// Two databases of the catalog are the same database.
    SharedDatabase,
    /// The catalog names a database that does not exist.
    MissingDatabase,
    /// The database's identity names another tenant.
    WrongTenant,
    /// The database's identity names another fleet.
    WrongFleet,
    /// The database's identity has another generation than the catalog.
    WrongGeneration,
    /// The database's identity has a state that does not match the catalog.
    WrongState,
    /// The database is damaged, or has no identity.
    Unreadable,
    /// The database could not be inspected. Whether it is sound is unknown.
    NotLooked,
    /// A database that the catalog does not name.
    OrphanDatabase,
    /// A file that belongs to no database in the catalog.
    OrphanFile,
    /// A login whose database does not exist.
    OrphanRole,
    /// A file in a server's directory that is not proved to be of this fleet. It is never moved.
    ForeignFile,
}

impl FindingKind {
    /// Whether the object has no owner. Only such objects may be quarantined.
    #[must_use]
    pub fn is_orphan(self) -> bool {
        matches!(self, Self::OrphanDatabase | Self::OrphanFile | Self::OrphanRole)
    }
}

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingSeverity {
    /// Somebody should look at it.
    Warning,
    /// A tenant is not served, or might be served wrongly.
    Error,
}

/// The part of a database's identity that decides who owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseOwner {
    /// The tenant that the identity names.
    pub tenant: TenantId,
    /// The fleet that the identity names.
    pub fleet: FleetId,
    /// The generation in the identity.
    pub generation: Generation,
    /// The state in the identity.
    pub state: IdentityState,
}

impl From<&Identity> for DatabaseOwner {
    fn from(found: &Identity) -> Self {
        Self { tenant: found.tenant, fleet: found.fleet, generation: found.generation, state: found.state }
    }
}

/// One object on one server, and its problem. All fields must still match when somebody acts on the finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindingSubject {
    /// The kind of problem.
    pub kind: FindingKind,
    /// The server's name.
    pub server: String,
    /// The object's name on the server. Empty when the finding is about the server itself.
    pub name: String,
    /// The type of the object. `None` if it does not exist.
    pub what: Option<ListedObjectKind>,
    /// The physical identity of the object. `None` if it does not exist.
    pub physical: Option<String>,
    /// The owner that the catalog names, or else the tenant in the object's name.
    pub tenant: Option<TenantId>,
    /// The object's own identity. `None` if it has none, or was not opened.
    pub identity: Option<DatabaseOwner>,
}

/// One problem that a scrub found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object that the finding is about.
    pub subject: FindingSubject,
    /// How severe the problem is.
    pub severity: FindingSeverity,
    /// The placement reference as the catalog stores it. `None` when the name is not a placement.
    pub reference: Option<String>,
    /// The tenant's name, if the catalog knows it.
    pub tenant_name: Option<String>,
    /// The size in bytes, if known.
    pub size_bytes: Option<u64>,
    /// The explanation, for people.
    pub detail: String,
    /// The advice, usually a command.
    pub next_step: String,
}
