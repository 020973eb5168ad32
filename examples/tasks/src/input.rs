//! What requests may contain: ids in the path, JSON bodies, and texts with a length and without control characters.

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Json, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::{RequestError, Result, unknown_route};

/// The ids in the path of a request. The organisation's name is for the router, and is not among them.
#[derive(Debug)]
pub struct RowPath<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for RowPath<T> {
    type Rejection = RequestError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(ids)) => Ok(Self(ids)),
            Err(_) => Err(unknown_route().await),
        }
    }
}

/// The JSON body of a request. Refuses another content type, and a body that is too large or does not fit.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = RequestError;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(body_refusal(&rejection)),
        }
    }
}

fn body_refusal(rejection: &JsonRejection) -> RequestError {
    match rejection.status() {
        // The text names the field, for instance a date that does not exist.
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST => {
            let text = rejection.body_text();
            RequestError::invalid(text.split_once(": ").map_or(&*text, |(_, cause)| cause))
        }
        status => RequestError::new(status, "body_refused", rejection.body_text(), "Send a smaller body as JSON."),
    }
}

/// A text of one line, with 1 to `max` characters. Spaces at its ends do not count.
///
/// # Errors
/// A refusal that names the field.
pub fn checked_line(field: &str, text: &str, max: usize) -> Result<String> {
    let line = text.trim();
    if line.is_empty() {
        return Err(RequestError::invalid(format!("The field {field} is empty")));
    }
    if line.contains(char::is_control) {
        return Err(RequestError::invalid(format!("The field {field} has more than one line")));
    }
    checked_text(field, line, max)
}

/// A text of any number of lines, with at most `max` characters.
///
/// # Errors
/// A refusal that names the field.
pub fn checked_text(field: &str, text: &str, max: usize) -> Result<String> {
    let text = text.trim();
    let length = text.chars().count();
    if length > max {
        return Err(RequestError::invalid(format!("The field {field} has {length} characters, and may have {max}")));
    }
    if text.contains('\0') {
        return Err(RequestError::invalid(format!("The field {field} contains a character that is not text")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_trimmed_and_has_a_length() {
        assert_eq!(checked_line("title", "  buy milk ", 8).unwrap(), "buy milk");
        assert_eq!(checked_text("notes", "a\nb\n", 3).unwrap(), "a\nb");
        for wrong in ["", "   ", "a\nb", "a\u{7}b", "too long for it"] {
            assert!(checked_line("title", wrong, 8).is_err(), "{wrong:?}");
        }
        assert!(checked_text("notes", "a\0b", 8).is_err());
        assert!(checked_line("title", &"é".repeat(8), 8).is_ok(), "characters are counted, not bytes");
    }
}
