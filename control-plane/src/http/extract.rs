//! Extracts bodies, queries and path parameters. Refusals say what is expected.
//!
//! axum's own extractors refuse in plain text; these refuse as a [`Problem`]. The status is 415 for another content
//! type, 400 for invalid JSON, and 413 for too much. For JSON of another shape it is 422, naming the field.

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
use crate::error::ErrorKind;

/// How long a body may take to arrive. A client that needs longer for 32 MiB is broken or hostile, and holds a
/// connection and memory.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Advice for a caller whose body has another shape.
const SEE_BODY: &str = "send only fields of this path; /openapi.json lists them";
/// Advice for a caller that sent other parameters.
pub(crate) const SEE_QUERY: &str = "send only parameters of this path; /openapi.json lists them";

/// A JSON body of a request or response. An absent body is read as `{}`, so that requests without options need none.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

/// The query string. Unknown fields are refused if `T` refuses them.
#[derive(Debug)]
pub(crate) struct QueryParams<T>(pub(crate) T);

/// The parameters in the path.
#[derive(Debug)]
pub(crate) struct PathParams<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
        let body = in_time(Bytes::from_request(request, state)).await?.map_err(body_unreadable)?;
        if body.is_empty() {
            return parse_json(b"{}").map(Self);
        }
        let is_json = content_type.as_ref().and_then(|value| value.to_str().ok()).is_some_and(is_json);
        if !is_json {
            let detail = "the body must be JSON: send `Content-Type: application/json`";
            return Err(Problem::new(ErrorKind::UnsupportedMediaType, detail));
        }
        parse_json(&body).map(Self)
    }
}

impl<T: Serialize> IntoResponse for JsonBody<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refused = |error: axum::extract::rejection::QueryRejection| {
            let detail = error.body_text();
            let detail = detail.strip_prefix("Failed to deserialize query string: ").unwrap_or(&detail).to_owned();
            Problem::new(ErrorKind::InvalidQuery, detail).try_next(SEE_QUERY)
        };
        axum::extract::Query::from_request_parts(parts, state).await.map(|query| Self(query.0)).map_err(refused)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refused =
            |error: axum::extract::rejection::PathRejection| Problem::new(ErrorKind::InvalidPath, error.body_text());
        axum::extract::Path::from_request_parts(parts, state).await.map(|path| Self(path.0)).map_err(refused)
    }
}

/// `application/json` and `application/<anything>+json`, with or without parameters.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Parses a `T`. A refusal names the place and the field.
pub(crate) fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // Tracking the place of an error costs time, so it is done only after an error.
    let read = match serde_json::from_slice(body) {
        Ok(read) => read,
        Err(_) => parse_with_path(body)?,
    };
    match body.trim_ascii_start().first() {
        Some(b'{') => Ok(read),
        // A list would be read as the fields of an object, in their order.
        _ => Err(Problem::invalid("the body: expected an object").try_next(SEE_BODY)),
    }
}

fn parse_with_path<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut json).map_err(refuse_json)?;
    json.end().map_err(not_json)?;
    Ok(read)
}

fn refuse_json(error: serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let field = error.path().to_string();
    match error.inner().classify() {
        serde_json::error::Category::Data if field == "." => Problem::invalid(format!("the body: {}", error.inner())),
        serde_json::error::Category::Data => Problem::invalid(format!("{field}: {}", error.inner())),
        _ => return not_json(error.into_inner()),
    }
    .try_next(SEE_BODY)
}

fn not_json(error: serde_json::Error) -> Problem {
    Problem::new(ErrorKind::InvalidJson, format!("the body is not valid JSON: {error}")).try_next(SEE_BODY)
}

fn body_unreadable(error: BytesRejection) -> Problem {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        status => of_status(status),
    }
}

/// Waits for a body. 408 if it takes too long.
pub(crate) async fn in_time<T>(read: impl Future<Output = T>) -> Result<T, Problem> {
    read_within(BODY_TIMEOUT, read).await
}

async fn read_within<T>(limit: Duration, read: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(limit, read).await.map_err(|_| {
        let detail = format!("the body did not arrive within {} seconds", limit.as_secs());
        Problem::new(ErrorKind::BodyTimeout, detail)
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
            ("{", 400, "not valid JSON"),
            ("{}", 422, "missing field `name`"),
            (r#"{"name":1}"#, 422, "expected a string"),
            (r#"{"name":"a","nmae":"b"}"#, 422, "unknown field `nmae`"),
            ("\u{0}", 400, "not valid JSON"),
        ] {
            let problem = parse_json::<Body>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.http_status().as_u16(), status, "{body}");
            assert!(problem.as_error().detail.contains(words), "{body}: {}", problem.as_error().detail);
        }
    }

    #[test]
    fn deep_nesting_is_refused_not_followed() {
        let problem = parse_json::<serde_json::Value>("[".repeat(10_000).as_bytes()).unwrap_err();
        assert_eq!(problem.as_error().code(), "invalid_json");
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_given_up() {
        let problem = read_within(Duration::from_millis(1), std::future::pending::<()>()).await.unwrap_err();
        assert_eq!((problem.http_status().as_u16(), problem.as_error().code()), (408, "body_timeout"));
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
