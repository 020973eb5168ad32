//! [`RealtimeRequest`]: answers a request for live messages, by a WebSocket or by server-sent events.
//!
//! Browsers send cookies also with a WebSocket that a page of another site opens, and ask no permission before. So the origin
//! of the page is checked here, for both kinds.

use std::sync::Arc;

use ::axum::extract::ws::WebSocketUpgrade;
use ::axum::extract::{FromRequestParts, OriginalUri};
use ::axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderName, header};
use secrecy::SecretString;

use super::{bearer_token, event_stream, request_host, single_header, websocket};
use crate::error::{Error, ErrorKind};
use crate::principal::Principal;
use crate::realtime::{SubscriptionRequest, TenantTopic};
use crate::tenant::AccessLevel;

/// The number of the last event that an `EventSource` has seen.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The parameter of the query with the same number, for a WebSocket.
const AFTER: &str = "after";

/// A request for the messages of a topic. An extractor, beside the one of the tenant:
///
/// ```
/// use axum::response::Response;
/// use tenant_router::axum::RealtimeRequest;
/// use tenant_router::{Error, Read, Tenant};
///
/// async fn live(tenant: Tenant<Read>, request: RealtimeRequest) -> Result<Response, Error> {
///     request.answer(tenant.topic("tasks")?).await
/// }
/// ```
/// The answer is a WebSocket if the request asks for one, and otherwise an event stream. Both go in one direction: a client
/// that sends data over the WebSocket is disconnected, and sends its changes as other requests.
#[derive(Debug)]
pub struct RealtimeRequest {
    upgrade: Option<WebSocketUpgrade>,
    credential: Option<SecretString>,
    after: Option<i64>,
    page: PageOrigin,
}

/// Where the page says that it comes from, and where the request went to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PageOrigin {
    origin: Option<String>,
    host: Option<String>,
    allowed: Vec<String>,
}

impl PageOrigin {
    /// True for a page of this host or of an allowed origin, and for programs, which send no origin.
    fn is_allowed(&self) -> bool {
        let Some(origin) = &self.origin else { return true };
        let own = origin.split_once("://").map(|(_, authority)| authority);
        let is_own = own.zip(self.host.as_deref()).is_some_and(|(own, host)| own.eq_ignore_ascii_case(host));
        is_own || self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RealtimeRequest {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        // Some programs offer HTTP/2 in this header.
        let is_upgrade =
            parts.headers.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let upgrade = match is_upgrade {
            true => {
                Some(WebSocketUpgrade::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)?)
            }
            false => None,
        };
        Self::read_parts(parts, upgrade).map_err(|kind| Error::new(kind).into_response())
    }
}

impl RealtimeRequest {
    fn read_parts(parts: &Parts, upgrade: Option<WebSocketUpgrade>) -> Result<Self, ErrorKind> {
        let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
        let origin = single_header(&parts.headers, header::ORIGIN).map_err(|_| ErrorKind::OriginRefused)?;
        let host = request_host(uri, &parts.headers)?.map(str::to_owned);
        let page = PageOrigin { origin: origin.map(str::to_owned), host, allowed: Vec::new() };
        // An application with its own login has proved the principal, and the extractor of the tenant ignores tokens then.
        let is_proven = parts.extensions.get::<Arc<Principal>>().is_some();
        let credential = bearer_token(&parts.headers).filter(|_| !is_proven).map(SecretString::from);
        let header = single_header(&parts.headers, LAST_EVENT_ID).ok().flatten();
        // The header is newer: the browser sets it when it connects again, with the old address.
        let after = header.or_else(|| query_value(uri.query().unwrap_or_default(), AFTER)).map(read_position);
        Ok(Self { upgrade, credential, after, page })
    }

    /// Also accepts pages of these origins, such as `https://app.example.com`. Pages of the own host are always accepted.
    #[must_use]
    pub fn allow_origins<'a>(mut self, origins: impl IntoIterator<Item = &'a str>) -> Self {
        self.page.allowed.extend(origins.into_iter().map(str::to_owned));
        self
    }

    /// Subscribes to the topic, and answers with its messages until the client leaves or the subscription ends.
    ///
    /// # Errors
    /// `OriginRefused` for a page of another site; those of [`TenantTopic::subscribe`].
    pub async fn answer<A: AccessLevel>(self, topic: TenantTopic<'_, A>) -> Result<Response, Error> {
        if !self.page.is_allowed() {
            return Err(ErrorKind::OriginRefused.into());
        }
        let request = match self.credential {
            Some(credential) => SubscriptionRequest::proven_by(credential),
            None => SubscriptionRequest::proven_by_application(),
        };
        let request = match self.after {
            Some(after) => request.resume_after(after),
            None => request,
        };
        let subscription = topic.subscribe(request).await?;
        Ok(match self.upgrade {
            Some(upgrade) => websocket::answer_upgrade(upgrade, subscription),
            None => event_stream::answer_stream(subscription),
        })
    }
}

/// The number in a text. Another text stands for a position that nobody has, so that the client is told to reload.
fn read_position(text: &str) -> i64 {
    text.parse().ok().filter(|seq| *seq >= 0).unwrap_or(i64::MAX)
}

/// The value of a parameter that needs no decoding.
fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_own_host_and_of_allowed_origins_are_accepted() {
        let page = |origin: Option<&str>, host: Option<&str>| PageOrigin {
            origin: origin.map(str::to_owned),
            host: host.map(str::to_owned),
            allowed: vec!["https://app.example".to_owned()],
        };
        for (origin, expected) in [
            (None, true),
            (Some("https://tasks.example"), true),
            (Some("https://TASKS.example"), true),
            (Some("https://app.example"), true),
            (Some("http://app.example"), false),
            (Some("https://evil.example"), false),
            (Some("https://tasks.example.evil.example"), false),
            (Some("https://tasks.example:81"), false),
            (Some("tasks.example"), false),
            (Some("null"), false),
            (Some(""), false),
        ] {
            assert_eq!(page(origin, Some("tasks.example")).is_allowed(), expected, "{origin:?}");
        }
        assert!(!page(Some("https://tasks.example"), None).is_allowed());
    }

    #[test]
    fn a_position_that_is_no_number_is_one_that_nobody_has() {
        for (text, expected) in [("17", 17), ("0", 0), ("-1", i64::MAX), ("x", i64::MAX), ("", i64::MAX)] {
            assert_eq!(read_position(text), expected, "{text}");
        }
        assert_eq!(query_value("a=1&after=7", AFTER), Some("7"));
        assert_eq!(query_value("afterwards=7", AFTER), None);
    }
}
