//! The error of this crate: a kind for programs, a message for people, a source for the log.

use std::fmt;

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the catalog refused a request or failed.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of errors that a caller can react to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No object has this name or id.
    NotFound,
    /// The name or id is taken.
    AlreadyExists,
    /// The input is malformed; the message says what is expected.
    Invalid,
    /// The record changed since the caller read it.
    Conflict,
    /// Another operation works on the tenant.
    Busy,
    /// The object is protected from deletion.
    Protected,
    /// Tenants have the plan.
    PlanInUse,
    /// The catalog's schema is newer than this program.
    SchemaNewer,
    /// The sealing key is missing or belongs to another catalog.
    WrongKey,
    /// There is no catalog at this location yet.
    NotInitialised,
    /// The catalog was moved from this location to a server.
    Moved,
    /// The catalog is not reachable, or was locked for too long.
    Unavailable,
    /// The catalog's disk is full; nothing was changed.
    DiskFull,
    /// The catalog's files or their directory are read-only for this process.
    ReadOnlyStorage,
    /// The catalog's server rejected this process: password, database, privileges, TLS or server version.
    Refused,
    /// A program that the catalog's database needs is not installed on this machine.
    ToolMissing,
    /// A copy of this fleet's data directory now uses the server.
    Claimed,
    /// The stored data breaks a rule of this program.
    Corrupt,
}

impl ErrorKind {
    /// The stable code, for users, scripts and `fleetctl explain`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Invalid => "invalid",
            Self::Conflict => "conflict",
            Self::Busy => "operation_in_progress",
            Self::Protected => "protected",
            Self::PlanInUse => "plan_in_use",
            Self::SchemaNewer => "catalog_newer",
            Self::WrongKey => "wrong_key",
            Self::NotInitialised => "not_initialised",
            Self::Moved => "catalog_moved",
            Self::Unavailable => "catalog_unavailable",
            Self::DiskFull => "disk_full",
            Self::ReadOnlyStorage => "read_only_storage",
            Self::Refused => "catalog_refused",
            Self::ToolMissing => "tool_missing",
            Self::Claimed => "data_dir_copied",
            Self::Corrupt => "catalog_corrupt",
        }
    }
}

impl Error {
    /// An error of this kind. The message must not contain a secret.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Adds the cause for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind, which callers can match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}
