//! The roles that a server has once: who owns the tenants' objects, who may read and write them, who runs migrations.
//!
//! `fleet_owner` owns every tenant's tables and no database. `fleet_read` and `fleet_write` carry the rights that the
//! tenants' logins inherit. The login that runs migrations is a member of `fleet_owner` and of nothing else: a
//! migration that leaves its role finds no more rights than it had.
//! Run by the verbs that need them, once per process and server; several processes take turns.

use super::server::PostgresServer;
use super::site::Site;
use super::sql::{literal, quoted};
use crate::error::Result;

/// Owns the objects in every tenant database.
pub(super) const OWNER: &str = "fleet_owner";
/// What the read logins are members of.
pub(super) const READ: &str = "fleet_read";
/// What the write logins are members of.
pub(super) const WRITE: &str = "fleet_write";

/// The advisory lock, in the maintenance database, of everything that a server has once; the text "fleet" as a number.
pub(super) const SERVER_LOCK: i64 = 0x66_6c65_6574;

/// Makes sure that the roles are there.
///
/// # Errors
/// [`crate::ErrorKind::ServerPrivilege`] when the maintenance role may not make them.
pub(super) async fn ensure(site: &Site) -> Result<()> {
    let mut prepared = site.prepared.lock().await;
    if !*prepared {
        repair(site).await?;
        *prepared = true;
    }
    Ok(())
}

/// The same, whatever was seen before: somebody may have dropped a role.
pub(super) async fn repair(site: &Site) -> Result<()> {
    let mut center = site.center().await?;
    center.run(statements(&site.server)).await?;
    site.leave(center);
    Ok(())
}

fn statements(server: &PostgresServer) -> String {
    let groups: String = [OWNER, READ, WRITE].iter().map(|role| group(role)).collect();
    let (migrator, verifier) = (server.migrator(), literal(&server.verifier(&server.migrator())));
    let (name, text) = (quoted(&migrator), literal(&migrator));
    format!(
        "begin;
         select pg_advisory_xact_lock({SERVER_LOCK});
         do $fleet$ begin
         {groups}
         if exists (select from pg_roles where rolname = {text}) then
           alter role {name} login password {verifier};
         else
           create role {name} login password {verifier} in role {OWNER} role current_user;
         end if;
         end $fleet$;
         commit;"
    )
}

/// One role without login, of which we are a member with its rights. From version 16 on whoever creates a role is its
/// administrator, but no member by itself; the clause `role` makes a member on every version.
fn group(role: &str) -> String {
    format!(
        "if not exists (select from pg_roles where rolname = '{role}') then
           create role {role} nologin role current_user;
         elsif not pg_has_role(current_user, '{role}', 'usage') then
           grant {role} to current_user;
         end if;
         "
    )
}
