//! Bodies, queries and path parameters, with refusals that say what is expected.
//!
//! axum's own extractors refuse in plain text; these refuse as a [`Problem`]: 415 for another content type, 400 for what
//! is no JSON, 413 for too much, 422 for JSON of another shape, naming the field.

use std::future::Future;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Problem, of_status, too_large};

/// A client that needs longer for 32 MiB is broken or hostile; meanwhile it holds a connection and memory.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What helps a caller that sent a body of another shape.
const SEE_BODY: &str = "send the fields that this path knows; the admin API's are in /openapi.json";
/// What helps a caller that sent other parameters.
pub(crate) const SEE_QUERY: &str = "send the parameters that this path knows; the admin API's are in /openapi.json";

/// A JSON body, in or out. An absent body is read as `{}`, so that requests without options need none.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

/// The query string; unknown fields are refused when `T` says so.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

/// The parameters in the path.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
        let body = in_time(Bytes::from_request(request, state)).await?.map_err(unreadable)?;
        if body.is_empty() {
            return parse(b"{}").map(Self);
        }
        let is_json = content_type.as_ref().and_then(|value| value.to_str().ok()).is_some_and(is_json);
        if !is_json {
            let detail = "the body must be JSON: send `Content-Type: application/json`";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
        }
        parse(&body).map(Self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refused = |error: axum::extract::rejection::QueryRejection| {
            let detail = error.body_text();
            let detail = detail.strip_prefix("Failed to deserialize query string: ").unwrap_or(&detail).to_owned();
            Problem::new(StatusCode::BAD_REQUEST, "invalid_query", detail).try_next(SEE_QUERY)
        };
        axum::extract::Query::from_request_parts(parts, state).await.map(|query| Self(query.0)).map_err(refused)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refused = |error: axum::extract::rejection::PathRejection| {
            Problem::new(StatusCode::BAD_REQUEST, "invalid_path", error.body_text())
        };
        axum::extract::Path::from_request_parts(parts, state).await.map(|path| Self(path.0)).map_err(refused)
    }
}

/// `application/json` and `application/<anything>+json`, with or without parameters.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// A value of `T`, or a refusal that names place and field.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut json).map_err(refused)?;
    json.end().map_err(not_json)?;
    match body.trim_ascii_start().first() {
        Some(b'{') => Ok(read),
        // A list would be read as the fields of an object, one after the other.
        _ => Err(Problem::invalid("the body: expected an object").try_next(SEE_BODY)),
    }
}

fn refused(error: serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let field = error.path().to_string();
    match error.inner().classify() {
        serde_json::error::Category::Data if field == "." => Problem::invalid(format!("the body: {}", error.inner())),
        serde_json::error::Category::Data => Problem::invalid(format!("{field}: {}", error.inner())),
        _ => return not_json(error.into_inner()),
    }
    .try_next(SEE_BODY)
}

fn not_json(error: serde_json::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body is not JSON: {error}")).try_next(SEE_BODY)
}

fn unreadable(error: BytesRejection) -> Problem {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        status => of_status(status),
    }
}

/// What reads a body, or 408 when it takes too long.
pub(crate) async fn in_time<T>(read: impl Future<Output = T>) -> Result<T, Problem> {
    within(BODY_TIMEOUT, read).await
}

async fn within<T>(limit: Duration, read: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(limit, read).await.map_err(|_| {
        let detail = format!("the body did not arrive within {} seconds", limit.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail)
    })
}

/// A header as text; `None` when absent or not text.
pub(crate) fn text_header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[expect(dead_code, reason = "only its shape matters")]
        name: String,
    }

    #[test]
    fn refusals_say_where_and_what() {
        for (body, status, words) in [
            ("{", 400, "not JSON"),
            ("{}", 422, "missing field `name`"),
            (r#"{"name":1}"#, 422, "expected a string"),
            (r#"{"name":"a","nmae":"b"}"#, 422, "unknown field `nmae`"),
            ("\u{0}", 400, "not JSON"),
        ] {
            let problem = parse::<Body>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.error().status, status, "{body}");
            assert!(problem.error().detail.contains(words), "{body}: {}", problem.error().detail);
        }
    }

    #[test]
    fn deep_nesting_is_refused_not_followed() {
        let problem = parse::<serde_json::Value>("[".repeat(10_000).as_bytes()).unwrap_err();
        assert_eq!(problem.error().code, "invalid_json");
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_given_up() {
        let problem = within(Duration::from_millis(1), std::future::pending::<()>()).await.unwrap_err();
        assert_eq!((problem.error().status, problem.error().code.as_ref()), (408, "body_timeout"));
    }

    #[test]
    fn only_json_is_json() {
        assert!(is_json("application/json"));
        assert!(is_json("Application/JSON; charset=utf-8"));
        assert!(is_json("application/merge-patch+json"));
        assert!(!is_json("text/plain"));
        assert!(!is_json("application/jsonp"));
    }
}
