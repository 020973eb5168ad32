//! What stands on a server, whoever put it there: for comparing with what the catalog says.

use crate::ids::TenantId;

/// Everything on one server that looks like a database of ours, or like what is left of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// What tells this place from any other, whatever it is called: `device:inode` of the directory, or the cluster's
    /// own system identifier.
    pub place: String,
    /// In the order of their names.
    pub found: Vec<Found>,
}

/// One object. Found by its name and metadata; nothing was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As [`crate::Placement::reference`] writes it; `None` when the name is no placement's.
    pub reference: Option<String>,
    /// Its name on the server: relative to the directory, or the database's or role's name.
    pub name: String,
    /// The tenant that its name tells, whether there is one or not.
    pub tenant: Option<TenantId>,
    /// What it looks like.
    pub what: FoundKind,
    /// The thing itself: `device:inode`, or `system_id:name`. Two names with one of these are one database.
    pub physical: String,
    /// Bytes, a write-ahead log included; `None` where asking would take long.
    pub size_bytes: Option<u64>,
    /// Not made before this, milliseconds since 1970: a file's birth. A Postgres server keeps no such time; there it is
    /// that of the tenant's id. `None` when nothing is known.
    pub since: Option<i64>,
}

/// What an object looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FoundKind {
    /// A database under a name that a placement has.
    Database,
    /// A database that was never finished.
    Part,
    /// A write-ahead log or the like without its database.
    SideFile,
    /// A login whose database is gone.
    Role,
    /// Nothing that this program makes.
    Unknown,
}

impl FoundKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Database, Self::Part, Self::SideFile, Self::Role, Self::Unknown];

    /// As users read it.
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
