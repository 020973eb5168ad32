//! The verb `template`: the database `tmpl_<digest>` of a server, at the head of a set, which new tenants are copies
//! of and which nobody can enter.
//!
//! It counts as finished when the server says that it is a template, which is the last thing that is done to it; one
//! that a killed process left is dropped and made again. An advisory lock makes processes take turns, a lock in memory
//! the callers of one process. What is remembered is the set, too: if somebody drops a template, the next copy makes it
//! again.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::database::{self, Made};
use super::migrate::{Job, bring};
use super::prepare::{self, OWNER, SERVER_LOCK};
use super::site::Site;
use super::sql::{literal, quoted, text};
use super::work::Work;
use super::{PostgresEngine, layout};
use crate::engine::Template;
use crate::error::{Error, ErrorKind, Result};
use crate::migration::MigrationSet;
use crate::server::Server;

/// Templates remembered for each server: one release is current, a rollout and a rehearsal add a few.
const TEMPLATES_MAX: usize = 8;
/// Digits of the digest in the name: 128 bits tell sets apart, and the server allows 63 bytes.
const DIGITS: usize = 32;
/// Another process may be applying a long set to an empty database just now.
const TURN_MAX: &str = "5min";
/// Not the lock of the roles, which is taken while this one is held.
const TEMPLATE_LOCK: i64 = SERVER_LOCK + 1;

/// A template and what it is made from.
pub(super) struct Known {
    pub(super) template: Arc<Template>,
    set: MigrationSet,
}

/// See [`crate::Engine::template`].
pub(super) async fn template(engine: &PostgresEngine, on: &Server, set: &MigrationSet) -> Result<Arc<Template>> {
    let site = engine.site_of(on)?;
    let mut known = site.templates.lock().await;
    if let Some(found) = known.iter().find(|known| known.template.digest == set.digest()) {
        return Ok(Arc::clone(&found.template));
    }
    make(&site, &mut known, set).await
}

/// Makes one again that is remembered and was dropped by somebody.
///
/// # Errors
/// [`ErrorKind::Busy`] when it is not remembered: whoever asks for the template again gets it.
pub(super) async fn make_again(site: &Site, digest: &str) -> Result<()> {
    let mut known = site.templates.lock().await;
    let Some(at) = known.iter().position(|known| known.template.digest == digest) else {
        return Err(Error::new(ErrorKind::Busy, "the template of this release is gone from the server"));
    };
    let set = known.remove(at).expect("it was just found").set;
    make(site, &mut known, &set).await.map(drop)
}

async fn make(site: &Site, known: &mut VecDeque<Known>, set: &MigrationSet) -> Result<Arc<Template>> {
    prepare::ensure(site).await?;
    let template = Arc::new(ensure(site, set).await?);
    if known.len() >= TEMPLATES_MAX {
        known.pop_front();
    }
    known.push_back(Known { template: Arc::clone(&template), set: set.clone() });
    Ok(template)
}

/// The name of the template with this digest.
pub(super) fn name(digest: &str) -> String {
    format!("tmpl_{}", digest.get(..DIGITS).unwrap_or(digest))
}

/// While the connection lives it is our turn; if this process dies, the server notices and it is another's.
async fn ensure(site: &Site, set: &MigrationSet) -> Result<Template> {
    let mut turn = site.center().await?;
    // Our turn is as long as the building takes, and this connection is idle meanwhile.
    turn.run(format!(
        "set idle_session_timeout = 0; set lock_timeout = '{TURN_MAX}'; select pg_advisory_lock({TEMPLATE_LOCK});
         reset lock_timeout"
    ))
    .await?;
    let name = name(set.digest());
    if !is_finished(&mut turn, &name).await? {
        build(site, &mut turn, &name, set).await?;
    }
    let size = turn.answers(format!("select pg_database_size({})::text", literal(&name))).await?;
    let size = size.iter().flatten().next().map(|row| text(row, 0)).transpose()?;
    turn.run(format!("select pg_advisory_unlock({TEMPLATE_LOCK}); reset idle_session_timeout")).await?;
    site.leave(turn);
    Ok(Template {
        digest: set.digest().to_owned(),
        schema_version: set.head(),
        image: Bytes::new(),
        size_bytes: size.and_then(|size| size.parse().ok()).unwrap_or_default(),
    })
}

async fn is_finished(turn: &mut Work, name: &str) -> Result<bool> {
    let sql = format!("select 1 from pg_database where datname = {} and datistemplate", literal(name));
    Ok(turn.answers(sql).await?.iter().any(|rows| !rows.is_empty()))
}

async fn build(site: &Site, turn: &mut Work, name: &str, set: &MigrationSet) -> Result<()> {
    if create(turn, name).await? == Made::Before {
        turn.run(format!("drop database if exists {} with (force)", quoted(name))).await?;
        create(turn, name).await?;
    }
    let open = quoted(name);
    turn.run(format!(
        "begin;
         revoke all on database {open} from public;
         grant connect, create, temporary on database {open} to {OWNER};
         alter database {open} with allow_connections true;
         commit;"
    ))
    .await?;
    let filled = fill(site, name, set).await;
    if filled.is_err() {
        turn.run(format!("drop database if exists {} with (force)", quoted(name))).await?;
    }
    filled?;
    seal(turn, name).await?;
    turn.run(format!("alter database {} with is_template true", quoted(name))).await
}

async fn create(turn: &mut Work, name: &str) -> Result<Made> {
    database::create(turn, name, "template0").await.map_err(super::work::Why::into_ours)
}

async fn fill(site: &Site, name: &str, set: &MigrationSet) -> Result<()> {
    let mut work = site.enter(name).await?;
    work.run(layout::statements()).await?;
    work.close().await;
    bring(&Job { site, database: name, expected: None, set, target: None }).await.map(drop)
}

/// Lets nobody in any more, and ends who is in: one session delays every copy by seconds and then fails it.
pub(super) async fn seal(center: &mut Work, name: &str) -> Result<()> {
    center
        .run(format!(
            "alter database {} with allow_connections false;
             select pg_terminate_backend(pid) from pg_stat_activity
             where datname = {} and backend_type = 'client backend'",
            quoted(name),
            literal(name)
        ))
        .await
}
