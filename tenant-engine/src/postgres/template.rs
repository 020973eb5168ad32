//! The verb `template`: the database `tmpl_<digest>` of a server, at the head of a set, which new tenants are copies
//! of and which nobody can enter.
//!
//! One of an earlier release is gone on from, if the server has it: only what is new is applied then.
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
use super::rights::{self, Base};
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
/// Releases looked back for one to go on from.
const EARLIER_MAX: usize = 256;
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
    let base = rights::base(&mut turn).await?;
    if !is_finished(&mut turn, &name, &base).await? {
        build(site, &mut turn, &name, set, &base).await?;
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

async fn is_finished(turn: &mut Work, name: &str, base: &Base) -> Result<bool> {
    let sql = format!("select 1 from pg_database where datname = {} and {}", literal(name), usable(base));
    Ok(turn.answers(sql).await?.iter().any(|rows| !rows.is_empty()))
}

/// One that was made before the server was prepared gives its copies rights that they must not have.
fn usable(base: &Base) -> String {
    let marked = |mark: &String| format!(" and shobj_description(oid, 'pg_database') = {}", literal(mark));
    format!("datistemplate{}", base.mark.as_ref().map(marked).unwrap_or_default())
}

/// The finished template of the newest release that this set goes on from.
async fn earlier(turn: &mut Work, set: &MigrationSet, base: &Base) -> Result<Option<String>> {
    let mut names: Vec<String> = set.earlier_digests().iter().map(|digest| name(digest)).collect();
    names.truncate(EARLIER_MAX);
    if names.is_empty() {
        return Ok(None);
    }
    let listed: Vec<String> = names.iter().map(|name| literal(name)).collect();
    let (usable, listed) = (usable(base), listed.join(", "));
    let sql = format!("select datname from pg_database where {usable} and datname in ({listed})");
    let answers = turn.answers(sql).await?;
    let found = answers.iter().flatten().map(|row| text(row, 0)).collect::<Result<Vec<_>>>()?;
    Ok(names.into_iter().find(|name| found.contains(name)))
}

async fn build(site: &Site, turn: &mut Work, name: &str, set: &MigrationSet, base: &Base) -> Result<()> {
    let from = start(turn, name, set, base).await?;
    let mut made = attempt(site, turn, name, set, from).await;
    if made.is_err() && from == From::Earlier && base.mark.is_some() {
        // The base may have what the earlier template lacks: an extension that a superuser created there.
        create(turn, name, base.name).await?;
        made = attempt(site, turn, name, set, From::Nothing).await;
    }
    made?;
    let comment = base.mark.as_deref().map_or_else(|| "null".to_owned(), literal);
    turn.run(format!("comment on database {} is {comment}", quoted(name))).await?;
    turn.run(format!("alter database {} with is_template true", quoted(name))).await
}

/// Migrates what was copied; one that cannot be migrated is dropped.
async fn attempt(site: &Site, turn: &mut Work, name: &str, set: &MigrationSet, from: From) -> Result<()> {
    let open = quoted(name);
    turn.run(format!(
        "begin;
         revoke all on database {open} from public;
         grant create, temporary on database {open} to {OWNER};
         alter database {open} with allow_connections true;
         commit;"
    ))
    .await?;
    let filled = fill(site, name, set, from).await;
    if filled.is_err() {
        turn.run(format!("drop database if exists {open} with (force)")).await?;
    }
    filled?;
    seal(turn, name).await
}

/// What a template was copied from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Nothing,
    Earlier,
}

async fn start(turn: &mut Work, name: &str, set: &MigrationSet, base: &Base) -> Result<From> {
    if let Some(earlier) = earlier(turn, set, base).await?
        && create(turn, name, &earlier).await.is_ok()
    {
        return Ok(From::Earlier);
    }
    create(turn, name, base.name).await?;
    Ok(From::Nothing)
}

/// What a process left that was killed at this is made anew.
async fn create(turn: &mut Work, name: &str, from: &str) -> Result<()> {
    let made = database::create(turn, name, from).await.map_err(super::work::Why::into_ours)?;
    if made == Made::Before {
        turn.run(format!("alter database {} with is_template false", quoted(name))).await?;
        turn.run(format!("drop database if exists {} with (force)", quoted(name))).await?;
        database::create(turn, name, from).await.map_err(super::work::Why::into_ours)?;
    }
    Ok(())
}

async fn fill(site: &Site, name: &str, set: &MigrationSet, from: From) -> Result<()> {
    if from == From::Nothing {
        let mut work = site.enter(name).await?;
        work.run(layout::statements()).await?;
        work.close().await;
    }
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
