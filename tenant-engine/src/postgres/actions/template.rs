//! Implements [`crate::Engine::prepare_template`]: the database `tmpl_<fleet>_<digest>` on a server, at the newest
//! version of a set. New tenants are copied from it, and it accepts no connections. Fleets that share a server may have
//! different roles, so each fleet has its own.
//!
//! If the server has a template of an earlier release, a copy of it is continued, so only the new versions are applied.
//! A template counts as finished when the server marks it as a template, which is the last step of building it. An
//! unfinished one that a killed process left is dropped and built again. An advisory lock makes processes take turns; a
//! lock in memory does so for the callers of one process. The set is remembered, too: if a template is dropped, the
//! next copy builds it again.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::engine::DatabaseTemplate;
use crate::error::{Error, ErrorKind, Result};
use crate::migration::MigrationSet;
use crate::postgres::PostgresEngine;
use crate::postgres::migrations::apply::{MigrationJob, apply_pending};
use crate::postgres::migrations::layout;
use crate::postgres::servers::admin_connection::AdminConnection;
use crate::postgres::servers::database::{self, DatabaseCreation};
use crate::postgres::servers::prepare::{self, OWNER, SERVER_LOCK};
use crate::postgres::servers::rights::{self, BaseTemplate};
use crate::postgres::servers::server::PostgresServer;
use crate::postgres::servers::server_state::{KnownTemplate, PostgresServerState};
use crate::postgres::sql::{quoted_name, sql_literal, text_column};
use crate::server::DatabaseServer;

/// Templates remembered for each server: one release is current, a rollout and a rehearsal add a few.
const TEMPLATES_MAX: usize = 8;
/// Number of earlier releases that are considered as a starting point.
const EARLIER_MAX: usize = 256;
/// Digits of the digest in the name: 128 bits distinguish sets, and the server allows 63 bytes.
const DIGITS: usize = 32;
/// Another process may be applying a long set to an empty database at this moment.
const TURN_MAX: &str = "5min";
/// Different from the lock of the roles, which is taken while this one is held.
const TEMPLATE_LOCK: i64 = SERVER_LOCK + 1;

/// See [`crate::Engine::prepare_template`].
pub(in crate::postgres) async fn prepare_template(
    engine: &PostgresEngine,
    on: &DatabaseServer,
    set: &MigrationSet,
) -> Result<Arc<DatabaseTemplate>> {
    let site = engine.state_of_server(on)?;
    let mut known = site.templates.lock().await;
    if let Some(found) = known.iter().find(|known| known.template.digest == set.set_digest()) {
        return Ok(Arc::clone(&found.template));
    }
    make_template(&site, &mut known, set).await
}

/// Builds a remembered template again after it was dropped.
///
/// # Errors
/// [`ErrorKind::Busy`] when it is not remembered: the caller gets it by asking for the template again.
pub(super) async fn make_again(site: &PostgresServerState, digest: &str) -> Result<()> {
    let mut known = site.templates.lock().await;
    let Some(at) = known.iter().position(|known| known.template.digest == digest) else {
        return Err(Error::new(ErrorKind::Busy, "the template of this release is gone from the server"));
    };
    let set = known.remove(at).expect("it was just found").set;
    make_template(site, &mut known, &set).await.map(drop)
}

async fn make_template(
    site: &PostgresServerState,
    known: &mut VecDeque<KnownTemplate>,
    set: &MigrationSet,
) -> Result<Arc<DatabaseTemplate>> {
    prepare::ensure_roles(site).await?;
    let template = Arc::new(ensure_template(site, set).await?);
    if known.len() >= TEMPLATES_MAX {
        known.pop_front();
    }
    known.push_back(KnownTemplate { template: Arc::clone(&template), set: set.clone() });
    Ok(template)
}

/// The name of this fleet's template with this digest. The server's key of logins distinguishes fleets.
pub(super) fn template_name(server: &PostgresServer, digest: &str) -> String {
    format!("tmpl_{}_{}", server.key_id(), digest.get(..DIGITS).unwrap_or(digest))
}

/// The name of the template in earlier versions, without the fleet.
fn former_name(digest: &str) -> String {
    format!("tmpl_{}", digest.get(..DIGITS).unwrap_or(digest))
}

/// Builds the template while this connection holds the lock. If this process dies, the server ends the session and
/// releases the lock to another process.
async fn ensure_template(site: &PostgresServerState, set: &MigrationSet) -> Result<DatabaseTemplate> {
    let mut turn = site.maintenance_connection().await?;
    // The lock is held as long as the building takes, and this connection is idle meanwhile.
    turn.run_sql(format!(
        "set idle_session_timeout = 0; set lock_timeout = '{TURN_MAX}'; select pg_advisory_lock({TEMPLATE_LOCK});
         reset lock_timeout"
    ))
    .await?;
    let name = template_name(&site.server, set.set_digest());
    let base = rights::base_template(&mut turn).await?;
    if !is_finished(&mut turn, &name, &base).await? && !take_former(&mut turn, &name, set.set_digest(), &base).await? {
        build_template(site, &mut turn, &name, set, &base).await?;
    }
    let size = turn.fetch_answers(format!("select pg_database_size({})::text", sql_literal(&name))).await?;
    let size = size.iter().flatten().next().map(|row| text_column(row, 0)).transpose()?;
    turn.run_sql(format!("select pg_advisory_unlock({TEMPLATE_LOCK}); reset idle_session_timeout")).await?;
    site.return_connection(turn);
    Ok(DatabaseTemplate {
        digest: set.set_digest().to_owned(),
        schema_version: set.head_version(),
        image: Bytes::new(),
        size_bytes: size.and_then(|size| size.parse().ok()).unwrap_or_default(),
    })
}

async fn is_finished(turn: &mut AdminConnection, name: &str, base: &BaseTemplate) -> Result<bool> {
    let sql = format!("select 1 from pg_database where datname = {} and {}", sql_literal(name), usable_condition(base));
    Ok(turn.fetch_answers(sql).await?.iter().any(|rows| !rows.is_empty()))
}

/// Takes over a template of an earlier version of this program, if it belongs to the maintenance role. Another fleet
/// with this role builds it again when needed.
async fn take_former(turn: &mut AdminConnection, name: &str, digest: &str, base: &BaseTemplate) -> Result<bool> {
    let former = former_name(digest);
    let own = "datdba = (select oid from pg_roles where rolname = current_user)";
    let sql = format!(
        "select 1 from pg_database where datname = {} and {own} and {}",
        sql_literal(&former),
        usable_condition(base)
    );
    if turn.fetch_answers(sql).await?.iter().all(Vec::is_empty) {
        return Ok(false);
    }
    // Refused while a copy is being made, or where an unfinished template has the name; then the template is built.
    Ok(turn.run_sql(format!("alter database {} rename to {}", quoted_name(&former), quoted_name(name))).await.is_ok())
}

/// Excludes templates that were made before the server was prepared, because their copies would have rights that they
/// must not have.
fn usable_condition(base: &BaseTemplate) -> String {
    let marked = |mark: &String| format!(" and shobj_description(oid, 'pg_database') = {}", sql_literal(mark));
    format!("datistemplate{}", base.mark.as_ref().map(marked).unwrap_or_default())
}

/// The finished template of the newest release that this set continues.
async fn earlier_template(
    site: &PostgresServerState,
    turn: &mut AdminConnection,
    set: &MigrationSet,
    base: &BaseTemplate,
) -> Result<Option<String>> {
    let mut names: Vec<String> =
        set.earlier_digests().iter().map(|digest| template_name(&site.server, digest)).collect();
    names.truncate(EARLIER_MAX);
    if names.is_empty() {
        return Ok(None);
    }
    let listed: Vec<String> = names.iter().map(|name| sql_literal(name)).collect();
    let (usable, listed) = (usable_condition(base), listed.join(", "));
    let sql = format!("select datname from pg_database where {usable} and datname in ({listed})");
    let answers = turn.fetch_answers(sql).await?;
    let found = answers.iter().flatten().map(|row| text_column(row, 0)).collect::<Result<Vec<_>>>()?;
    Ok(names.into_iter().find(|name| found.contains(name)))
}

async fn build_template(
    site: &PostgresServerState,
    turn: &mut AdminConnection,
    name: &str,
    set: &MigrationSet,
    base: &BaseTemplate,
) -> Result<()> {
    let from = start_copy(site, turn, name, set, base).await?;
    let mut made = attempt_build(site, turn, name, set, from).await;
    if made.is_err() && from == TemplateStart::Earlier && base.mark.is_some() {
        // The base may have something that the earlier template lacks: an extension that a superuser created there.
        create_anew(turn, name, base.name).await?;
        made = attempt_build(site, turn, name, set, TemplateStart::Nothing).await;
    }
    made?;
    let comment = base.mark.as_deref().map_or_else(|| "null".to_owned(), sql_literal);
    turn.run_sql(format!("comment on database {} is {comment}", quoted_name(name))).await?;
    turn.run_sql(format!("alter database {} with is_template true", quoted_name(name))).await
}

/// Migrates the copy; a copy that cannot be migrated is dropped.
async fn attempt_build(
    site: &PostgresServerState,
    turn: &mut AdminConnection,
    name: &str,
    set: &MigrationSet,
    from: TemplateStart,
) -> Result<()> {
    let open = quoted_name(name);
    turn.run_sql(format!(
        "begin;
         revoke all on database {open} from public;
         grant create, temporary on database {open} to {OWNER};
         alter database {open} with allow_connections true;
         commit;"
    ))
    .await?;
    let filled = migrate_template(site, name, set, from).await;
    if filled.is_err() {
        turn.run_sql(format!("drop database if exists {open} with (force)")).await?;
    }
    filled?;
    seal_template(turn, name).await
}

/// The database from which a template is copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TemplateStart {
    Nothing,
    Earlier,
}

async fn start_copy(
    site: &PostgresServerState,
    turn: &mut AdminConnection,
    name: &str,
    set: &MigrationSet,
    base: &BaseTemplate,
) -> Result<TemplateStart> {
    if let Some(earlier) = earlier_template(site, turn, set, base).await?
        && create_anew(turn, name, &earlier).await.is_ok()
    {
        return Ok(TemplateStart::Earlier);
    }
    create_anew(turn, name, base.name).await?;
    Ok(TemplateStart::Nothing)
}

/// Drops what a killed process left and creates the database again.
async fn create_anew(turn: &mut AdminConnection, name: &str, from: &str) -> Result<()> {
    let made = database::create_copy(turn, name, from)
        .await
        .map_err(crate::postgres::error::AdminConnectionError::into_ours)?;
    if made == DatabaseCreation::Before {
        turn.run_sql(format!("alter database {} with is_template false", quoted_name(name))).await?;
        turn.run_sql(format!("drop database if exists {} with (force)", quoted_name(name))).await?;
        database::create_copy(turn, name, from)
            .await
            .map_err(crate::postgres::error::AdminConnectionError::into_ours)?;
    }
    Ok(())
}

async fn migrate_template(
    site: &PostgresServerState,
    name: &str,
    set: &MigrationSet,
    from: TemplateStart,
) -> Result<()> {
    if from == TemplateStart::Nothing {
        let mut work = site.open_connection(name).await?;
        work.run_sql(layout::layout_sql(set.ledger())).await?;
        work.close().await;
    }
    apply_pending(&MigrationJob { site, database: name, expected: None, set, target: None }).await.map(drop)
}

/// Refuses new sessions and ends the existing ones: a single session delays every copy by seconds and then makes it
/// fail.
pub(super) async fn seal_template(center: &mut AdminConnection, name: &str) -> Result<()> {
    center
        .run_sql(format!(
            "alter database {} with allow_connections false;
             select pg_terminate_backend(pid) from pg_stat_activity
             where datname = {} and backend_type = 'client backend'",
            quoted_name(name),
            sql_literal(name)
        ))
        .await
}
