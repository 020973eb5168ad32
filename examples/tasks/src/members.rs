//! Members: list, invite, change a role, make a sign-in link, remove.
//!
//! Who is a member, and with which role, is in the catalog of the fleet. The names of people are in the organisation's own
//! database. The token of a sign-in link is limited to one organisation. So a link that a manager makes opens nothing else.
//!
//! A change has two places, and may end between them. Each change can be sent again, and then does what is left.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Json, Router, routing};
use fleet_client::fleet_api::members::MemberView;
use fleet_client::fleet_api::tokens::TokenWanted;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tenant_router::{Manage, PrincipalKind, Read, Role, Tenant, WriteTx, params};

use crate::Application;
use crate::error::{RequestError, Result};
use crate::form_key::FormKey;
use crate::input::{JsonBody, RowPath, checked_line};
use crate::session::SESSION_MAX;

/// Maximum length of a person's name in characters.
pub(crate) const NAME_MAX: usize = 80;
/// Maximum number of members: they fit into one page of the control plane's list.
const MEMBERS_MAX: usize = 200;

pub(crate) fn routes() -> Router<Application> {
    Router::new()
        .route("/people", routing::get(list_people))
        .route("/members", routing::get(list_members).post(invite_member))
        .route("/members/{member}", routing::put(change_role).delete(remove_member))
        .route("/members/{member}/link", routing::post(make_link))
}

#[derive(Debug, Deserialize)]
struct MemberPath {
    member: String,
}

/// A person, as tasks and comments name them.
#[derive(Debug, Serialize, Deserialize)]
struct PersonName {
    id: String,
    name: String,
}

/// A member with the role.
#[derive(Debug, Serialize)]
struct MemberWithRole {
    id: String,
    name: String,
    role: String,
}

#[derive(Debug, Deserialize)]
struct Invitation {
    key: FormKey,
    name: String,
    role: Role,
}

#[derive(Debug, Deserialize)]
struct NewRole {
    role: Role,
}

/// The token of a sign-in link. The page puts it behind the `#` of an address, which browsers do not send.
#[derive(Debug, Serialize)]
struct SignInToken {
    member: String,
    token: String,
}

async fn list_people(tenant: Tenant<Read>) -> Result<Json<Vec<PersonName>>> {
    Ok(Json(tenant.query_as("select id, name from people order by name, id", ()).fetch_all().await?))
}

async fn list_members(
    State(application): State<Application>,
    tenant: Tenant<Manage>,
) -> Result<Json<Vec<MemberWithRole>>> {
    let people: Vec<(String, String)> = tenant.query_as("select id, name from people", ()).fetch_all().await?;
    let name_of = |id: &str| people.iter().find(|(person, _)| person == id).map(|(_, name)| name.clone());
    let with_name = |member: MemberView| MemberWithRole {
        name: name_of(&member.principal).unwrap_or_else(|| member.principal.clone()),
        id: member.principal,
        role: member.role,
    };
    let mut members: Vec<_> = application.members_of(&tenant).await?.into_iter().map(with_name).collect();
    members.sort_by_key(|member| member.name.to_lowercase());
    Ok(Json(members))
}

async fn invite_member(
    State(application): State<Application>,
    tenant: Tenant<Manage>,
    JsonBody(invitation): JsonBody<Invitation>,
) -> Result<(StatusCode, Json<SignInToken>)> {
    refuse_support(&tenant)?;
    let name = checked_line("name", &invitation.name, NAME_MAX)?;
    let member = invitation.key.derive_id("person", &tenant.id().to_string());
    let mut tx = lock_members(&tenant).await?;
    let members = application.members_of(&tenant).await?;
    require_still_manager(&members, &tenant)?;
    let sql = "insert into people (id, name) values ($1, $2) on conflict do nothing";
    tx.execute(sql, params![&member, name]).await?;
    // A repeated invitation does not set the role again, which may have been changed since.
    if !is_member(&members, &member) {
        require_room(&members)?;
        application.set_role(&tenant, &member, invitation.role).await?;
    }
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(application.new_token(&tenant, member).await?)))
}

async fn change_role(
    State(application): State<Application>,
    tenant: Tenant<Manage>,
    RowPath(path): RowPath<MemberPath>,
    JsonBody(new): JsonBody<NewRole>,
) -> Result<StatusCode> {
    let tx = lock_members(&tenant).await?;
    let members = application.members_of(&tenant).await?;
    require_still_manager(&members, &tenant)?;
    require_member(&members, &path.member)?;
    if new.role != Role::Manager {
        require_other_manager(&members, &path.member)?;
    }
    application.set_role(&tenant, &path.member, new.role).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_member(
    State(application): State<Application>,
    tenant: Tenant<Manage>,
    RowPath(path): RowPath<MemberPath>,
) -> Result<StatusCode> {
    let mut tx = lock_members(&tenant).await?;
    let members = application.members_of(&tenant).await?;
    require_still_manager(&members, &tenant)?;
    if is_member(&members, &path.member) {
        require_other_manager(&members, &path.member)?;
        application.fleet.remove_member(&tenant.id().to_string(), &path.member).await?;
    }
    application.end_tokens(&tenant, &path.member).await?;
    // Tasks and comments stay, without the name.
    let deleted = tx.execute("delete from people where id = $1", [&*path.member]).await?;
    tx.commit().await?;
    match deleted.rows_affected == 0 && !is_member(&members, &path.member) {
        true => Err(not_a_member()),
        false => Ok(StatusCode::NO_CONTENT),
    }
}

/// A new link for a member, who may have lost the old one. The old link ends, and so does every session of the member.
async fn make_link(
    State(application): State<Application>,
    tenant: Tenant<Manage>,
    RowPath(path): RowPath<MemberPath>,
) -> Result<(StatusCode, Json<SignInToken>)> {
    refuse_support(&tenant)?;
    require_member(&application.members_of(&tenant).await?, &path.member)?;
    Ok((StatusCode::CREATED, Json(application.new_token(&tenant, path.member).await?)))
}

/// Lets changes of members wait for each other, so that two managers cannot remove each other at the same time.
async fn lock_members(tenant: &Tenant<Manage>) -> Result<WriteTx<'_, Manage>> {
    let mut tx = tenant.write();
    tx.execute("update organisation set title = title", ()).await?;
    Ok(tx)
}

/// The calls to the control plane.
impl Application {
    async fn members_of(&self, tenant: &Tenant<Manage>) -> Result<Vec<MemberView>> {
        Ok(self.fleet.list_members(&tenant.id().to_string(), None).await?.items)
    }

    async fn set_role(&self, tenant: &Tenant<Manage>, member: &str, role: Role) -> Result<()> {
        self.fleet.add_member(&tenant.id().to_string(), member, role_word(role)).await?;
        // The new role counts from the next request, and not only within a second.
        Ok(self.router.catch_up().await?)
    }

    /// The only token of a member. It opens no other organisation.
    async fn new_token(&self, tenant: &Tenant<Manage>, member: String) -> Result<SignInToken> {
        self.end_tokens(tenant, &member).await?;
        let expires_at = Timestamp::now() + SESSION_MAX;
        let wanted = TokenWanted {
            tenant: Some(tenant.id().to_string()),
            member: Some(member.clone()),
            expires_at: Some(expires_at.to_string()),
            ..TokenWanted::default()
        };
        let token = self.fleet.create_token(&wanted).await?;
        Ok(SignInToken { member, token: token.secret.expose_secret().to_owned() })
    }

    async fn end_tokens(&self, tenant: &Tenant<Manage>, member: &str) -> Result<()> {
        let mut cursor = None;
        loop {
            let page = self.fleet.list_member_tokens(&tenant.id().to_string(), member, cursor.as_deref()).await?;
            for token in page.items.iter().filter(|token| token.revoked_at.is_none()) {
                self.fleet.revoke_token(&token.id).await?;
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                // The tokens end with the next request, and not only within a second.
                return Ok(self.router.catch_up().await?);
            }
        }
    }
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Reader => "reader",
        Role::Writer => "writer",
        Role::Manager => "manager",
    }
}

fn is_member(members: &[MemberView], id: &str) -> bool {
    members.iter().any(|member| member.principal == id)
}

fn require_member(members: &[MemberView], id: &str) -> Result<()> {
    if is_member(members, id) { Ok(()) } else { Err(not_a_member()) }
}

fn not_a_member() -> RequestError {
    RequestError::not_found("This person is not a member")
}

fn require_room(members: &[MemberView]) -> Result<()> {
    if members.len() < MEMBERS_MAX {
        return Ok(());
    }
    let title = format!("An organisation may have {MEMBERS_MAX} members");
    Err(RequestError::new(StatusCode::CONFLICT, "too_many_members", title, "Remove a member first."))
}

/// Refuses an operator who acts as a manager. A new token would outlive the support session, and would not name the operator.
fn refuse_support(tenant: &Tenant<Manage>) -> Result<()> {
    match tenant.principal().staff() {
        None => Ok(()),
        Some(_) => Err(RequestError::new(
            StatusCode::FORBIDDEN,
            "support_session",
            "Support cannot make sign-in links",
            "Let a manager of the organisation make the link.",
        )),
    }
}

/// Checks the caller again, under the lock: another manager may just have removed the caller. An operator's token of the
/// organisation is not a member.
fn require_still_manager(members: &[MemberView], tenant: &Tenant<Manage>) -> Result<()> {
    let caller = tenant.principal();
    let is_person = matches!(caller.kind(), PrincipalKind::Member | PrincipalKind::TenantMember { .. });
    let is_manager = |member: &MemberView| member.principal == caller.name() && member.role == role_word(Role::Manager);
    match !is_person || members.iter().any(is_manager) {
        true => Ok(()),
        false => Err(RequestError::new(
            StatusCode::FORBIDDEN,
            "not_manager",
            "You are not a manager of this organisation any more",
            "Load the page again.",
        )),
    }
}

/// Refuses to leave the organisation without a manager.
fn require_other_manager(members: &[MemberView], id: &str) -> Result<()> {
    let is_other_manager = |member: &MemberView| member.principal != id && member.role == role_word(Role::Manager);
    match members.iter().any(is_other_manager) {
        true => Ok(()),
        false => Err(RequestError::new(
            StatusCode::CONFLICT,
            "last_manager",
            "An organisation needs a manager",
            "Make somebody else a manager first.",
        )),
    }
}
