//! The sign-up of an organisation: a tenant, its first member, and a browser that is signed in.
//!
//! The page chooses the key of the form and keeps it until the answer comes. If the form is sent again, the answer is this
//! organisation. The answer contains a token of the first member, so the key is a secret.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use fleet_client::fleet_api::tenants::NewTenantRequest;
use fleet_client::{SignUp, SignedUp};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::json;
use tenant_router::{RequestView, Tenant, Write};

use crate::Application;
use crate::digests::schedule_digest;
use crate::error::{RequestError, Result};
use crate::form_key::FormKey;
use crate::input::{JsonBody, checked_line};
use crate::members::NAME_MAX;
use crate::session::{SESSION_MAX, session_cookie};

/// Maximum length of an organisation's title in characters.
const TITLE_MAX: usize = 80;
/// Maximum length of an organisation's name, which is a part of its addresses.
const SLUG_MAX: usize = 63;

pub(crate) fn routes() -> Router<Application> {
    Router::new().route("/api/organisations", routing::post(sign_up))
}

/// The form of the start page.
#[derive(Debug, Deserialize)]
struct NewOrganisation {
    key: FormKey,
    /// The name in addresses: `/orgs/{name}`.
    name: String,
    /// The title for people.
    title: String,
    /// The name of the first member.
    founder: String,
}

async fn sign_up(
    State(application): State<Application>,
    headers: HeaderMap,
    JsonBody(form): JsonBody<NewOrganisation>,
) -> Result<Response> {
    let title = checked_line("title", &form.title, TITLE_MAX)?;
    let founder = checked_line("founder", &form.founder, NAME_MAX)?;
    let wanted = SignUp {
        key: form.key.derive_id("organisation", "sign-up"),
        tenant: NewTenantRequest {
            name: checked_slug(&form.name)?,
            server: application.new_server.clone(),
            ..NewTenantRequest::default()
        },
        member: form.key.derive_id("person", "sign-up"),
        role: "manager".to_owned(),
        token_lifetime: Some(SESSION_MAX),
        ..SignUp::default()
    };
    let signed_up = application.fleet.sign_up(&wanted).await.map_err(sign_up_refusal)?;
    introduce_founder(&application, &signed_up, &title, &founder).await?;
    let cookie = session_cookie(&headers, &signed_up.tenant.name, &signed_up.token.secret)?;
    let body = Json(json!({ "organisation": signed_up.tenant.name }));
    Ok((StatusCode::CREATED, [(header::SET_COOKIE, cookie)], body).into_response())
}

/// Writes the first rows of the organisation's database. A repeated sign-up changes nothing.
async fn introduce_founder(application: &Application, new: &SignedUp, title: &str, founder: &str) -> Result<()> {
    // The control plane has changed the catalog: without this, the router would know it within a second.
    application.router.catch_up().await?;
    let path = format!("/orgs/{}", new.tenant.name);
    let credential = Some(new.token.secret.expose_secret());
    let request = RequestView { credential, path: &path, ..RequestView::default() };
    let tenant: Tenant<Write> = application.router.open(&request).await?;
    let mut tx = tenant.write();
    tx.execute("update organisation set title = $1 where title = ''", [title]).await?;
    let sql = "insert into people (id, name) values ($1, $2) on conflict do nothing";
    tx.execute(sql, [&*new.member.principal, founder]).await?;
    schedule_digest(&mut tx).await?;
    Ok(tx.commit().await?)
}

fn checked_slug(name: &str) -> Result<String> {
    let is_slug = (1..=SLUG_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    match is_slug {
        true => Ok(name.to_owned()),
        false => Err(RequestError::invalid("The address has 1 to 63 of a-z, 0-9 and '-', with no '-' at either end")),
    }
}

/// What the person who signs up can change. Every other error is the operator's.
fn sign_up_refusal(error: fleet_client::Error) -> RequestError {
    let refusal = |code, title, next_step| RequestError::new(StatusCode::CONFLICT, code, title, next_step);
    match error.code() {
        "already_exists" => {
            refusal("name_taken", "This address belongs to another organisation", "Choose another address.")
        }
        "idempotency_key_reused" => {
            refusal("form_sent", "This form was sent before with other values", "Load the page again.")
        }
        "sign_up_over" => {
            refusal("form_used", "This form was sent long ago", "Ask a manager of the organisation for a link.")
        }
        "invalid" | "tenant_name_invalid" => RequestError::invalid("This address cannot be used"),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_slug() {
        for good in ["a", "acme-2", &"x".repeat(63)] {
            assert!(checked_slug(good).is_ok(), "{good}");
        }
        for wrong in ["", "-a", "a-", "Acme", "a.b", "a/b", "é", &"x".repeat(64)] {
            assert!(checked_slug(wrong).is_err(), "{wrong}");
        }
    }
}
