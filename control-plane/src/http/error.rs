//! Errors as `application/problem+json` (RFC 9457).
//!
//! A handler returns a [`Problem`]; its response carries it as an extension with no body, and the outermost middleware
//! ([`super::middleware`]) writes the body, because only it knows the request. So errors that axum makes itself get the
//! same shape.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{Error, ItemError};

/// The result of a handler of this API.
pub(crate) type Result<T, E = Problem> = std::result::Result<T, E>;

/// The media type of every error.
pub(crate) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The error of a request, before its body is written.
#[derive(Debug)]
pub(crate) struct Problem {
    error: Box<Error>,
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

/// One invalid entry of a list in the request's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct BadLine {
    /// Position of the entry in the list, from 0.
    pub(crate) index: usize,
    /// Name of the entry as it was sent, shortened.
    pub(crate) name: String,
    /// Description of the error in the entry.
    pub(crate) detail: String,
}

/// The body of every error.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ProblemBody {
    /// URI of the kind of problem: `urn:fleet:problem:<code>`.
    #[serde(rename = "type")]
    pub(crate) type_uri: String,
    /// Short name of the kind of problem, for people.
    pub(crate) title: String,
    /// HTTP status of the response.
    pub(crate) status: u16,
    /// Description of what happened, for people.
    pub(crate) detail: String,
    /// URI of this occurrence: `urn:fleet:request:<request_id>`. It does not contain the path, so that the answers
    /// about an unknown and a foreign tenant do not differ.
    pub(crate) instance: String,
    /// Stable error code, for programs.
    pub(crate) code: String,
    /// Id of the request, to find it in the log.
    pub(crate) request_id: String,
    /// Advice, most helpful first.
    pub(crate) next_steps: Vec<String>,
    /// Invalid entries of a list in the request, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<BadLine>,
}

impl BadLine {
    fn new(item: &ItemError) -> Self {
        Self { index: item.index, name: item.name.clone(), detail: item.detail.clone() }
    }
}

impl<E: Into<Error>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self { error: Box::new(error.into()) }
    }
}

impl Problem {
    /// A problem with this status, code and detail.
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Error::new(status.as_u16(), code, detail).into()
    }

    /// A 422 problem: well-formed, but not what is expected.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    /// 404 for `what` (a noun and the name it was asked for).
    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", what)
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

    /// The HTTP status. An invalid one becomes 500.
    pub(crate) fn http_status(&self) -> StatusCode {
        StatusCode::from_u16(self.error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
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
            type_uri: format!("urn:fleet:problem:{}", self.error.code),
            title: code_title(&self.error.code),
            status: self.http_status().as_u16(),
            detail,
            instance: format!("urn:fleet:request:{request_id}"),
            code: self.error.code.clone().into_owned(),
            request_id: request_id.to_owned(),
            next_steps: self.error.next_steps.clone(),
            errors: self.error.items.iter().map(BadLine::new).collect(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.http_status().into_response();
        if let Some(seconds) = self.error.retry_after() {
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
            Problem::new(status, "method_not_allowed", detail)
        }
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ if status.is_server_error() => Problem::new(status, "internal", "internal error"),
        _ => Problem::new(status, "invalid", status.canonical_reason().unwrap_or("the request is not valid")),
    }
}

/// The 413 problem.
pub(crate) fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the body is larger than this path accepts")
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
        let problem: Problem = Error::new(500, "catalog_corrupt", "row 7 of /srv/secret").into();
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
        assert_eq!(after(Error::new(507, "disk_full", "the backup store's")).as_deref(), Some("10"));
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
        let refused: Problem = Error::new(422, "invalid", "no").with_source(Error::internal("inside")).into();
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
