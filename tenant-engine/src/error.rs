//! One error for the crate: a kind for the machine, a message for the human, a source for the log.

use std::fmt;

/// What every fallible function here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a verb or a statement failed.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds a caller can act on; [`ErrorKind::code`] is what users see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    // --- the caller's SQL
    /// It does not parse, or names what is not there.
    SqlInvalid,
    /// It is longer, or nests deeper, than a database can safely prepare.
    SqlTooComplex,
    /// The sandbox refuses it (ATTACH, DDL, transaction control, system tables …).
    SqlForbidden,
    /// A constraint of the tenant's own schema.
    Constraint,
    /// A write in a read-only transaction.
    ReadOnlyTransaction,
    /// The parameters do not fit the statement.
    ParameterMismatch,
    /// A column or parameter has a type that has no neutral form: cast it to text.
    UnsupportedType,
    /// More rows than the caller allowed.
    RowsMax,
    /// More bytes than the caller allowed.
    BytesMax,
    /// No memory is left for SQL statements: others run. Nothing was done.
    MemoryMax,
    /// No memory is left for answers: others are being read and sent. Nothing was done.
    AnswersMax,
    /// Ran longer than the caller allowed.
    DeadlineExceeded,
    // --- the database
    /// Locked by another writer for longer than the caller could wait.
    Busy,
    /// No database at the placement.
    Missing,
    /// A database is already at the placement.
    AlreadyExists,
    /// The right tenant's database, but not the current one: a stale caller.
    Fenced,
    /// Somebody else's database.
    WrongTenant,
    /// Damaged, or not a database at all.
    Corrupt,
    /// The disk is full.
    DiskFull,
    /// A tenant's write was refused before the disk became full. Nothing was done.
    DiskLow,
    /// Readers keep the write-ahead log of this database from being reset, and it reached its limit. Nothing was done.
    LogMax,
    /// The storage does not allow writing.
    ReadOnlyStorage,
    /// Any other fault of files, network or operating system.
    Io,
    /// Every connection this process may open is in use.
    ConnectionsMax,
    /// So many requests are waiting for this database that one more is refused at once.
    QueueFull,
    /// The pool or the engine is shutting down.
    Closed,
    // --- the server a database lives on
    /// It does not answer: wrong address, down, restarting, or cut off. Nothing was changed.
    ServerUnreachable,
    /// The connection string, or what the catalog holds about the server, is malformed.
    ServerInvalid,
    /// It refuses who we say we are: a password or a rule of its access list.
    ServerAuthFailed,
    /// It wants TLS and we were told not to, the other way round, or its certificate is not trusted.
    ServerTls,
    /// It takes no more connections, others' than ours included.
    ServerFull,
    /// The role we were given lacks a right; the message says which and how to grant it.
    ServerPrivilege,
    /// The connection broke while a change was being made: it may or may not have been made.
    ConnectionLost,
    /// `pg_dump`, `pg_restore` or `psql` is not installed where we look, or does not start.
    ToolMissing,
    /// `pg_dump` is older than the server: its dump could lack something.
    ToolTooOld,
    /// The server refuses an object that a dump holds, which the message names.
    NotRestorable,
    /// A dump could not carry all of the database; the message names the obstacle and what removes it.
    NotDumpable,
    /// A copy of a database from outside could not be equal to it; the message says why.
    NotAdoptable,
    // --- migrations
    /// The directory itself is wrong (name, duplicate version, not UTF-8 …).
    MigrationInvalid,
    /// A file of the set was changed after this database applied it.
    MigrationChanged,
    /// The database applied a version whose file the set does not hold.
    MigrationMissing,
    /// The database is newer than the set.
    MigrationAhead,
    /// A statement of a migration failed; the transaction was rolled back.
    MigrationFailed,
    /// A file without transaction failed in the middle: a human must look.
    MigrationDirty,
    /// A bug in this program.
    Internal,
}

impl ErrorKind {
    /// The stable code that users, scripts and `explain` know.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::SqlInvalid => "sql_invalid",
            Self::SqlTooComplex => "sql_too_complex",
            Self::SqlForbidden => "sql_forbidden",
            Self::Constraint => "constraint_violation",
            Self::ReadOnlyTransaction => "read_only_transaction",
            Self::ParameterMismatch => "parameter_mismatch",
            Self::UnsupportedType => "unsupported_type",
            Self::RowsMax => "rows_max",
            Self::BytesMax => "bytes_max",
            Self::MemoryMax => "memory_max",
            Self::AnswersMax => "answers_max",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Busy => "database_busy",
            Self::Missing => "database_missing",
            Self::AlreadyExists => "database_exists",
            Self::Fenced => "fenced",
            Self::WrongTenant => "wrong_tenant",
            Self::Corrupt => "database_corrupt",
            Self::DiskFull => "disk_full",
            Self::DiskLow => "disk_low",
            Self::LogMax => "log_max",
            Self::ReadOnlyStorage => "read_only_storage",
            Self::Io => "io",
            Self::ConnectionsMax => "connections_max",
            Self::QueueFull => "queue_full",
            Self::Closed => "closed",
            Self::ServerUnreachable => "server_unreachable",
            Self::ServerInvalid => "server_invalid",
            Self::ServerAuthFailed => "server_auth_failed",
            Self::ServerTls => "server_tls",
            Self::ServerFull => "server_connections_max",
            Self::ServerPrivilege => "server_privilege_missing",
            Self::ConnectionLost => "connection_lost",
            Self::ToolMissing => "tool_missing",
            Self::ToolTooOld => "tool_too_old",
            Self::NotRestorable => "not_restorable",
            Self::NotDumpable => "not_dumpable",
            Self::NotAdoptable => "not_adoptable",
            Self::MigrationInvalid => "migration_invalid",
            Self::MigrationChanged => "migration_changed",
            Self::MigrationMissing => "migration_missing",
            Self::MigrationAhead => "migration_ahead",
            Self::MigrationFailed => "migration_failed",
            Self::MigrationDirty => "migration_dirty",
            Self::Internal => "internal",
        }
    }

    /// True when the same call may succeed later without anybody doing anything.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Busy
                | Self::ConnectionsMax
                | Self::AnswersMax
                | Self::MemoryMax
                | Self::QueueFull
                | Self::Closed
                | Self::Io
                | Self::DiskFull
                | Self::DiskLow
                | Self::LogMax
                | Self::ServerUnreachable
                | Self::ServerFull
                | Self::ConnectionLost
        )
    }
}

impl Error {
    /// An error of this kind; the message never holds a secret or a SQL parameter.
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

    /// What a human reads.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
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
