//! The error type of the crate: a kind for programs, a message for people, a source for the log.

use std::fmt;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error of an engine operation or of a statement.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of errors that a caller can act on. Users see the text of [`ErrorKind::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    // --- the caller's SQL
    /// The SQL does not parse, or names an object that does not exist.
    SqlInvalid,
    /// The SQL is longer, or nested deeper, than a database can safely prepare.
    SqlTooComplex,
    /// The sandbox refuses the statement (ATTACH, DDL, transaction control, system tables …).
    SqlForbidden,
    /// The statement violates a constraint of the tenant's own schema.
    Constraint,
    /// The statement writes in a read-only transaction.
    ReadOnlyTransaction,
    /// The parameters do not match the statement in number or type.
    ParameterMismatch,
    /// A column or parameter has a type that has no engine-neutral form: cast it to text.
    UnsupportedType,
    /// The program used the driver of one engine on a database of the other.
    OtherEngine,
    /// The answer has more rows than the caller allowed.
    RowsMax,
    /// The answer has more bytes than the caller allowed.
    BytesMax,
    /// The database is as large as the caller allowed. Nothing was changed.
    StorageFull,
    /// No memory is free for SQL statements, because other statements use it. Nothing was done.
    MemoryMax,
    /// No memory is free for answers, because other answers are being read and sent. Nothing was done.
    AnswersMax,
    /// The statement or transaction ran longer than the caller allowed.
    DeadlineExceeded,
    // --- the database
    /// Another writer holds the lock for longer than the caller could wait.
    Busy,
    /// There is no database at the placement.
    Missing,
    /// There is already a database at the placement.
    AlreadyExists,
    /// The database belongs to the right tenant but is not the current one: the caller has stale data.
    Fenced,
    /// The database belongs to another tenant or fleet.
    WrongTenant,
    /// The database is damaged, or the file is not a database.
    Corrupt,
    /// The disk is full.
    DiskFull,
    /// A tenant's write was refused before the disk became full. Nothing was done.
    DiskLow,
    /// The write-ahead log of this database reached its limit, because readers keep it from being reset. Nothing was
    /// done.
    LogMax,
    /// The storage is read-only.
    ReadOnlyStorage,
    /// Any other error of files, network or operating system.
    Io,
    /// Every connection that this process may open is in use.
    ConnectionsMax,
    /// Too many requests already wait for this database, so this one is refused at once.
    QueueFull,
    /// The session, the pool or the engine is closed.
    Closed,
    // --- the server a database lives on
    /// The server does not answer: wrong address, down, restarting, or cut off. Nothing was changed.
    ServerUnreachable,
    /// The connection string, or the catalog's record of the server, is malformed.
    ServerInvalid,
    /// The server refuses the login: the password is wrong, or a rule of its access list excludes it.
    ServerAuthFailed,
    /// The server requires TLS and the connection string forbids it, or the reverse, or its certificate is not trusted.
    ServerTls,
    /// The server accepts no more connections, counting those of other programs.
    ServerFull,
    /// The role of the connection string lacks a right. The message says which right and how to grant it.
    ServerPrivilege,
    /// A copy of this fleet's data directory uses the server now. Nothing was changed.
    ServerClaimed,
    /// The connection broke during a change: the change may or may not have been applied.
    ConnectionLost,
    /// `pg_dump`, `pg_restore` or `psql` is not installed at the expected path, or does not start.
    ToolMissing,
    /// `pg_dump`, `pg_restore` or `psql` ended with an error; the message holds its output.
    ToolFailed,
    /// `pg_dump` is older than the server, so its dump could be incomplete.
    ToolTooOld,
    /// The server refuses an object of the dump; the message names the object.
    NotRestorable,
    /// A dump cannot hold everything in the database. The message names the obstacle and how to remove it.
    NotDumpable,
    /// A copy of the outside database would not be equal to it; the message says why.
    NotAdoptable,
    // --- migrations
    /// The directory itself is invalid (name, duplicate version, not UTF-8 …).
    MigrationInvalid,
    /// A file of the set was changed after this database applied it.
    MigrationChanged,
    /// The database applied a version whose file is missing from the set.
    MigrationMissing,
    /// The database is newer than the set.
    MigrationAhead,
    /// A statement of a migration failed; its transaction was rolled back.
    MigrationFailed,
    /// A file without a transaction failed in the middle: a person must check the database.
    MigrationDirty,
    /// An error without a kind of its own: an unexpected answer, or a bug in this program.
    Internal,
}

impl ErrorKind {
    /// The stable code that users, scripts and `explain` use.
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
            Self::OtherEngine => "other_engine",
            Self::RowsMax => "rows_max",
            Self::BytesMax => "bytes_max",
            Self::StorageFull => "storage_full",
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
            Self::ServerClaimed => "data_dir_copied",
            Self::ConnectionLost => "connection_lost",
            Self::ToolMissing => "tool_missing",
            Self::ToolFailed => "tool_failed",
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

    /// True when the same call may succeed later although nobody changes anything.
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
    /// An error of this kind. The message must never hold a secret or an SQL parameter.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// This error with its cause, which is kept for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind that a caller can act on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message for people.
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
