//! The error type of this crate: the content of problem+json, and the cause for the log.

use std::borrow::Cow;
use std::fmt;
use std::io::ErrorKind;

/// The result of every fallible function in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request or a step failed.
#[derive(Debug)]
pub struct Error {
    /// The stable code that users, scripts and `explain` know.
    pub code: Cow<'static, str>,
    /// The HTTP status of the response.
    pub status: u16,
    /// The explanation for people. It never contains a secret, a path or another tenant's name.
    pub detail: String,
    /// Commands or requests that help.
    pub next_steps: Vec<String>,
    /// Seconds after which the same request may succeed.
    pub retry_after_seconds: Option<u32>,
    /// The faulty items of a list, at most [`ITEMS_MAX`].
    pub items: Box<[ItemError]>,
    /// Whether a step may be tried again without anybody's help.
    pub transient: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Maximum number of items in one error: enough to correct a file with, small enough for one response.
pub const ITEMS_MAX: usize = 100;

/// One faulty item of a list.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ItemError {
    /// The item's position in the list, from 0.
    pub index: usize,
    /// The item's name as given, shortened.
    pub name: String,
    /// The problem of the item.
    pub detail: String,
}

impl Error {
    /// An error with this code and status.
    pub fn new(status: u16, code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            status,
            detail: detail.into(),
            next_steps: Vec::new(),
            retry_after_seconds: None,
            items: Box::default(),
            transient: false,
            source: None,
        }
    }

    /// Marks the error as worth another attempt without anybody's help.
    #[must_use]
    pub fn mark_transient(mut self) -> Self {
        self.transient = true;
        self
    }

    /// Marks the error as not worth another attempt.
    #[must_use]
    pub fn mark_permanent(mut self) -> Self {
        self.transient = false;
        self
    }

    /// Seconds after which the same request may succeed: the recorded value, or one derived from the kind of failure.
    /// `None` if repeating alone does not help.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        let by_kind = match (self.status, self.code.as_ref()) {
            // Somebody must free space first.
            (507, "disk_full" | "disk_low") => Some(10),
            // The change may already have been applied.
            (503, "connection_lost") => None,
            (503 | 429, _) if self.transient => Some(1),
            _ => None,
        };
        self.retry_after_seconds.or(by_kind)
    }

    /// An unexpected error, or one that only a person can repair. The cause goes to the log.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(500, "internal", detail)
    }

    /// The directory of temporary databases cannot be written. The step may be tried again.
    pub(crate) fn scratch_unwritable(error: std::io::Error) -> Self {
        let made = match is_full(&error) {
            true => Self::new(507, "disk_full", "the disk of the scratch directory has no room"),
            false => Self::new(500, "io", "the scratch directory cannot be written"),
        };
        made.with_source(error).mark_transient()
    }

    /// A file or directory of the data directory that cannot be used. A full disk is named as such, because only free
    /// space helps then; otherwise the advice is `next`.
    pub(crate) fn data_dir_unusable(what: &str, next: &str, error: std::io::Error) -> Self {
        let made = match is_full(&error) {
            true => {
                let detail = format!("the disk is full, and {what} cannot be written: {error}");
                Self::new(507, "disk_full", detail).try_next("free some space on this disk, and try again")
            }
            false => Self::new(500, "data_dir_unusable", format!("{what} cannot be used: {error}")).try_next(next),
        };
        made.with_source(error)
    }

    /// Adds advice.
    #[must_use]
    pub fn try_next(mut self, step: impl Into<String>) -> Self {
        self.next_steps.push(step.into());
        self
    }

    /// Adds the three remedies for two data directories of one fleet.
    #[must_use]
    pub(crate) fn with_copy_advice(self) -> Self {
        self.try_next("find out first which data directory uses the server now, and whether it is still needed")
            .try_next("if this directory is the right one: fleetctl catalog take-over --data-dir DIRECTORY")
            .try_next(
                "if it is a copy that is to be a separate fleet: fleetctl catalog new-identity --data-dir DIRECTORY",
            )
    }

    /// Adds the cause, which goes to the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The messages of all causes, outermost first. For the log, and for the owner of this process.
    #[must_use]
    pub fn cause_messages(&self) -> Vec<String> {
        let sources = std::iter::successors(std::error::Error::source(self), |error| error.source());
        sources.map(ToString::to_string).collect()
    }

    /// The detail and each cause that adds information, in one line.
    #[must_use]
    pub fn with_causes(&self) -> String {
        self.cause_messages().into_iter().fold(self.detail.clone(), |text, cause| match text.contains(&cause) {
            true => text,
            false => format!("{text}: {cause}"),
        })
    }
}

/// True when the disk has no blocks, or this user's quota is used up.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}

impl From<catalog::Error> for Error {
    fn from(error: catalog::Error) -> Self {
        use catalog::ErrorKind as Kind;
        let status = match error.kind() {
            Kind::NotFound => 404,
            Kind::AlreadyExists | Kind::Conflict | Kind::Busy | Kind::Protected | Kind::Claimed => 409,
            Kind::Invalid => 422,
            Kind::Unavailable | Kind::Refused => 503,
            Kind::ReadOnlyStorage | Kind::DiskFull => 507,
            _ => 500,
        };
        let mut out = Self::new(status, error.kind().code(), error.to_string());
        out.transient = matches!(error.kind(), Kind::Unavailable | Kind::Busy | Kind::DiskFull);
        if error.kind() == Kind::Claimed {
            out = out.with_copy_advice();
        }
        out.with_source(error)
    }
}

impl From<tenant_engine::Error> for Error {
    fn from(error: tenant_engine::Error) -> Self {
        use tenant_engine::ErrorKind as Kind;
        let status = match error.kind() {
            Kind::SqlInvalid
            | Kind::SqlTooComplex
            | Kind::SqlForbidden
            | Kind::Constraint
            | Kind::ReadOnlyTransaction
            | Kind::ParameterMismatch
            | Kind::UnsupportedType
            | Kind::ServerInvalid
            | Kind::RowsMax
            | Kind::BytesMax
            | Kind::MigrationInvalid => 422,
            Kind::DeadlineExceeded => 408,
            Kind::QueueFull => 429,
            Kind::Busy
            | Kind::ConnectionsMax
            | Kind::AnswersMax
            | Kind::LogMax
            | Kind::MemoryMax
            | Kind::Closed
            | Kind::Fenced
            | Kind::ServerUnreachable
            | Kind::ServerFull
            | Kind::ConnectionLost => 503,
            Kind::ServerClaimed
            | Kind::AlreadyExists
            | Kind::MigrationChanged
            | Kind::MigrationMissing
            | Kind::MigrationAhead => 409,
            Kind::DiskFull | Kind::DiskLow => 507,
            _ => 500,
        };
        let mut out = Self::new(status, error.kind().code(), error.to_string());
        out.transient = error.kind().is_transient();
        if error.kind() == Kind::ServerClaimed {
            out = out.with_copy_advice();
        }
        out.with_source(error)
    }
}

impl From<tenant_router::Error> for Error {
    fn from(error: tenant_router::Error) -> Self {
        let mut out = Self::new(error.status(), error.code(), error.detail());
        out.next_steps = error.kind().next_steps().iter().map(|&step| step.to_owned()).collect();
        out.retry_after_seconds = error.retry_after().map(|after| u32::try_from(after.as_secs()).unwrap_or(u32::MAX));
        out.transient = out.retry_after_seconds.is_some();
        if error.code() == "data_dir_copied" {
            out = out.with_copy_advice();
        }
        out.with_source(error)
    }
}
