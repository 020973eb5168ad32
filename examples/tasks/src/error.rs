//! The answers for refused requests: `application/problem+json` with a code and the next step.
//!
//! The router's errors already have this form, and pass unchanged. The errors of the control plane become problems of this
//! application, because their advice is for operators.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// The result of every handler.
pub type Result<T, E = RequestError> = std::result::Result<T, E>;

/// A request that was refused or failed.
#[derive(Debug)]
pub enum RequestError {
    /// The router or the organisation's database refused it.
    Router(tenant_router::Error),
    /// This application refused it.
    Refused(Refusal),
}

/// A refusal by this application.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    code: &'static str,
    title: String,
    next_step: &'static str,
}

impl RequestError {
    /// A refusal: a stable code for programs, a sentence for people, and what they can do.
    pub fn new(status: StatusCode, code: &'static str, title: impl Into<String>, next_step: &'static str) -> Self {
        Self::Refused(Refusal { status, code, title: title.into(), next_step })
    }

    /// A field that breaks a rule.
    pub fn invalid(title: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", title, "Correct the field and send the form again.")
    }

    /// A row that the organisation's database does not have.
    pub fn not_found(title: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", title, "Go back to the list and choose again.")
    }
}

/// The answer for a path without a route.
pub(crate) async fn unknown_route() -> RequestError {
    RequestError::not_found("This address does not exist")
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        let refusal = match self {
            Self::Router(error) => return error.into_response(),
            Self::Refused(refusal) => refusal,
        };
        let body = json!({
            "type": format!("urn:tasks:problem:{}", refusal.code),
            "title": refusal.title,
            "status": refusal.status.as_u16(),
            "code": refusal.code,
            "next_steps": [refusal.next_step],
        });
        let content_type = HeaderValue::from_static("application/problem+json");
        (refusal.status, [(header::CONTENT_TYPE, content_type)], body.to_string()).into_response()
    }
}

impl From<tenant_router::Error> for RequestError {
    fn from(error: tenant_router::Error) -> Self {
        Self::Router(error)
    }
}

impl From<fleet_client::Error> for RequestError {
    fn from(error: fleet_client::Error) -> Self {
        tracing::warn!(code = error.code(), causes = ?error.causes(), %error, "the control plane refused a request");
        match error.is_transient() {
            true => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "fleet_unavailable",
                "Organisations and members cannot be changed now",
                "Send the form again in a minute. Nothing is made twice.",
            ),
            false => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "fleet_failed",
                "The organisation or its members could not be changed",
                "Ask the operator of this service, who finds the cause in its log.",
            ),
        }
    }
}
