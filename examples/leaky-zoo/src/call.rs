//! A request as a leak reads it: which route, which organisation, and with which credential.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{OriginalUri, Request};
use axum::http::{StatusCode, Uri, header};
use axum::response::Response;
use serde_json::Value;
use tasks::error::{RequestError, Result};
use tenant_router::{AccessLevel, RequestView, Tenant};

use crate::shortcuts::everywhere;
use crate::zoo::Zoo;

/// More than any body or answer of the application.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// What names the route, the organisation and the caller.
#[derive(Debug, Clone)]
pub struct ApiCall {
    /// The method, in capital letters.
    pub method: String,
    /// The organisation that the path names; empty for other paths.
    pub organisation: String,
    /// The part of the path after `/orgs/{organisation}/api`; the whole path if it has another form.
    pub route: String,
    /// The query, without its question mark.
    pub query: String,
    /// The secret after `Bearer `.
    pub credential: Option<String>,
    path: String,
}

impl ApiCall {
    /// Reads the head of a request.
    pub fn of(request: &Request) -> Self {
        let path = request.uri().path().to_owned();
        let below = path.strip_prefix("/orgs/").and_then(|rest| rest.split_once('/'));
        let (organisation, rest) = below.unwrap_or_default();
        let route = rest.strip_prefix("api").filter(|route| route.starts_with('/')).unwrap_or(&path);
        let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        Self {
            method: request.method().to_string(),
            organisation: organisation.to_owned(),
            route: route.to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            credential: header.and_then(|text| text.strip_prefix("Bearer ")).map(str::to_owned),
            path,
        }
    }

    /// True for this method and this route of an organisation.
    pub fn is(&self, method: &str, route: &str) -> bool {
        self.method == method && self.route == route
    }

    /// True for a route of an organisation's API.
    pub fn is_api(&self) -> bool {
        !self.organisation.is_empty() && self.route != self.path
    }

    /// True for a request that may change something.
    pub fn is_change(&self) -> bool {
        self.method != "GET"
    }

    /// The last part of the path as the id of a row, if the rest is this method and route.
    pub fn row_id(&self, method: &str, route: &str) -> Option<i64> {
        let id = self.route.strip_prefix(route).filter(|_| self.method == method)?;
        id.strip_prefix('/')?.parse().ok()
    }

    /// The value of a parameter of the query, which needs no decoding.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
    }

    /// Opens the organisation that the path names, if the caller may. This is the correct way.
    ///
    /// # Errors
    /// Those of the router.
    pub async fn open<A: AccessLevel>(&self, zoo: &Zoo) -> Result<Tenant<A>> {
        let (credential, path) = (self.credential.as_deref(), &*self.path);
        let request = RequestView { credential, path, ..RequestView::default() };
        Ok(zoo.router().open(&request).await?)
    }

    /// True for a caller whose credential is valid, whatever it may open.
    pub async fn is_signed_in(&self, zoo: &Zoo) -> bool {
        zoo.router().principal(self.credential.as_deref()).await.is_ok()
    }
}

/// Sends the request to the same route of another organisation, with the rights of the program instead of the caller.
/// A text that cannot be a part of a path changes nothing.
pub fn readdress(request: &mut Request, organisation: &str) {
    let call = ApiCall::of(request);
    let query = if call.query.is_empty() { String::new() } else { format!("?{}", call.query) };
    let rest = call.path.strip_prefix(&format!("/orgs/{}", call.organisation)).unwrap_or_default();
    let target = format!("/orgs/{organisation}{rest}{query}");
    if let Ok(target) = target.parse() {
        readdress_to(request, target);
    }
}

/// Sends the request to another address, with the rights of the program instead of the caller.
pub fn readdress_to(request: &mut Request, target: Uri) {
    *request.uri_mut() = target.clone();
    // The router reads the path that the request came with.
    request.extensions_mut().insert(OriginalUri(target));
    request.extensions_mut().insert(everywhere());
}

/// The request and its body, which the request keeps.
///
/// # Errors
/// For a body that is too large.
pub async fn read_body(request: Request) -> Result<(Request, Bytes)> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BYTES_MAX).await.map_err(|_| RequestError::invalid("The body cannot be read"))?;
    Ok((Request::from_parts(parts, Body::from(body.clone())), body))
}

/// As [`read_body`], as JSON. Another body is null.
///
/// # Errors
/// As [`read_body`].
pub async fn read_json(request: Request) -> Result<(Request, Value)> {
    let (request, body) = read_body(request).await?;
    Ok((request, serde_json::from_slice(&body).unwrap_or_default()))
}

/// The answer and its body, which the answer keeps.
///
/// # Errors
/// For a body that cannot be read.
pub async fn read_answer(response: Response) -> Result<(Response, Bytes)> {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, BYTES_MAX).await.map_err(|_| {
        let title = "The answer cannot be read";
        RequestError::new(StatusCode::BAD_GATEWAY, "answer_unreadable", title, "Send the request again.")
    })?;
    Ok((Response::from_parts(parts, Body::from(body.clone())), body))
}
