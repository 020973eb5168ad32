//! The objects on a server, whoever made them, for a comparison with the catalog.

use crate::ids::TenantId;

/// Everything on one server that looks like a database of this program, or like the remains of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerListing {
    /// Identifies this place under any address: `device:inode` of the directory, or the system identifier of the
    /// PostgreSQL cluster.
    pub place: String,
    /// The objects, ordered by name.
    pub found: Vec<ListedObject>,
}

/// One object, known by its name and metadata only; it was not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// As [`crate::Placement::catalog_reference`] writes it; `None` when the name is not a placement's name.
    pub reference: Option<String>,
    /// Name on the server: the path relative to the directory, or the name of the database or role.
    pub name: String,
    /// The tenant that the name contains; that tenant may not exist.
    pub tenant: Option<TenantId>,
    /// The kind of object, judged by its name.
    pub what: ListedObjectKind,
    /// Identifies the physical object: `device:inode`, or `system_id:name`. Two names with an equal value are one
    /// database.
    pub physical: String,
    /// Size in bytes, including a write-ahead log; `None` where asking would take long.
    pub size_bytes: Option<u64>,
    /// The object was not made before this time, in milliseconds since 1970. For a file it is the time of its creation.
    /// A Postgres server keeps no such time; there it is the time in the tenant's id. `None` when unknown.
    pub since: Option<i64>,
}

/// The kinds of objects on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListedObjectKind {
    /// A database with the name of a placement.
    Database,
    /// A database that was never finished.
    Part,
    /// A write-ahead log or similar file without its database.
    SideFile,
    /// A login whose database does not exist.
    Role,
    /// An object that this program does not make.
    Unknown,
}

impl ListedObjectKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Database, Self::Part, Self::SideFile, Self::Role, Self::Unknown];

    /// The text that users read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Part => "part",
            Self::SideFile => "side_file",
            Self::Role => "role",
            Self::Unknown => "unknown",
        }
    }
}
