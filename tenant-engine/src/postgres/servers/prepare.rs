//! The roles that each server has once: the owner of the tenants' objects, and the roles that may read and write them.
//!
//! `fleet_owner` owns every tenant's tables and no database. `fleet_read` and `fleet_write` carry the rights that the
//! tenants' logins inherit. None of them can log in, and settings that a migration's SQL gave one of them are reset.
//! The logins that migrate are created for each use (`migrator.rs`). Those that outlived their process are dropped
//! here, and so is the single login that ran every migration of a server in earlier versions. Called by the engine
//! operations that need the roles, once per process and server. Several processes take turns.

use std::sync::atomic::Ordering;

use super::server::PostgresServer;
use super::server_state::PostgresServerState;
use super::{migrator, rights};
use crate::error::Result;
use crate::postgres::sql::{quoted_name, sql_literal};

/// The role that owns the objects in every tenant database.
pub(in crate::postgres) const OWNER: &str = "fleet_owner";
/// The group role of the read logins.
pub(in crate::postgres) const READ: &str = "fleet_read";
/// The group role of the write logins.
pub(in crate::postgres) const WRITE: &str = "fleet_write";

/// The advisory lock for everything that a server has once, taken in the maintenance database. It is the text "fleet"
/// as a number.
pub(in crate::postgres) const SERVER_LOCK: i64 = 0x66_6c65_6574;

/// Creates the roles that are missing.
///
/// # Errors
/// [`crate::ErrorKind::ServerPrivilege`] when the maintenance role may not create roles.
pub(in crate::postgres) async fn ensure_roles(site: &PostgresServerState) -> Result<()> {
    let mut prepared = site.prepared.lock().await;
    if !*prepared {
        repair_roles(site).await?;
        *prepared = true;
    }
    Ok(())
}

/// As [`ensure_roles`], but also when they were already checked, because a role may have been dropped.
pub(super) async fn repair_roles(site: &PostgresServerState) -> Result<()> {
    let mut center = site.maintenance_connection().await?;
    center.run_sql(roles_sql(&site.server)).await?;
    let answers = center.fetch_answers(SEES_ALL_ROWS).await?;
    site.sees_all_rows.store(answers.iter().any(|rows| !rows.is_empty()), Ordering::Relaxed);
    rights::prepare_base_template(site, &mut center).await?;
    site.return_connection(center);
    Ok(())
}

/// Finds out whether row level security does not apply to the role.
const SEES_ALL_ROWS: &str = "select 1 from pg_roles where rolname = current_user and (rolsuper or rolbypassrls)";

fn roles_sql(server: &PostgresServer) -> String {
    let groups: String = [OWNER, READ, WRITE].iter().map(|role| group_sql(role)).collect();
    let former = server.former_migrator();
    let (name, text) = (quoted_name(&former), sql_literal(&former));
    let (powerless, sweep) = (migrator::powerless_sql(&former), migrator::sweep_sql());
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

/// Creates one role without login, of which the maintenance role is a member with its rights. From version 16 on, the
/// creator of a role is its administrator but not automatically a member. The clause `role` adds the member on every
/// version.
fn group_sql(role: &str) -> String {
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
