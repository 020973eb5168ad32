//! The login that migrates and restores one database: made before each use, dropped after it.
//!
//! SQL from outside runs as this login: migrations, dumps, and the functions and triggers in both. Such SQL may leave
//! `fleet_owner` and change the login itself: its password, its settings, who is a member of it. So no other database
//! may depend on it. It is a member of `fleet_owner` that inherits nothing, and the right to connect is its own, so it
//! enters this database only. [`admit`] makes it, or gives one that is there its password and settings again;
//! [`dismiss`] drops it. What a dead process left expires, and `prepare.rs` drops it then.
//!
//! Such SQL may also take rights of `fleet_owner` on every database (`drop owned`). [`admit`] gives them back first.

use super::ledger::lock_key;
use super::logins;
use super::prepare::{self, OWNER};
use super::site::Site;
use super::sql::{literal, quoted};
use super::work::{ConnectError, Why, Work, from_ours_connect};
use super::{error, reassert};
use crate::error::{Error, ErrorKind, Result};

/// Longer than a restore or the longest file of statements may take.
const VALID_FOR: &str = "2 days";
/// A session that ended shows for some milliseconds more. One that shows after these looks is another process's, which
/// drops the login when it ends.
const LOOKS: u32 = 40;
/// Between two looks, in seconds.
const LOOK_PAUSE: &str = "0.005";
/// A fence of the same database changes the same row of `pg_database` at most a few times.
const ATTEMPTS: u32 = 4;

/// A connection of the login that migrates, from the start in the role that owns every tenant's objects. It ends with
/// [`leave`].
///
/// # Errors
/// [`ErrorKind::ServerPrivilege`] when the maintenance role may not make logins; faults of the server.
pub(super) async fn enter(site: &Site, database: &str) -> Result<Work> {
    admit(site, database).await?;
    let connect = || Work::migration(&site.server, site.patience, database);
    match connect().await {
        Ok(work) => Ok(work),
        // Another process dropped the login just now, because its own use ended.
        Err(ConnectError::Refused(error)) if is_gone(&error) => {
            admit(site, database).await?;
            connect().await.map_err(from_ours_connect)
        }
        Err(failed) => Err(from_ours_connect(failed)),
    }
}

/// A connection of the login, which the caller has admitted and dismisses.
///
/// # Errors
/// Faults of the server.
pub(super) async fn connect(site: &Site, database: &str) -> Result<Work> {
    Work::migration(&site.server, site.patience, database).await.map_err(from_ours_connect)
}

/// No such login, another password, no right to connect, or no such role to be in.
fn is_gone(error: &sqlx::Error) -> bool {
    matches!(error::code(error).as_deref(), Some("28000" | "28P01" | "22023" | "42501"))
}

/// Closes a connection of [`enter`] and drops its login. A failure leaves a login that expires: no reason to fail what
/// was done.
pub(super) async fn leave(site: &Site, database: &str, work: Work) {
    work.close().await;
    if let Err(error) = dismiss(site, database).await {
        tracing::debug!(database, error = %error, "the login of a migration stays until it expires");
    }
}

/// Makes the login ready for one use.
///
/// # Errors
/// [`ErrorKind::ServerPrivilege`] when the maintenance role may not make logins; faults of the server.
pub(super) async fn admit(site: &Site, database: &str) -> Result<()> {
    prepare::ensure(site).await?;
    match run(site, admission(site, database)).await {
        // Somebody dropped `fleet_owner`.
        Err(why) if why.code() == "42704" => {
            prepare::repair(site).await?;
            run(site, admission(site, database)).await.map_err(Why::into_ours)
        }
        outcome => outcome.map_err(|why| missing(why, database)),
    }
}

/// Drops the login, unless another process uses it.
///
/// # Errors
/// Faults of the server.
pub(super) async fn dismiss(site: &Site, database: &str) -> Result<()> {
    run(site, dismissal(database)).await.map_err(Why::into_ours)
}

async fn run(site: &Site, sql: String) -> Result<(), Why> {
    let mut attempt = 1;
    loop {
        let mut center = site.center().await.map_err(Why::Silent)?;
        match center.try_answers(sql.clone()).await {
            Ok(_) => {
                site.leave(center);
                return Ok(());
            }
            // "Tuple concurrently updated": a fence gave or took a right on the same database.
            Err(why) if why.code() == "XX000" && attempt < ATTEMPTS => attempt += 1,
            Err(why) => return Err(why),
        }
    }
}

fn missing(why: Why, database: &str) -> Error {
    match why.code().as_str() {
        "3D000" => Error::new(ErrorKind::Missing, format!("database \"{database}\" does not exist")),
        _ => why.into_ours(),
    }
}

/// In one transaction, which needs no flush: a login that a crash of the server undid is made again.
fn transaction(database: &str, declare: &str, body: &str) -> String {
    let lock = lock_key(database);
    format!(
        "begin;
         set local synchronous_commit = off;
         select pg_advisory_xact_lock({lock});
         do $fleet$ declare {declare} begin {body} end $fleet$;
         commit;"
    )
}

fn admission(site: &Site, database: &str) -> String {
    let login = logins::migrator(database);
    let verifier = literal(&site.server.verifier(&login));
    let (name, text, on) = (quoted(&login), literal(&login), quoted(database));
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
        reassert::statements(&site.server, database),
    );
    transaction(database, reassert::DECLARATIONS, &body)
}

/// What `fleet_owner` has on the database: no right to connect, which would be every such login's.
fn owners_rights(database: &str) -> String {
    let (text, on) = (literal(database), quoted(database));
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

/// A login that something depends on, because SQL gave it a right or an object, stays and may do nothing.
fn dismissal(database: &str) -> String {
    let login = logins::migrator(database);
    let (name, text) = (quoted(&login), literal(&login));
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
        literal(database),
        quoted(database),
        powerless(&login),
    );
    transaction(database, "", &body)
}

/// A role that nobody can enter, and that is a member of nothing of ours.
pub(super) fn powerless(role: &str) -> String {
    let name = quoted(role);
    format!(
        "alter role {name} nologin noinherit password null; alter role {name} reset all; revoke {OWNER} from {name};"
    )
}

/// Drops the logins that dead processes left, once they have expired; another fleet's stay.
pub(super) fn sweep() -> String {
    "for leftover in select rolname::text from pg_roles
         where rolname ~ '^(t_[0-9a-f]{32}_g[0-9]+_[0-9]+|tmpl_[0-9a-f]{32})_m$' and rolvaliduntil < now()
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
