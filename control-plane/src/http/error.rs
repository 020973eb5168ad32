//! Errors as `application/problem+json` (RFC 9457).
//!
//! A handler returns a [`Problem`]; its response carries it as an extension with no body, and the outermost middleware
//! ([`super::middleware`]) writes the body, because only it knows the request. So errors that axum makes itself get the
//! same shape.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{Error, Item};

/// What a handler of this API returns.
pub(crate) type Result<T, E = Problem> = std::result::Result<T, E>;

/// The media type of every error.
pub(crate) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The error of a request, before it is written.
#[derive(Debug)]
pub(crate) struct Problem {
    error: Box<Error>,
}

/// Who reads an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// The human at this very process, who owns its data directory: there is no log beside the answer, and nothing in it
    /// that this reader may not know.
    Owner,
    /// Whoever reached a socket.
    Stranger,
}

/// One bad entry of a list in the request's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct BadLine {
    /// Which, from 0.
    pub(crate) index: usize,
    /// As it was sent, shortened.
    pub(crate) name: String,
    /// What is wrong with it.
    pub(crate) detail: String,
}

/// The body of every error.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ProblemBody {
    /// Names the kind of problem: `urn:fleet:problem:<code>`.
    #[serde(rename = "type")]
    pub(crate) type_uri: String,
    /// The kind in words.
    pub(crate) title: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// What happened, for a human.
    pub(crate) detail: String,
    /// This very occurrence: `urn:fleet:request:<request_id>`. Not the path, so that the answers about an unknown and a
    /// foreign tenant are the same bytes.
    pub(crate) instance: String,
    /// The stable code that scripts compare.
    pub(crate) code: String,
    /// Finds the request in the log.
    pub(crate) request_id: String,
    /// What helps, most helpful first.
    pub(crate) next_steps: Vec<String>,
    /// Each bad entry of a list, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<BadLine>,
}

impl BadLine {
    fn new(item: &Item) -> Self {
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

    /// 422: well-formed, but not what is expected.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    /// 404 for `what` (a noun and the name it was asked for).
    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", what)
    }

    /// The same, naming what helps.
    pub(crate) fn try_next(mut self, step: impl Into<String>) -> Self {
        self.error.next_steps.push(step.into());
        self
    }

    /// What went wrong.
    pub(crate) fn error(&self) -> &Error {
        &self.error
    }

    /// The HTTP status; an impossible one is a 500.
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What the client reads. A 500 tells a stranger nothing but its code: what happened inside is the log's.
    pub(crate) fn body(&self, request_id: &str, reader: Reader) -> ProblemBody {
        let hidden = self.status() == StatusCode::INTERNAL_SERVER_ERROR;
        let detail = match reader {
            Reader::Owner if hidden => self.error.with_causes(),
            Reader::Stranger if hidden => "the server met a fault; its log tells more under this request_id".to_owned(),
            _ => self.error.detail.clone(),
        };
        ProblemBody {
            type_uri: format!("urn:fleet:problem:{}", self.error.code),
            title: title(&self.error.code),
            status: self.status().as_u16(),
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
        let mut response = self.status().into_response();
        if let Some(seconds) = self.error.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(std::sync::Arc::new(self));
        response
    }
}

/// The problem behind a status that something below the handlers answered.
pub(crate) fn of_status(status: StatusCode) -> Problem {
    match status {
        StatusCode::NOT_FOUND => Problem::not_found("there is nothing at this path").try_next("see /openapi.json"),
        StatusCode::METHOD_NOT_ALLOWED => {
            let detail = "this path does not know that method; the Allow header names those it knows";
            Problem::new(status, "method_not_allowed", detail)
        }
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ if status.is_server_error() => Problem::new(status, "internal", "the server met a fault"),
        _ => Problem::new(status, "invalid", status.canonical_reason().unwrap_or("the request is not valid")),
    }
}

/// 413.
pub(crate) fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the body is larger than this path accepts")
}

/// `count_mismatch` → `Count mismatch`.
fn title(code: &str) -> String {
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
        let body = problem.body("req_1", Reader::Stranger);
        assert_eq!((body.code.as_str(), body.status), ("catalog_corrupt", 500));
        assert!(!serde_json::to_string(&body).unwrap().contains("secret"));
    }

    #[test]
    fn the_owner_of_the_process_reads_the_cause_once() {
        let inner = Error::internal("disk on fire");
        let problem: Problem = Error::internal("cannot read: disk on fire").with_source(inner).into();
        assert_eq!(problem.body("req_1", Reader::Owner).detail, "cannot read: disk on fire");
        let problem: Problem = Error::internal("cannot read").with_source(Error::internal("disk on fire")).into();
        assert_eq!(problem.body("req_1", Reader::Owner).detail, "cannot read: disk on fire");
        let refused: Problem = Error::new(422, "invalid", "no").with_source(Error::internal("inside")).into();
        assert_eq!(refused.body("req_1", Reader::Owner).detail, "no");
    }

    #[test]
    fn everything_else_says_what_happened_and_what_helps() {
        let problem = Problem::not_found("no tenant 'acme'").try_next("fleetctl tenant list");
        let body = serde_json::to_value(problem.body("req_1", Reader::Stranger)).unwrap();
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
