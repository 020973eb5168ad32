//! The login that migrates and restores one database: created before each use, dropped after it.
//!
//! SQL from outside runs as this login: migrations, dumps, and the functions and triggers in both. Such SQL may leave
//! the role `fleet_owner` and change the login itself: its password, its settings and its members. So no other database
//! may depend on it. The login is a member of `fleet_owner` that inherits nothing. It has its own right to connect, so
//! it can connect to this database only. [`admit_login`] creates it, or resets the password and settings of an existing
//! one; [`dismiss_login`] drops it. The login of a dead process expires, and `prepare.rs` drops it then.
//!
//! Such SQL may also revoke rights of `fleet_owner` on every database (`drop owned`). [`admit_login`] grants them again
//! first.

use super::admin_connection::{AdminConnection, ConnectError, from_ours_connect};
use super::logins;
use super::prepare::{self, OWNER};
use super::reassert;
use super::server_state::PostgresServerState;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::error;
use crate::postgres::error::AdminConnectionError;
use crate::postgres::migration_lock::lock_key;
use crate::postgres::sql::{quoted_name, sql_literal};

/// Longer than a restore or the longest file of statements may take.
const VALID_FOR: &str = "2 days";
/// A session stays visible for some milliseconds after its end. A session that is visible after this many checks
/// belongs to another process, which drops the login when it ends.
const LOOKS: u32 = 40;
/// Pause between two checks, in seconds.
const LOOK_PAUSE: &str = "0.005";
/// A fence changes the same row of `pg_database` at most a few times.
const ATTEMPTS: u32 = 4;

/// Connects as the login that migrates. The session starts in the role that owns every tenant's objects. End the
/// connection with [`leave_and_dismiss`].
///
/// # Errors
/// [`ErrorKind::ServerPrivilege`] when the maintenance role may not create logins; faults of the server.
pub(in crate::postgres) async fn enter_as_migrator(
    site: &PostgresServerState,
    database: &str,
) -> Result<AdminConnection> {
    admit_login(site, database).await?;
    let connect_once = || async {
        let connect = || AdminConnection::as_migrator(&site.server, site.patience, database);
        match connect().await {
            Ok(work) => Ok(work),
            // Another process dropped the login just now, because it had finished with it.
            Err(ConnectError::Refused(error)) if is_gone(&error) => {
                admit_login(site, database).await?;
                connect().await.map_err(from_ours_connect)
            }
            Err(failed) => Err(from_ours_connect(failed)),
        }
    };
    site.when_not_full(connect_once).await
}

/// Connects as the login. The caller has admitted the login and dismisses it.
///
/// # Errors
/// Faults of the server.
pub(in crate::postgres) async fn connect_as_migrator(
    site: &PostgresServerState,
    database: &str,
) -> Result<AdminConnection> {
    let connect = || async {
        AdminConnection::as_migrator(&site.server, site.patience, database).await.map_err(from_ours_connect)
    };
    site.when_not_full(connect).await
}

/// True when there is no such login, its password is different, it has no right to connect, or the role to start in is
/// missing.
fn is_gone(error: &sqlx::Error) -> bool {
    matches!(error::sqlstate_code(error).as_deref(), Some("28000" | "28P01" | "22023" | "42501"))
}

/// Closes a connection of [`enter_as_migrator`] and drops its login. A failure leaves a login that expires; that is no
/// reason to report the finished work as failed.
pub(in crate::postgres) async fn leave_and_dismiss(site: &PostgresServerState, database: &str, work: AdminConnection) {
    work.close().await;
    if let Err(error) = dismiss_login(site, database).await {
        tracing::debug!(database, error = %error, "the login of a migration stays until it expires");
    }
}

/// Prepares the login for one use.
///
/// # Errors
/// [`ErrorKind::ServerPrivilege`] when the maintenance role may not create logins; faults of the server.
pub(in crate::postgres) async fn admit_login(site: &PostgresServerState, database: &str) -> Result<()> {
    prepare::ensure_roles(site).await?;
    match run_with_retry(site, admission_sql(site, database)).await {
        // The role `fleet_owner` was dropped.
        Err(why) if why.sqlstate_code() == "42704" => {
            prepare::repair_roles(site).await?;
            run_with_retry(site, admission_sql(site, database)).await.map_err(AdminConnectionError::into_ours)
        }
        outcome => outcome.map_err(|why| missing_database(why, database)),
    }
}

/// Drops the login, unless another process uses it.
///
/// # Errors
/// Faults of the server.
pub(in crate::postgres) async fn dismiss_login(site: &PostgresServerState, database: &str) -> Result<()> {
    run_with_retry(site, dismissal_sql(database)).await.map_err(AdminConnectionError::into_ours)
}

async fn run_with_retry(site: &PostgresServerState, sql: String) -> Result<(), AdminConnectionError> {
    let mut attempt = 1;
    loop {
        let mut center = site.maintenance_connection().await.map_err(AdminConnectionError::Silent)?;
        match center.try_answers(sql.clone()).await {
            Ok(_) => {
                site.return_connection(center);
                return Ok(());
            }
            // "Tuple concurrently updated": a fence granted or revoked a right on the same database.
            Err(why) if why.sqlstate_code() == "XX000" && attempt < ATTEMPTS => attempt += 1,
            Err(why) => return Err(why),
        }
    }
}

fn missing_database(why: AdminConnectionError, database: &str) -> Error {
    match why.sqlstate_code().as_str() {
        "3D000" => Error::new(ErrorKind::Missing, format!("database \"{database}\" does not exist")),
        _ => why.into_ours(),
    }
}

/// One transaction, which needs no flush: a login that is lost in a crash of the server is created again.
fn transaction_sql(database: &str, declare: &str, body: &str) -> String {
    let lock = lock_key(database);
    format!(
        "begin;
         set local synchronous_commit = off;
         select pg_advisory_xact_lock({lock});
         do $fleet$ declare {declare} begin {body} end $fleet$;
         commit;"
    )
}

fn admission_sql(site: &PostgresServerState, database: &str) -> String {
    let login = logins::migrator_login(database);
    let verifier = sql_literal(&site.server.login_verifier(&login));
    let (name, text, on) = (quoted_name(&login), sql_literal(&login), quoted_name(database));
    let body = format!(
        "if exists (select from pg_roles where rolname = {text}) then
           alter role {name} reset all;
           alter role {name} in database {on} reset all;
           grant {OWNER} to {name};
         else
           create role {name} noinherit in role {OWNER} role current_user;
         end if;
         execute format('alter role %I login noinherit password %L valid until %L', {text}, {verifier},
                        now() + interval '{VALID_FOR}');
         grant connect on database {on} to {name};
         {}
         {}",
        owners_rights(database),
        reassert::reassert_sql(&site.server, database),
    );
    transaction_sql(database, reassert::DECLARATIONS, &body)
}

/// The rights of `fleet_owner` on the database. The right to connect is not among them, because every such login would
/// have it.
fn owners_rights(database: &str) -> String {
    let (text, on) = (sql_literal(database), quoted_name(database));
    format!(
        "if not (has_database_privilege('{OWNER}', {text}, 'create')
                 and has_database_privilege('{OWNER}', {text}, 'temporary')) then
           grant create, temporary on database {on} to {OWNER};
         end if;
         if has_database_privilege('{OWNER}', {text}, 'connect') then
           revoke connect on database {on} from {OWNER};
         end if;"
    )
}

/// A login on which objects depend, because SQL gave it a right or an object, stays without any power.
fn dismissal_sql(database: &str) -> String {
    let login = logins::migrator_login(database);
    let (name, text) = (quoted_name(&login), sql_literal(&login));
    let body = format!(
        "if not exists (select from pg_roles where rolname = {text}) then return; end if;
         for look in 1..{LOOKS} loop
           perform pg_stat_clear_snapshot();
           exit when not exists (select from pg_stat_activity where usename = {text});
           if look = {LOOKS} then return; end if;
           perform pg_sleep({LOOK_PAUSE});
         end loop;
         if exists (select from pg_database where datname = {}) then
           revoke connect on database {} from {name};
         end if;
         begin
           drop role {name};
         exception when dependent_objects_still_exist then
           {}
         end;",
        sql_literal(database),
        quoted_name(database),
        powerless_sql(&login),
    );
    transaction_sql(database, "", &body)
}

/// SQL that makes a role unable to log in, and revokes its membership in `fleet_owner`.
pub(super) fn powerless_sql(role: &str) -> String {
    let name = quoted_name(role);
    format!(
        "alter role {name} nologin noinherit password null; alter role {name} reset all; revoke {OWNER} from {name};"
    )
}

/// Drops the expired logins that dead processes left. Those of other fleets stay.
pub(super) fn sweep_sql() -> String {
    "for leftover in select rolname::text from pg_roles
         where rolname ~ '^(t_[0-9a-f]{32}_g[0-9]+_[0-9]+|tmpl_([0-9a-f]{8}_)?[0-9a-f]{32})_m$' and rolvaliduntil < now()
         and not exists (select from pg_stat_activity where usename = rolname) limit 1000 loop
       begin
         if exists (select from pg_database where datname = left(leftover, -2)) then
           execute format('revoke connect on database %I from %I', left(leftover, -2), leftover);
         end if;
         execute format('drop role %I', leftover);
       exception when dependent_objects_still_exist or insufficient_privilege or undefined_object then null;
       end;
     end loop;"
        .to_owned()
}
