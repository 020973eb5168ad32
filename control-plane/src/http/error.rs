//! Errors as `application/problem+json` (RFC 9457).
//!
//! A handler returns a [`Problem`]; its response carries it as an extension with no body, and the outermost middleware
//! ([`super::middleware`]) writes the body, because only it knows the request. So errors that axum makes itself get the
//! same shape.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet_api::problem::{BadLine, ProblemBody};

use crate::error::{Error, ErrorKind, ItemError};

/// The result of a handler of this API.
pub(crate) type Result<T, E = Problem> = std::result::Result<T, E>;

/// The media type of every error.
pub(crate) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The error of a request, before its body is written.
#[derive(Debug)]
pub(crate) struct Problem {
    error: Box<Error>,
    status: StatusCode,
}

/// The reader of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorAudience {
    /// The owner of the data directory, who runs this process. There is no log beside the answer, and this reader may
    /// know everything in it.
    Owner,
    /// Anyone who reached a socket.
    Stranger,
}

impl From<&ItemError> for BadLine {
    fn from(item: &ItemError) -> Self {
        Self { index: item.index, name: item.name.clone(), detail: item.detail.clone() }
    }
}

impl<E: Into<Error>> From<E> for Problem {
    fn from(error: E) -> Self {
        let error = error.into();
        Self { status: status_of(&error.kind), error: Box::new(error) }
    }
}

impl Problem {
    /// A problem of this kind.
    pub(crate) fn new(kind: impl Into<ErrorKind>, detail: impl Into<String>) -> Self {
        Error::new(kind, detail).into()
    }

    /// A 422 problem: well-formed, but not what is expected.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, detail)
    }

    /// 404 for `what` (a noun and the name it was asked for).
    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, what)
    }

    /// Adds advice.
    pub(crate) fn try_next(mut self, step: impl Into<String>) -> Self {
        self.error.next_steps.push(step.into());
        self
    }

    /// The underlying error.
    pub(crate) fn as_error(&self) -> &Error {
        &self.error
    }

    /// The HTTP status of the response.
    pub(crate) fn http_status(&self) -> StatusCode {
        self.status
    }

    /// Seconds after which the same request may succeed: the recorded value, or one derived from the kind of failure.
    /// `None` if repeating alone does not help.
    fn retry_after(&self) -> Option<u32> {
        use tenant_engine::ErrorKind as DatabaseError;
        let by_kind = match (&self.error.kind, self.status) {
            // Somebody must free space first.
            (ErrorKind::DiskFull | ErrorKind::Engine(DatabaseError::DiskLow), _) => Some(10),
            // The change may already have been applied.
            (ErrorKind::Engine(DatabaseError::ConnectionLost), _) => None,
            (_, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) if self.error.transient => Some(1),
            _ => None,
        };
        self.error.retry_after_seconds.or(by_kind)
    }

    /// The body for the client. For a stranger a 500 contains only its code; the log contains the cause.
    pub(crate) fn problem_body(&self, request_id: &str, reader: ErrorAudience) -> ProblemBody {
        let hidden = self.http_status() == StatusCode::INTERNAL_SERVER_ERROR;
        let detail = match reader {
            ErrorAudience::Owner if hidden => self.error.with_causes(),
            ErrorAudience::Stranger if hidden => "internal error; see the server log for this request_id".to_owned(),
            _ => self.error.detail.clone(),
        };
        ProblemBody {
            type_uri: format!("urn:fleet:problem:{}", self.error.code()),
            title: code_title(self.error.code()),
            status: self.http_status().as_u16(),
            detail,
            instance: format!("urn:fleet:request:{request_id}"),
            code: self.error.code().to_owned(),
            request_id: request_id.to_owned(),
            next_steps: self.error.next_steps.clone(),
            errors: self.error.items.iter().map(BadLine::from).collect(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.http_status().into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.http_status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(std::sync::Arc::new(self));
        response
    }
}

/// The problem for an error status that a layer below the handlers returned.
pub(crate) fn of_status(status: StatusCode) -> Problem {
    match status {
        StatusCode::NOT_FOUND => Problem::not_found("there is nothing at this path").try_next("see /openapi.json"),
        StatusCode::METHOD_NOT_ALLOWED => {
            let detail = "this path does not support that method; the Allow header lists the supported ones";
            Problem::new(ErrorKind::MethodNotAllowed, detail)
        }
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ if status.is_server_error() => Problem { status, ..Problem::new(ErrorKind::Internal, "internal error") },
        _ => Problem { status, ..Problem::invalid(status.canonical_reason().unwrap_or("the request is not valid")) },
    }
}

/// Defines [`status_of`] for the kinds of this crate: one line per status.
macro_rules! statuses {
    ($($status:ident: $($kind:ident)+;)+) => {
        /// The HTTP status of a kind.
        #[must_use]
        pub fn status_of(kind: &ErrorKind) -> StatusCode {
            match kind {
                $($(ErrorKind::$kind)|+ => StatusCode::$status,)+
                ErrorKind::Catalog(kind) => status_of_catalog(*kind),
                ErrorKind::Engine(kind) => status_of_engine(*kind),
                ErrorKind::Router(kind) => {
                    StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
                }
                // A recorded error is never the answer to a request.
                ErrorKind::RouterStart(_) | ErrorKind::Recorded(_) => StatusCode::INTERNAL_SERVER_ERROR,
            }
        }
    };
}

statuses! {
    BAD_REQUEST: HostInvalid InvalidCursor InvalidHeader InvalidJson InvalidPath InvalidQuery UnexpectedBody;
    UNAUTHORIZED: Unauthenticated;
    FORBIDDEN: Forbidden ReadOnly WrongUser;
    NOT_FOUND: NotFound SelectionMatchesNobody WrongListener BackupNotFound NothingToUndo;
    METHOD_NOT_ALLOWED: MethodNotAllowed;
    REQUEST_TIMEOUT: BodyTimeout;
    CONFLICT: AlreadyExists Conflict CountMismatch OperationInProgress Protected IdempotencyInProgress
        TenantLeft TenantPinned TenantReadOnly SchemaUnreachable LedgerNameDiffers
        DatabaseFenced DatabaseCorrupt DatabaseMissing
        BackupDamaged BackupElsewhere BackupNewer BackupNotAuthentic WrongTenantBackup WrongEngineBackup
        NoDestination ServerFull ServerCordoned ServerDiffers BaseInUse
        NotInitialised DataDirCopied IdentityUnfinished CatalogMoved TwoCatalogs
        AlreadyServing AddressInUse AddressUnusable DomainUnproven;
    PRECONDITION_FAILED: PreconditionFailed;
    PAYLOAD_TOO_LARGE: BodyTooLarge;
    UNSUPPORTED_MEDIA_TYPE: UnsupportedMediaType;
    UNPROCESSABLE_ENTITY: Invalid SelectionEmpty IdempotencyKeyReused MigrationRefused ReleaseNotBuildable
        BackupStoreUnusable ServerPrivilegeMissing NetworkFileSystem AdminExposed TlsInvalid
        DataPathInvalid JwtInvalid;
    INTERNAL_SERVER_ERROR: Internal CopyDiffers ProcessDied BackupKeyInvalid DataDirUnusable WrongKey
        TemporaryFileUnusable ClockSkew CatalogMissing ListenerUnusable;
    SERVICE_UNAVAILABLE: ShuttingDown BackupStoreUnavailable CatalogUnavailable OperationsPaused DnsUnavailable;
    INSUFFICIENT_STORAGE: DiskFull;
}

fn status_of_catalog(kind: catalog::ErrorKind) -> StatusCode {
    use catalog::ErrorKind as Kind;
    match kind {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::AlreadyExists | Kind::Conflict | Kind::Busy | Kind::Protected | Kind::PlanInUse | Kind::Claimed => {
            StatusCode::CONFLICT
        }
        Kind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::Unavailable | Kind::Refused => StatusCode::SERVICE_UNAVAILABLE,
        Kind::ReadOnlyStorage | Kind::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn status_of_engine(kind: tenant_engine::ErrorKind) -> StatusCode {
    use tenant_engine::ErrorKind as Kind;
    match kind {
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
        | Kind::MigrationInvalid => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::DeadlineExceeded => StatusCode::REQUEST_TIMEOUT,
        Kind::QueueFull => StatusCode::TOO_MANY_REQUESTS,
        Kind::Busy
        | Kind::ConnectionsMax
        | Kind::AnswersMax
        | Kind::LogMax
        | Kind::MemoryMax
        | Kind::Closed
        | Kind::Fenced
        | Kind::ServerUnreachable
        | Kind::ServerFull
        | Kind::ConnectionLost => StatusCode::SERVICE_UNAVAILABLE,
        Kind::ServerClaimed
        | Kind::AlreadyExists
        | Kind::MigrationChanged
        | Kind::MigrationMissing
        | Kind::MigrationAhead => StatusCode::CONFLICT,
        Kind::DiskFull | Kind::DiskLow | Kind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The 413 problem.
pub(crate) fn too_large() -> Problem {
    Problem::new(ErrorKind::BodyTooLarge, "the body is larger than this path accepts")
}

/// The title of a code: `count_mismatch` → `Count mismatch`.
fn code_title(code: &str) -> String {
    let mut words = code.replace('_', " ");
    if let Some(first) = words.get_mut(0..1) {
        first.make_ascii_uppercase();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_500_keeps_its_cause_for_the_log() {
        let problem: Problem =
            Error::new(ErrorKind::Catalog(catalog::ErrorKind::Corrupt), "row 7 of /srv/secret").into();
        let body = problem.problem_body("req_1", ErrorAudience::Stranger);
        assert_eq!((body.code.as_str(), body.status), ("catalog_corrupt", 500));
        assert!(!serde_json::to_string(&body).unwrap().contains("secret"));
    }

    #[test]
    fn what_passes_by_itself_says_when_to_come_again() {
        let after = |error: Error| {
            let response = Problem::from(error).into_response();
            response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned())
        };
        let of_catalog = |kind| Error::from(catalog::Error::new(kind, "x"));
        let of_engine = |kind| Error::from(tenant_engine::Error::new(kind, "x"));
        assert_eq!(after(of_catalog(catalog::ErrorKind::DiskFull)).as_deref(), Some("10"));
        assert_eq!(after(of_engine(tenant_engine::ErrorKind::DiskFull)).as_deref(), Some("10"));
        assert_eq!(after(Error::new(ErrorKind::DiskFull, "the backup store's")).as_deref(), Some("10"));
        assert_eq!(after(of_catalog(catalog::ErrorKind::Unavailable)).as_deref(), Some("1"));
        assert_eq!(after(of_engine(tenant_engine::ErrorKind::ServerUnreachable)).as_deref(), Some("1"));
        assert_eq!(after(of_engine(tenant_engine::ErrorKind::ConnectionLost)), None);
        assert_eq!(after(of_catalog(catalog::ErrorKind::Refused)), None);
        assert_eq!(after(of_catalog(catalog::ErrorKind::ReadOnlyStorage)), None);
    }

    #[test]
    fn the_owner_of_the_process_reads_the_cause_once() {
        let inner = Error::internal("disk on fire");
        let problem: Problem = Error::internal("cannot read: disk on fire").with_source(inner).into();
        assert_eq!(problem.problem_body("req_1", ErrorAudience::Owner).detail, "cannot read: disk on fire");
        let problem: Problem = Error::internal("cannot read").with_source(Error::internal("disk on fire")).into();
        assert_eq!(problem.problem_body("req_1", ErrorAudience::Owner).detail, "cannot read: disk on fire");
        let refused: Problem = Error::new(ErrorKind::Invalid, "no").with_source(Error::internal("inside")).into();
        assert_eq!(refused.problem_body("req_1", ErrorAudience::Owner).detail, "no");
    }

    #[test]
    fn everything_else_says_what_happened_and_what_helps() {
        let problem = Problem::not_found("no tenant 'acme'").try_next("fleetctl tenant list");
        let body = serde_json::to_value(problem.problem_body("req_1", ErrorAudience::Stranger)).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "urn:fleet:problem:not_found", "title": "Not found", "status": 404,
                "detail": "no tenant 'acme'", "instance": "urn:fleet:request:req_1", "code": "not_found",
                "request_id": "req_1", "next_steps": ["fleetctl tenant list"]
            })
        );
    }
}
