//! Ending the sessions of a database's logins, so that nobody goes on under an identity that has changed.
//!
//! Ending a session takes membership in its role. The maintenance role is no lasting member of the logins (each
//! membership makes every check of its rights slower, and there are two for each tenant): it becomes one inside the
//! transaction that ends the sessions, and leaves before the commit.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::logins::login;
use super::sql::{literal, quoted, text};
use super::work::Work;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::Access;

/// A session that is told to end does so at its next look, within milliseconds, unless it writes to a full or broken
/// disk.
const END_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// How long transactions that had begun before may go on: nearly all end within milliseconds, and one that is ended in its
/// commit leaves its client not knowing whether it was done.
const FINISH_MAX: Duration = Duration::from_secs(1);
const FINISH_PAUSE: Duration = Duration::from_millis(5);

/// Ends the sessions of these logins and waits until none is left. New ones must be kept out already: by the right to
/// connect, or by the identity that they read first.
///
/// # Errors
/// [`ErrorKind::Busy`] when one does not end.
pub(super) async fn end(work: &mut Work, database: &str, logins: &[Access]) -> Result<()> {
    let names = names(database, logins);
    let deadline = Instant::now() + END_MAX;
    if !names.is_empty() {
        let_finish(work, database, &names).await?;
    }
    let patience = Instant::now() + FINISH_MAX;
    while is_inhabited(work, database, logins).await? {
        if Instant::now() > deadline {
            let message = format!("a session of {database} does not end; the server's pg_stat_activity shows it");
            return Err(Error::new(ErrorKind::Busy, message));
        }
        terminate(work, database, &names, Instant::now() < patience).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn names(database: &str, logins: &[Access]) -> Vec<String> {
    logins.iter().map(|access| login(database, *access)).collect()
}

/// Waits for the transactions that are open now, not for later ones: a session whose transactions follow each other
/// would never be done.
async fn let_finish(work: &mut Work, database: &str, logins: &[String]) -> Result<()> {
    let deadline = Instant::now() + FINISH_MAX;
    let mut open = transactions(work, database, logins).await?;
    while !open.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(FINISH_PAUSE).await;
        let now = transactions(work, database, logins).await?;
        open.retain(|transaction| now.contains(transaction));
    }
    Ok(())
}

/// Each open transaction holds the lock of its own virtual number, which everybody may see.
async fn transactions(work: &mut Work, database: &str, logins: &[String]) -> Result<HashSet<String>> {
    let (name, logins) = (literal(database), list(logins));
    let answers = work
        .answers(format!(
            "select l.virtualxid::text from pg_locks l join pg_stat_activity a on a.pid = l.pid
             where l.locktype = 'virtualxid' and l.granted and l.mode = 'ExclusiveLock' and a.datname = {name}
             and a.usename in ({logins})"
        ))
        .await?;
    answers.iter().flatten().map(|row| text(row, 0)).collect()
}

/// Takes the right to connect from both logins, if they exist, and ends their sessions.
pub(super) async fn lock_out(work: &mut Work, database: &str) -> Result<()> {
    let both = [Access::Read, Access::Write];
    let names = both.map(|access| literal(&login(database, access))).join(", ");
    let there = work
        .answers(format!(
            "select count(*)::text from pg_roles where rolname in ({names}) \
             and exists (select from pg_database where datname = {})",
            literal(database)
        ))
        .await?;
    if there.iter().flatten().next().map(|row| text(row, 0)).transpose()?.as_deref() != Some("2") {
        return Ok(());
    }
    let logins = both.map(|access| quoted(&login(database, access))).join(", ");
    work.run(format!("revoke connect on database {} from {logins}", quoted(database))).await?;
    end(work, database, &both).await
}

/// Whether one of these logins is in, or anybody is just entering: a session shows only after its right to connect was
/// checked, and holds a lock on the database until then. So the locks are looked at first.
pub(super) async fn is_inhabited(work: &mut Work, database: &str, logins: &[Access]) -> Result<bool> {
    if logins.is_empty() {
        return Ok(false);
    }
    let (name, logins) = (literal(database), list(&names(database, logins)));
    let entering = format!(
        "select count(*)::text from pg_locks l join pg_database d on d.oid = l.objid
         where l.locktype = 'object' and l.classid = 'pg_database'::regclass and l.mode = 'RowExclusiveLock'
         and d.datname = {name} and l.pid <> pg_backend_pid()"
    );
    let inside =
        format!("select count(*)::text from pg_stat_activity where datname = {name} and usename in ({logins})");
    let mut inhabited = false;
    for question in [entering, inside] {
        let answers = work.answers(question).await?;
        for row in answers.iter().flatten() {
            inhabited |= text(row, 0)? != "0";
        }
    }
    Ok(inhabited)
}

/// Who runs a statement just then is let finish it at first, again and again for a while: ended instead, its client could
/// not know whether it was done. What it writes until it is ended counts, as nothing is read from the database before.
/// What is on its way to an idle session when the signal arrives is refused before it runs: the right to write on tables is
/// gone. What a migration made that writes with its owner's rights is not, and may be cut off.
async fn terminate(work: &mut Work, database: &str, logins: &[String], spare_busy: bool) -> Result<()> {
    let which = if spare_busy { "and state is distinct from 'active'" } else { "" };
    let (name, listed) = (literal(database), list(logins));
    let roles = logins.iter().map(|login| quoted(login)).collect::<Vec<_>>().join(", ");
    // One at a time for a database: two would grant and revoke across each other.
    let lock = super::ledger::lock_key(database);
    work.run(format!(
        "begin;
         select pg_advisory_xact_lock({lock});
         grant {roles} to current_user;
         select pg_terminate_backend(pid) from pg_stat_activity where datname = {name} and usename in ({listed}) {which};
         revoke {roles} from current_user;
         commit;"
    ))
    .await
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ")
}
