//! The session: a cookie with the token of a member. The router reads the token as if it came in `Authorization`.
//!
//! A browser also sends a cookie with requests that other sites cause. So a request with the cookie may change something
//! only if it comes from this application's own page. `README.md` tells how an identity provider replaces this file.

use std::time::Duration;

use axum::extract::{OriginalUri, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_router::{ErrorKind, Read, RequestView, Role, Tenant};

use crate::Application;
use crate::error::{RequestError, Result};
use crate::input::JsonBody;

/// The name of the cookie.
const COOKIE: &str = "tasks_session";
/// How long a browser stays signed in: 90 days.
pub(crate) const SESSION_MAX: Duration = Duration::from_secs(90 * 24 * 3_600);

pub(crate) fn routes() -> Router<Application> {
    Router::new()
        .route("/session", routing::get(show_session).post(sign_in).delete(sign_out))
        .route("/session/support", routing::post(begin_support))
}

/// The token of a sign-in link.
#[derive(Debug, Deserialize)]
struct SignInLink {
    token: SecretString,
}

/// The ticket of `fleetctl tenant impersonate`.
#[derive(Debug, Deserialize)]
struct SupportTicket {
    ticket: SecretString,
}

/// Who is signed in, and to which organisation.
#[derive(Debug, Serialize)]
struct SessionView {
    organisation: String,
    title: String,
    person: String,
    name: Option<String>,
    role: Role,
    /// The operator who acts as this person. The page shows it.
    staff: Option<String>,
}

async fn show_session(tenant: Tenant<Read>) -> Result<Json<SessionView>> {
    let sql = "select title, (select name from people where id = $1) from organisation";
    let (principal, organisation) = (tenant.principal(), tenant.name().to_owned());
    let (person, staff) = (principal.name().to_owned(), principal.staff().map(str::to_owned));
    let (title, name) = tenant.query_as(sql, [&*person]).fetch_one().await?;
    Ok(Json(SessionView { organisation, title, name, person, role: tenant.role(), staff }))
}

/// Exchanges the token of a link for a cookie, if the token opens this organisation. Answers the name of the organisation,
/// because the cookie is for this name, and the address may have a former one.
async fn sign_in(
    State(application): State<Application>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    JsonBody(link): JsonBody<SignInLink>,
) -> Result<Response> {
    signed_in(&application, uri.path(), &headers, &link.token).await
}

/// Exchanges the ticket of an operator for a session as a member. The organisation sees it in its audit log.
async fn begin_support(
    State(application): State<Application>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    JsonBody(support): JsonBody<SupportTicket>,
) -> Result<Response> {
    let request = RequestView { path: uri.path(), ..RequestView::default() };
    let session = application.router.start_impersonation(&request, support.ticket.expose_secret()).await?;
    signed_in(&application, uri.path(), &headers, &session.secret).await
}

/// The answer with the cookie, if the token opens the organisation that the path names.
async fn signed_in(
    application: &Application,
    path: &str,
    headers: &HeaderMap,
    token: &SecretString,
) -> Result<Response> {
    let request = RequestView { credential: Some(token.expose_secret()), path, ..RequestView::default() };
    let tenant: Tenant<Read> = application.router.open(&request).await?;
    let cookie = session_cookie(headers, tenant.name(), token)?;
    let body = Json(json!({ "organisation": tenant.name() }));
    Ok(([(header::SET_COOKIE, cookie)], body).into_response())
}

/// Removes the cookie. The caller need not be a member, because a removed member signs out, too. The session of an operator
/// ends; the token of a member stays valid for the member's other browsers.
async fn sign_out(
    State(application): State<Application>,
    Path(organisation): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    if let Some(token) = header_text(&headers, header::AUTHORIZATION).and_then(|text| text.strip_prefix("Bearer ")) {
        match application.router.end_impersonation(&token.into()).await {
            Err(error) if error.kind() != ErrorKind::Unauthenticated => return Err(error.into()),
            _ => {}
        }
    }
    let cookie = cookie_header(&format!("{COOKIE}=; Max-Age=0"), &organisation)?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// The cookie that signs a browser in to one organisation. It is sent to this organisation's paths only, so that a person
/// can be signed in to several organisations.
pub(crate) fn session_cookie(headers: &HeaderMap, organisation: &str, token: &SecretString) -> Result<HeaderValue> {
    let max_age = SESSION_MAX.as_secs();
    // The browser names the scheme that it used. A proxy that ends TLS hides it from this process.
    let is_tls = header_text(headers, header::ORIGIN).is_some_and(|origin| origin.starts_with("https://"));
    let secure = if is_tls { "; Secure" } else { "" };
    cookie_header(&format!("{COOKIE}={}; Max-Age={max_age}{secure}", token.expose_secret()), organisation)
}

fn cookie_header(start: &str, organisation: &str) -> Result<HeaderValue> {
    let is_plain = organisation.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let text = format!("{start}; Path=/orgs/{organisation}; HttpOnly; SameSite=Strict");
    let cookie = HeaderValue::from_str(&text).ok().filter(|_| is_plain);
    cookie.ok_or_else(|| RequestError::not_found("This address does not exist"))
}

/// A middleware that turns the cookie into a credential, and refuses what another site may have sent.
pub async fn use_cookie(mut request: Request, next: Next) -> Response {
    // A program sends its token itself. No site can make a browser do that.
    if !request.headers().contains_key(header::AUTHORIZATION) {
        if let Err(refusal) = require_own_page(request.method(), request.headers()) {
            return refusal.into_response();
        }
        if let Some(credential) = cookie_credential(request.headers()) {
            request.headers_mut().insert(header::AUTHORIZATION, credential);
        }
    }
    next.run(request).await
}

/// Refuses a change that is not JSON, or that comes from a page of another origin.
fn require_own_page(method: &Method, headers: &HeaderMap) -> Result<()> {
    if method.is_safe() {
        return Ok(());
    }
    // A form of another site cannot send JSON.
    if header_text(headers, header::CONTENT_TYPE) != Some("application/json") {
        let (code, title) = ("not_json", "A change needs the content type application/json");
        return Err(RequestError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code, title, "Send the body as JSON."));
    }
    let origin = header_text(headers, header::ORIGIN).and_then(|origin| origin.split_once("://"));
    match (origin, header_text(headers, header::HOST)) {
        (Some((_, origin)), Some(host)) if origin == host => Ok(()),
        _ => Err(RequestError::new(
            StatusCode::FORBIDDEN,
            "other_origin",
            "The request did not come from a page of this application",
            "Use the page itself. A proxy must pass the header Host unchanged.",
        )),
    }
}

fn cookie_credential(headers: &HeaderMap) -> Option<HeaderValue> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, token) = pairs.find(|(name, _)| *name == COOKIE)?;
    let mut credential = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    credential.set_sensitive(true);
    Some(credential)
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_the_own_page_may_change_something() {
        let json = (header::CONTENT_TYPE, "application/json");
        let host = (header::HOST, "tasks.example");
        let from = |origin| headers(&[json.clone(), host.clone(), (header::ORIGIN, origin)]);
        assert!(require_own_page(&Method::POST, &from("https://tasks.example")).is_ok());
        for other in ["https://evil.example", "https://tasks.example.evil.example", "null", "https://tasks.example:81"]
        {
            assert!(require_own_page(&Method::DELETE, &from(other)).is_err(), "{other}");
            assert!(require_own_page(&Method::GET, &from(other)).is_ok(), "a read changes nothing");
        }
        assert!(require_own_page(&Method::POST, &headers(&[json, host.clone()])).is_err(), "no origin");
        let form = (header::CONTENT_TYPE, "text/plain");
        assert!(
            require_own_page(&Method::POST, &headers(&[form, host, (header::ORIGIN, "http://tasks.example")])).is_err()
        );
    }

    #[test]
    fn the_cookie_is_for_one_organisation_and_secure_behind_tls() {
        let token = SecretString::from("flt_x");
        let tls = headers(&[(header::ORIGIN, "https://tasks.example")]);
        let cookie = session_cookie(&tls, "acme", &token).unwrap();
        let expected = "tasks_session=flt_x; Max-Age=7776000; Secure; Path=/orgs/acme; HttpOnly; SameSite=Strict";
        assert_eq!(cookie, expected);
        assert!(!session_cookie(&HeaderMap::new(), "acme", &token).unwrap().to_str().unwrap().contains("Secure"));
        assert!(cookie_header("a=b", "x; Domain=evil.example").is_err());
        let sent = headers(&[(header::COOKIE, "theme=dark; tasks_session=flt_x")]);
        assert_eq!(cookie_credential(&sent).unwrap(), "Bearer flt_x");
    }
}
