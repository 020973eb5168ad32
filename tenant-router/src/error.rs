//! The error of this crate: a kind for programs, a sentence for the caller, a source for the log.
//!
//! Everything that a caller sees comes from the [`ErrorKind`] alone, except for errors of the caller's own SQL. So two
//! refusals of the same kind have identical bytes, for every tenant.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::RateState;

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request was refused or failed.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: Option<String>,
    /// The rate of the tenant, for a request that was refused because of it.
    rate: Option<Box<RateState>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of errors that a caller can react to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The credential is missing, unknown, expired or revoked.
    Unauthenticated,
    /// The request does not name a tenant in any way that this application accepts.
    TenantUnnamed,
    /// A name in the request is not a valid tenant name: wrong characters, too long, or reserved.
    TenantNameInvalid,
    /// The names in the request lead to different tenants.
    TenantAmbiguous,
    /// The request has the tenant header, but its credential may not use it.
    TenantHeaderRefused,
    /// Unknown tenant, another customer's tenant, or no membership: the caller cannot tell which.
    NotFound,
    /// The caller is a member, but its role does not allow the request.
    Forbidden,
    /// The tenant is suspended. Only its members see this error.
    Suspended,
    /// The tenant has no live database, only a backup. It must be woken first.
    Archived,
    /// An operator made the tenant read-only.
    ReadOnly,
    /// An operation blocked writes for longer than the request may wait.
    WritesBlocked,
    /// The database is not the one that the catalog names, for longer than the request may wait.
    Fenced,
    /// The tenant's schema is older than this program can serve.
    SchemaBehind,
    /// As `SchemaBehind`, but a restore took the tenant back. It stays so until an operator migrates it.
    SchemaPinned,
    /// The tenant's schema is newer than this program can serve.
    SchemaAhead,
    /// The catalog cannot be read, and no cache has the answer.
    CatalogUnavailable,
    /// The catalog's disk is too full even for readers of the catalog.
    CatalogDiskFull,
    /// The public keys of an issuer of tokens cannot be fetched.
    KeysUnavailable,
    /// The tenant has used up the rate of its plan.
    RateLimited,
    /// The tenant has as many open requests as its plan allows.
    RequestsMax,
    /// The name of a topic has other characters than allowed, or too many.
    TopicInvalid,
    /// A message for a topic is larger than allowed.
    MessageTooLarge,
    /// Too many messages of this tenant, or of all tenants, are being published.
    MessagesMax,
    /// The tenant, or this process, has as many open subscriptions as allowed.
    SubscriptionsMax,
    /// The page that opens a live connection has another origin than the application.
    OriginRefused,
    /// The router is shutting down.
    ShuttingDown,
    /// The router was built without a required part.
    Misconfigured,
    /// The fleet could not be opened. The source says why and names the next step.
    FleetNotOpened(catalog::ErrorKind),
    /// `fetch_one` found no row.
    RowNotFound,
    /// The signature, the time or the account of a webhook is wrong.
    WebhookRefused,
    /// A loop over tenants selects none, or does not say who runs it and why.
    LoopInvalid,
    /// A job, its key or its schedule is not valid.
    JobInvalid,
    /// Another process runs the job meanwhile: this run may change nothing.
    JobClaimLost,
    /// A row of an answer cannot be read as the type that the program asked for. The source is a
    /// [`RowMismatch`](crate::typed::RowMismatch).
    RowMismatch,
    /// An error of the database or of the caller's SQL.
    Database(tenant_engine::ErrorKind),
}

impl ErrorKind {
    /// The stable code, for users, scripts and `fleetctl explain`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::TenantUnnamed => "tenant_unnamed",
            Self::TenantNameInvalid => "tenant_name_invalid",
            Self::TenantAmbiguous => "tenant_ambiguous",
            Self::TenantHeaderRefused => "tenant_header_refused",
            Self::NotFound => "not_found",
            Self::Forbidden => "forbidden",
            Self::Suspended => "tenant_suspended",
            Self::Archived => "tenant_archived",
            Self::ReadOnly => "tenant_read_only",
            Self::WritesBlocked => "writes_blocked",
            Self::Fenced => "fenced",
            Self::SchemaBehind | Self::SchemaPinned => "schema_behind",
            Self::SchemaAhead => "schema_ahead",
            Self::CatalogUnavailable => "catalog_unavailable",
            Self::CatalogDiskFull => "disk_full",
            Self::KeysUnavailable => "keys_unavailable",
            Self::RateLimited => "rate_limited",
            Self::RequestsMax => "requests_max",
            Self::TopicInvalid => "topic_invalid",
            Self::MessageTooLarge => "message_too_large",
            Self::MessagesMax => "messages_max",
            Self::SubscriptionsMax => "subscriptions_max",
            Self::OriginRefused => "origin_refused",
            Self::ShuttingDown => "shutting_down",
            Self::Misconfigured => "internal",
            Self::FleetNotOpened(kind) => kind.code(),
            Self::RowNotFound => "row_not_found",
            Self::WebhookRefused => "webhook_refused",
            Self::LoopInvalid => "loop_invalid",
            Self::JobInvalid => "job_invalid",
            Self::JobClaimLost => "job_claim_lost",
            Self::RowMismatch => "row_mismatch",
            Self::Database(kind) => kind.code(),
        }
    }

    /// The kind for a tenant that stays at its version until an operator migrates it.
    pub(crate) fn of_pinned(self, is_pinned: bool) -> Self {
        match self {
            Self::SchemaBehind if is_pinned => Self::SchemaPinned,
            kind => kind,
        }
    }

    /// The HTTP status of this kind.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::TenantUnnamed
            | Self::TenantNameInvalid
            | Self::TenantAmbiguous
            | Self::TenantHeaderRefused
            | Self::TopicInvalid => 400,
            Self::Unauthenticated | Self::WebhookRefused => 401,
            Self::Forbidden | Self::Suspended | Self::ReadOnly | Self::OriginRefused => 403,
            Self::NotFound | Self::RowNotFound => 404,
            Self::MessageTooLarge => 413,
            Self::MessagesMax | Self::RateLimited | Self::RequestsMax => 429,
            Self::Misconfigured | Self::FleetNotOpened(_) | Self::RowMismatch => 500,
            Self::JobClaimLost => 409,
            Self::JobInvalid | Self::LoopInvalid => 422,
            Self::CatalogDiskFull => 507,
            Self::Archived
            | Self::WritesBlocked
            | Self::Fenced
            | Self::SchemaBehind
            | Self::SchemaPinned
            | Self::SchemaAhead
            | Self::CatalogUnavailable
            | Self::KeysUnavailable
            | Self::SubscriptionsMax
            | Self::ShuttingDown => 503,
            Self::Database(kind) => database_status(kind),
        }
    }

    /// The time after which the request may succeed; `None` when waiting alone does not help.
    #[must_use]
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::WritesBlocked
            | Self::Fenced
            | Self::CatalogUnavailable
            | Self::RateLimited
            | Self::RequestsMax
            | Self::MessagesMax
            | Self::ShuttingDown => Some(Duration::from_secs(1)),
            Self::KeysUnavailable | Self::SubscriptionsMax => Some(Duration::from_secs(10)),
            // An operator must free space first.
            Self::SchemaBehind
            | Self::CatalogDiskFull
            | Self::Database(tenant_engine::ErrorKind::DiskLow | tenant_engine::ErrorKind::DiskFull) => {
                Some(Duration::from_secs(10))
            }
            Self::Archived => Some(Duration::from_secs(5)),
            Self::Database(kind) if may_be_repeated(kind) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// A short sentence, identical for every request of this kind.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Unauthenticated => "The credential is missing or not valid",
            Self::TenantUnnamed => "The request names no tenant",
            Self::TenantNameInvalid => "A name in the request is not a tenant name",
            Self::TenantAmbiguous => "The request names more than one tenant",
            Self::TenantHeaderRefused => "The tenant header needs a service token",
            Self::NotFound => "Not found",
            Self::Forbidden => "The role in this tenant does not allow this request",
            Self::Suspended => "The tenant is suspended",
            Self::Archived => "The tenant is archived and is being woken",
            Self::ReadOnly => "The tenant is read-only",
            Self::WritesBlocked => "Writes are blocked for a short time",
            Self::Fenced => "The tenant's database is being replaced",
            Self::SchemaBehind => "The tenant is waiting for a migration",
            Self::SchemaPinned => {
                "The tenant was restored to an older schema than this program serves, and waits for a migration"
            }
            Self::SchemaAhead => "The tenant is newer than this program",
            Self::CatalogUnavailable => "The catalog cannot be read",
            Self::CatalogDiskFull => "The disk that holds the catalog is full",
            Self::KeysUnavailable => "The token cannot be checked now, because its issuer does not answer",
            Self::RateLimited => "The tenant has used up the rate of its plan",
            Self::RequestsMax => "The tenant has as many open requests as its plan allows",
            Self::TopicInvalid => "The name of the topic is not valid",
            Self::MessageTooLarge => "The message is too large; nothing was published",
            Self::MessagesMax => "Too many messages are being published; this one was not",
            Self::SubscriptionsMax => "Too many live connections are open",
            Self::OriginRefused => "A live connection must come from a page of this application",
            Self::ShuttingDown => "The server is shutting down",
            Self::Misconfigured | Self::FleetNotOpened(_) => "The server is misconfigured",
            Self::RowNotFound => "There is no such row",
            Self::WebhookRefused => "The webhook is not accepted",
            Self::LoopInvalid => "The loop over tenants is not valid",
            Self::JobInvalid => "The job is not valid",
            Self::JobClaimLost => "Another process runs this job meanwhile; nothing was changed",
            Self::RowMismatch => "A row does not have the type that this program expects",
            Self::Database(kind) => database_title(kind),
        }
    }

    /// What the caller can do next, most helpful first. May be empty.
    #[must_use]
    pub fn next_steps(self) -> &'static [&'static str] {
        match self {
            Self::Unauthenticated => {
                &["Send `Authorization: Bearer <token>` with a token that is neither expired nor revoked."]
            }
            Self::TenantUnnamed => &["Name the tenant in the path, the host or the token, as the application expects."],
            Self::TenantNameInvalid => &["A tenant name is 1 to 63 of a-z, 0-9 and '-', with no '-' at either end."],
            Self::TenantAmbiguous => &["Name one tenant only: path, host, header and token must agree."],
            Self::TenantHeaderRefused => &["Name the tenant in the path, or use a service token."],
            Self::NotFound => &["Check the name, and that this credential belongs to a member of the tenant."],
            Self::Forbidden => &["Ask a manager of the tenant for a role that allows this."],
            Self::Suspended => &["Ask the operator of this service."],
            Self::ReadOnly => &["Reads still work. Ask the operator of this service when writes return."],
            Self::Archived
            | Self::WritesBlocked
            | Self::Fenced
            | Self::SchemaBehind
            | Self::CatalogUnavailable
            | Self::KeysUnavailable
            | Self::RateLimited
            | Self::RequestsMax
            | Self::MessagesMax
            | Self::SubscriptionsMax
            | Self::ShuttingDown => &["Repeat the request after the time in Retry-After."],
            Self::Database(tenant_engine::ErrorKind::StorageFull) => {
                &["Reads still work. Delete data, or ask the operator of this service for a larger plan."]
            }
            Self::SchemaPinned => &[
                "Ask an operator to migrate this tenant by name.",
                "Or deploy the version of the application that serves its schema.",
            ],
            Self::SchemaAhead => &["Deploy the version of the application that supports the newer schema."],
            Self::Misconfigured | Self::FleetNotOpened(_) | Self::RowMismatch => &["See the log of the server."],
            Self::RowNotFound => &["Check the id of the row."],
            Self::WebhookRefused => &["Check the secret, the clock, and that the account is linked to a tenant."],
            Self::LoopInvalid => &["Name an actor, a reason, and a selection that matches tenants."],
            Self::JobInvalid => &["Store large data in a table, and refer to it in the job."],
            Self::JobClaimLost => &["Return from the handler: the other run ends the job."],
            Self::TopicInvalid => &["A topic has 1 to 64 of a-z, 0-9, '-', '_', '.' and ':'."],
            Self::MessageTooLarge => &["Publish the id of what changed, and let the page read the rest."],
            Self::OriginRefused => &[
                "Use the page itself. A proxy must pass the header Host unchanged, or the application must allow the origin.",
            ],
            Self::CatalogDiskFull => &[
                "Ask the operator of this service to free space.",
                "Repeat the request after the time in Retry-After.",
            ],
            Self::Database(tenant_engine::ErrorKind::DiskLow | tenant_engine::ErrorKind::DiskFull) => &[
                "Small reads still work. Ask the operator of this service to free space.",
                "Repeat the request after the time in Retry-After.",
            ],
            Self::Database(kind) if may_be_repeated(kind) => &["Repeat the request after the time in Retry-After."],
            Self::Database(tenant_engine::ErrorKind::ConnectionLost) => {
                &["Check whether the change was applied before repeating the request."]
            }
            Self::Database(_) => &[],
        }
    }
}

/// True when repeating a request is safe and may help. After a lost connection it may not be: the statement may have
/// been applied.
fn may_be_repeated(kind: tenant_engine::ErrorKind) -> bool {
    kind.is_transient() && kind != tenant_engine::ErrorKind::ConnectionLost
}

/// The problem with a database, in words that do not reveal its location.
fn database_title(kind: tenant_engine::ErrorKind) -> &'static str {
    use tenant_engine::ErrorKind as Kind;
    match kind {
        Kind::Corrupt => "The tenant's database is damaged",
        Kind::Missing => "The tenant's database is missing",
        Kind::WrongTenant => "The database belongs to another tenant; nothing was read",
        Kind::Busy => "The tenant's database is locked by another writer",
        Kind::ConnectionsMax => "All database connections are in use",
        Kind::AnswersMax => "The memory for answers is full; nothing was changed",
        Kind::MemoryMax => "No memory is left for SQL statements; nothing was changed",
        Kind::QueueFull => "Too many requests are waiting for the tenant's database",
        Kind::ServerUnreachable => "The server that holds the tenant's database does not answer",
        Kind::ServerFull => "The server that holds the tenant's database accepts no more connections",
        Kind::ServerAuthFailed
        | Kind::ServerTls
        | Kind::ServerInvalid
        | Kind::ServerPrivilege
        | Kind::ServerClaimed => "The server that holds the tenant's database rejects this service",
        Kind::ConnectionLost => "The connection broke while the statement ran: it may or may not have been applied",
        Kind::StorageFull => "The tenant's database is as large as its plan allows; nothing was changed",
        Kind::DiskFull => "The disk that holds the tenant's database is full",
        Kind::DiskLow => "The disk is almost full: writes and large sorts are refused, other reads still work",
        Kind::LogMax => "Readers keep the log of the tenant's database from being reset; nothing was changed",
        Kind::ReadOnlyStorage => "The tenant's database cannot be written: its storage is read-only",
        Kind::Io => "The disk that holds the tenant's database failed or is not reachable",
        _ => "The statement was not run",
    }
}

/// The HTTP status of a database error: the fault of the caller's own statement, or of this service.
fn database_status(kind: tenant_engine::ErrorKind) -> u16 {
    use tenant_engine::ErrorKind as Kind;
    match kind {
        Kind::SqlInvalid | Kind::SqlTooComplex | Kind::ParameterMismatch | Kind::UnsupportedType => 400,
        Kind::QueueFull => 429,
        Kind::SqlForbidden | Kind::ReadOnlyTransaction => 403,
        Kind::Constraint => 409,
        Kind::RowsMax | Kind::BytesMax => 422,
        Kind::DeadlineExceeded
        | Kind::Busy
        | Kind::ConnectionsMax
        | Kind::AnswersMax
        | Kind::LogMax
        | Kind::MemoryMax
        | Kind::Closed
        | Kind::ServerUnreachable
        | Kind::ServerFull
        | Kind::ConnectionLost => 503,
        Kind::DiskFull | Kind::DiskLow | Kind::ReadOnlyStorage | Kind::StorageFull => 507,
        _ => 500,
    }
}

/// True for errors whose message concerns only the caller's own SQL, so that the caller may read it.
fn is_callers_own(kind: tenant_engine::ErrorKind) -> bool {
    use tenant_engine::ErrorKind as Kind;
    let ours = matches!(kind, Kind::QueueFull);
    (database_status(kind) < 500 && !ours) || kind == Kind::DeadlineExceeded
}

impl Error {
    /// An error of this kind without a source.
    #[must_use]
    pub fn new(kind: ErrorKind) -> Self {
        Self { kind, message: None, rate: None, source: None }
    }

    /// Adds the cause for the log. Callers never see it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds the text that the caller may read, instead of the kind's title.
    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.message = Some(detail.into());
        self
    }

    /// Adds the tenant's rate, which tells the caller how long to wait.
    pub(crate) fn with_rate(mut self, rate: RateState) -> Self {
        self.rate = Some(Box::new(rate));
        self
    }

    /// A copy of the error for another caller that waited for the same look-up.
    pub(crate) fn share_error(error: &Arc<Self>) -> Self {
        let (message, rate) = (error.message.clone(), error.rate.clone());
        Self { kind: error.kind, message, rate, source: Some(Box::new(Arc::clone(error))) }
    }

    /// The kind, which callers can match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The stable code of the kind; see [`ErrorKind::code`].
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// The HTTP status of the kind; see [`ErrorKind::status`].
    #[must_use]
    pub fn status(&self) -> u16 {
        self.kind.status()
    }

    /// The wait before a retry: of a used-up rate until there is a token, otherwise [`ErrorKind::retry_after`].
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let until_token = self.rate.as_ref().map(|rate| Duration::from_secs(rate.reset_seconds));
        until_token.or_else(|| self.kind.retry_after())
    }

    /// The rate of the tenant, if the request was refused because of it.
    #[must_use]
    pub fn rate_state(&self) -> Option<RateState> {
        self.rate.as_deref().copied()
    }

    /// The text that the caller may read: the database's message about the caller's SQL, otherwise the kind's title.
    #[must_use]
    pub fn detail(&self) -> &str {
        self.message.as_deref().unwrap_or_else(|| self.kind.title())
    }
}

impl fmt::Display for Error {
    /// The text for the developer and the log. For faults of the program or its configuration it is the cause, which a
    /// caller of the application does not see.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ErrorKind::{FleetNotOpened, Misconfigured, RowMismatch};
        match (&self.source, self.kind) {
            (Some(cause), FleetNotOpened(_) | Misconfigured | RowMismatch) => cause.fmt(f),
            _ => f.write_str(self.detail()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

impl From<tenant_engine::Error> for Error {
    fn from(error: tenant_engine::Error) -> Self {
        let message = is_callers_own(error.kind()).then(|| error.message().to_owned());
        Self { kind: ErrorKind::Database(error.kind()), message, rate: None, source: Some(Box::new(error)) }
    }
}

impl From<catalog::Error> for Error {
    fn from(error: catalog::Error) -> Self {
        let kind = match error.kind() {
            catalog::ErrorKind::DiskFull => ErrorKind::CatalogDiskFull,
            // Another data directory uses the server; the catalog itself works.
            catalog::ErrorKind::Claimed => ErrorKind::Database(tenant_engine::ErrorKind::ServerClaimed),
            _ => ErrorKind::CatalogUnavailable,
        };
        Self::new(kind).with_source(error)
    }
}
