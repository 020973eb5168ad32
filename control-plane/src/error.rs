//! The error type of this crate: its kind, the text for people, and the cause for the log.

mod kind;

use std::fmt;
use std::io;

pub use kind::ErrorKind;

/// The result of every fallible function in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request or a step failed.
#[derive(Debug)]
pub struct Error {
    /// The kind, which callers can match on.
    pub kind: ErrorKind,
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
    /// An error of this kind.
    pub fn new(kind: impl Into<ErrorKind>, detail: impl Into<String>) -> Self {
        let kind = kind.into();
        Self {
            transient: kind.is_transient(),
            kind,
            detail: detail.into(),
            next_steps: Vec::new(),
            retry_after_seconds: None,
            items: Box::default(),
            source: None,
        }
    }

    /// The stable code of the kind; see [`ErrorKind::code`].
    #[must_use]
    pub fn code(&self) -> &str {
        self.kind.code()
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

    /// An unexpected error, or one that only a person can repair. The cause goes to the log.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, detail)
    }

    /// The directory of temporary databases cannot be written. The step may be tried again.
    pub(crate) fn scratch_unwritable(error: io::Error) -> Self {
        let made = match is_full(&error) {
            true => Self::new(ErrorKind::DiskFull, "the disk of the scratch directory has no room"),
            false => Self::new(ErrorKind::TemporaryFileUnusable, "the scratch directory cannot be written"),
        };
        made.with_source(error)
    }

    /// A file or directory of the data directory that cannot be used. A full disk is named as such, because only free
    /// space helps then; otherwise the advice is `next`.
    pub(crate) fn data_dir_unusable(what: &str, next: &str, error: io::Error) -> Self {
        let made = match is_full(&error) {
            true => {
                let detail = format!("the disk is full, and {what} cannot be written: {error}");
                Self::new(ErrorKind::DiskFull, detail)
                    .mark_permanent()
                    .try_next("free some space on this disk, and try again")
            }
            false => Self::new(ErrorKind::DataDirUnusable, format!("{what} cannot be used: {error}")).try_next(next),
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

    /// Adds these remedies if a copy of this data directory now uses the server.
    fn with_copy_advice_if_claimed(self) -> Self {
        if self.kind == ErrorKind::DataDirCopied { self.with_copy_advice() } else { self }
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
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
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
        Self::new(error.kind(), error.to_string()).with_copy_advice_if_claimed().with_source(error)
    }
}

impl From<tenant_engine::Error> for Error {
    fn from(error: tenant_engine::Error) -> Self {
        Self::new(error.kind(), error.to_string()).with_copy_advice_if_claimed().with_source(error)
    }
}

impl From<tenant_router::Error> for Error {
    fn from(error: tenant_router::Error) -> Self {
        let mut out = Self::new(ErrorKind::Router(error.kind()), error.detail());
        out.next_steps = error.kind().next_steps().iter().map(|&step| step.to_owned()).collect();
        out.retry_after_seconds = error.retry_after().map(|after| u32::try_from(after.as_secs()).unwrap_or(u32::MAX));
        if error.kind() == tenant_router::ErrorKind::Database(tenant_engine::ErrorKind::ServerClaimed) {
            out = out.with_copy_advice();
        }
        out.with_source(error)
    }
}
