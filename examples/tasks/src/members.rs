//! Members: list, invite, change a role, make a sign-in link, remove.
//!
//! Who is a member, and with which role, is in the catalog of the fleet. The names of people are in the organisation's own
//! database. Each person belongs to one organisation. So a sign-in link that a manager makes opens nothing else.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Json, Router, routing};
use fleet_client::fleet_api::members::MemberView;
use fleet_client::fleet_api::tokens::TokenWanted;
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tenant_router::{Manage, Read, Role, Tenant, WriteTx, params};
use uuid::Uuid;

use crate::Application;
use crate::error::{RequestError, Result};
use crate::input::{JsonBody, RowPath, checked_line};
use crate::session::SESSION_DAYS;

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
    let name = checked_line("name", &invitation.name, NAME_MAX)?;
    let member = format!("person-{}", Uuid::now_v7().simple());
    let mut tx = lock_members(&tenant).await?;
    if application.members_of(&tenant).await?.len() >= MEMBERS_MAX {
        let title = format!("An organisation may have {MEMBERS_MAX} members");
        return Err(RequestError::new(StatusCode::CONFLICT, "too_many_members", title, "Remove a member first."));
    }
    tx.execute("insert into people (id, name) values ($1, $2)", params![&member, name]).await?;
    application.set_role(&tenant, &member, invitation.role).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(application.new_token(member).await?)))
}

async fn change_role(
    State(application): State<Application>,
    tenant: Tenant<Manage>,
    RowPath(path): RowPath<MemberPath>,
    JsonBody(new): JsonBody<NewRole>,
) -> Result<StatusCode> {
    let tx = lock_members(&tenant).await?;
    let members = application.members_of(&tenant).await?;
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
    require_member(&members, &path.member)?;
    require_other_manager(&members, &path.member)?;
    // Tasks and comments stay, without the name.
    tx.execute("delete from people where id = $1", [&*path.member]).await?;
    application.fleet.remove_member(&tenant.id().to_string(), &path.member).await?;
    application.router.catch_up().await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A new link for a member, who may have lost the old one or uses another browser.
async fn make_link(
    State(application): State<Application>,
    tenant: Tenant<Manage>,
    RowPath(path): RowPath<MemberPath>,
) -> Result<(StatusCode, Json<SignInToken>)> {
    require_member(&application.members_of(&tenant).await?, &path.member)?;
    // An operator may have added a member who belongs to other organisations, too. That person is not among the people.
    let sql = "select id from people where id = $1";
    let own: Option<String> = tenant.query_as(sql, [&*path.member]).fetch_optional().await?;
    let member = own.ok_or_else(|| RequestError::not_found("This person was not invited here"))?;
    Ok((StatusCode::CREATED, Json(application.new_token(member).await?)))
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

    async fn new_token(&self, member: String) -> Result<SignInToken> {
        let expires_at = Timestamp::now() + SignedDuration::from_hours(24 * SESSION_DAYS);
        let wanted = TokenWanted {
            member: Some(member.clone()),
            expires_at: Some(expires_at.to_string()),
            ..TokenWanted::default()
        };
        let token = self.fleet.create_token(&wanted).await?;
        Ok(SignInToken { member, token: token.secret.expose_secret().to_owned() })
    }
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Reader => "reader",
        Role::Writer => "writer",
        Role::Manager => "manager",
    }
}

fn require_member(members: &[MemberView], id: &str) -> Result<()> {
    match members.iter().any(|member| member.principal == id) {
        true => Ok(()),
        false => Err(RequestError::not_found("This person is not a member")),
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
