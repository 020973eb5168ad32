//! One error for the crate: a kind for the machine, a message for the human, a source for the log.

use std::fmt;

/// What every fallible function here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the catalog refused or failed.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing of that name or id.
    NotFound,
    /// The name or id is taken.
    AlreadyExists,
    /// The input is malformed; the message says what is expected.
    Invalid,
    /// The record is not in the state the caller read: somebody changed it.
    Conflict,
    /// Another operation works on the tenant.
    Busy,
    /// Protected from deletion.
    Protected,
    /// The catalog's schema is newer than this program.
    SchemaNewer,
    /// The sealing key is missing or is not this catalog's.
    WrongKey,
    /// There is no catalog here yet.
    NotInitialised,
    /// The catalog could not be reached, is locked for too long, or its disk is full.
    Unavailable,
    /// The catalog's files or their directory do not allow this process to write.
    ReadOnlyStorage,
    /// The catalog's server refuses this process: password, database, rights, TLS or its release.
    Refused,
    /// A program that the catalog's database needs is not installed here.
    ToolMissing,
    /// What is stored breaks a rule of this program.
    Corrupt,
}

impl ErrorKind {
    /// The stable code that users, scripts and `explain` know.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Invalid => "invalid",
            Self::Conflict => "conflict",
            Self::Busy => "operation_in_progress",
            Self::Protected => "protected",
            Self::SchemaNewer => "catalog_newer",
            Self::WrongKey => "wrong_key",
            Self::NotInitialised => "not_initialised",
            Self::Unavailable => "catalog_unavailable",
            Self::ReadOnlyStorage => "read_only_storage",
            Self::Refused => "catalog_refused",
            Self::ToolMissing => "tool_missing",
            Self::Corrupt => "catalog_corrupt",
        }
    }
}

impl Error {
    /// An error of this kind; the message never holds a secret.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same, keeping the cause for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What a caller can act on.
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
