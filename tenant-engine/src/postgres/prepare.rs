//! The roles that a server has once: who owns the tenants' objects, and who may read and write them.
//!
//! `fleet_owner` owns every tenant's tables and no database. `fleet_read` and `fleet_write` carry the rights that the
//! tenants' logins inherit. None of them can log in, and what SQL of a migration set for one is undone.
//! The logins that migrate are made for each use (`migrator.rs`); those that outlived their process are dropped here, and
//! so is the one login of a server that ran every migration before.
//! Run by the verbs that need them, once per process and server; several processes take turns.

use std::sync::atomic::Ordering;

use super::server::PostgresServer;
use super::site::Site;
use super::sql::{literal, quoted};
use super::{migrator, rights};
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
    let answers = center.answers(SEES_ALL_ROWS).await?;
    site.sees_all_rows.store(answers.iter().any(|rows| !rows.is_empty()), Ordering::Relaxed);
    rights::prepare(site, &mut center).await?;
    site.leave(center);
    Ok(())
}

/// Policies of row level security do not hold for it.
const SEES_ALL_ROWS: &str = "select 1 from pg_roles where rolname = current_user and (rolsuper or rolbypassrls)";

fn statements(server: &PostgresServer) -> String {
    let groups: String = [OWNER, READ, WRITE].iter().map(|role| group(role)).collect();
    let former = server.former_migrator();
    let (name, text) = (quoted(&former), literal(&former));
    let (powerless, sweep) = (migrator::powerless(&former), migrator::sweep());
    format!(
        "begin;
         select pg_advisory_xact_lock({SERVER_LOCK});
         do $fleet$ declare leftover text; begin
         {groups}
         if exists (select from pg_roles where rolname = {text}) then
           begin
             drop role {name};
           exception when dependent_objects_still_exist then {powerless}
           end;
         end if;
         {sweep}
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
         begin
           alter role {role} nologin password null;
           alter role {role} reset all;
         exception when insufficient_privilege then null;
         end;
         "
    )
}
