//! One error for the crate: what problem+json says, with the cause kept for the log.

use std::borrow::Cow;
use std::fmt;

/// What every fallible function here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request or a step failed.
#[derive(Debug)]
pub struct Error {
    /// The stable code that users, scripts and `explain` know.
    pub code: Cow<'static, str>,
    /// The HTTP status that fits it.
    pub status: u16,
    /// What a human reads; never a secret, a path or another tenant's name.
    pub detail: String,
    /// Commands or requests that help.
    pub next_steps: Vec<String>,
    /// Seconds after which the same request may succeed.
    pub retry_after_seconds: Option<u32>,
    /// What is wrong with which item of a list; at most [`ITEMS_MAX`].
    pub items: Box<[Item]>,
    /// True when a step may be tried again without anybody doing anything.
    pub transient: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Items named in one error: enough to fix a file with, small enough for one answer.
pub const ITEMS_MAX: usize = 100;

/// One bad item of a list.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Item {
    /// Its place in the list, from 0.
    pub index: usize,
    /// As given, shortened.
    pub name: String,
    /// What is wrong with it.
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

    /// The same, worth another try without anybody doing anything.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.transient = true;
        self
    }

    /// The same, not worth another try.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.transient = false;
        self
    }

    /// A bug in this program, or something that only a human can repair; the cause goes to the log.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(500, "internal", detail)
    }

    /// The same, naming something that helps.
    #[must_use]
    pub fn try_next(mut self, step: impl Into<String>) -> Self {
        self.next_steps.push(step.into());
        self
    }

    /// The same, keeping the cause for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What lies below, outermost first: for the log, and for who owns this process.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        let sources = std::iter::successors(std::error::Error::source(self), |error| error.source());
        sources.map(ToString::to_string).collect()
    }

    /// The detail and every cause that says something new, in one line.
    #[must_use]
    pub fn with_causes(&self) -> String {
        self.causes().into_iter().fold(self.detail.clone(), |text, cause| match text.contains(&cause) {
            true => text,
            false => format!("{text}: {cause}"),
        })
    }
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
            Kind::AlreadyExists | Kind::Conflict | Kind::Busy | Kind::Protected => 409,
            Kind::Invalid => 422,
            Kind::Unavailable | Kind::Refused => 503,
            Kind::ReadOnlyStorage => 507,
            _ => 500,
        };
        let mut out = Self::new(status, error.kind().code(), error.to_string());
        out.transient = matches!(error.kind(), Kind::Unavailable | Kind::Busy);
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
            Kind::AlreadyExists | Kind::MigrationChanged | Kind::MigrationMissing | Kind::MigrationAhead => 409,
            Kind::DiskFull | Kind::DiskLow => 507,
            _ => 500,
        };
        let mut out = Self::new(status, error.kind().code(), error.to_string());
        out.transient = error.kind().is_transient();
        out.with_source(error)
    }
}

impl From<tenant_router::Error> for Error {
    fn from(error: tenant_router::Error) -> Self {
        let mut out = Self::new(error.status(), error.code(), error.detail());
        out.next_steps = error.kind().next_steps().iter().map(|&step| step.to_owned()).collect();
        out.retry_after_seconds = error.retry_after().map(|after| u32::try_from(after.as_secs()).unwrap_or(u32::MAX));
        out.transient = out.retry_after_seconds.is_some();
        out.with_source(error)
    }
}
