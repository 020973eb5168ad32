//! Ends the sessions of a database's logins, so that no session continues under an identity that has changed.
//!
//! Ending a session requires membership in its role. The maintenance role is not a permanent member of the logins: each
//! membership makes every check of its rights slower, and each tenant has two logins. It becomes a member inside the
//! transaction that ends the sessions, and leaves before the commit.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::admin_connection::AdminConnection;
use super::logins::login_name;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::migration_lock::lock_key;
use crate::postgres::sql::{quoted_name, sql_literal, text_column};
use crate::statement::AccessMode;

/// A session that is told to end does so at its next check, within milliseconds, unless it writes to a full or broken
/// disk.
const END_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// How long transactions that began before may continue. Nearly all end within milliseconds. If one is ended during its
/// commit, its client does not know whether the commit happened.
const FINISH_MAX: Duration = Duration::from_secs(1);
const FINISH_PAUSE: Duration = Duration::from_millis(5);

/// Ends the sessions of these logins and waits until none is left. New sessions must already be kept out, by the right
/// to connect or by the identity that they read first.
///
/// # Errors
/// [`ErrorKind::Busy`] when a session does not end.
pub(in crate::postgres) async fn end_sessions(
    work: &mut AdminConnection,
    database: &str,
    logins: &[AccessMode],
) -> Result<()> {
    let names = login_names(database, logins);
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
        terminate_sessions(work, database, &names, Instant::now() < patience).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn login_names(database: &str, logins: &[AccessMode]) -> Vec<String> {
    logins.iter().map(|access| login_name(database, *access)).collect()
}

/// Waits for the transactions that are open now, not for later ones. A session with one transaction right after the
/// other would never be finished.
async fn let_finish(work: &mut AdminConnection, database: &str, logins: &[String]) -> Result<()> {
    let deadline = Instant::now() + FINISH_MAX;
    let mut open = open_transactions(work, database, logins).await?;
    while !open.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(FINISH_PAUSE).await;
        let now = open_transactions(work, database, logins).await?;
        open.retain(|transaction| now.contains(transaction));
    }
    Ok(())
}

/// Each open transaction holds the lock of its own virtual number, which every role may see.
async fn open_transactions(work: &mut AdminConnection, database: &str, logins: &[String]) -> Result<HashSet<String>> {
    let (name, logins) = (sql_literal(database), literal_list(logins));
    let answers = work
        .fetch_answers(format!(
            "select l.virtualxid::text from pg_locks l join pg_stat_activity a on a.pid = l.pid
             where l.locktype = 'virtualxid' and l.granted and l.mode = 'ExclusiveLock' and a.datname = {name}
             and a.usename in ({logins})"
        ))
        .await?;
    answers.iter().flatten().map(|row| text_column(row, 0)).collect()
}

/// Revokes the right to connect from both logins, if they exist, and ends their sessions.
pub(super) async fn lock_out(work: &mut AdminConnection, database: &str) -> Result<()> {
    let both = [AccessMode::Read, AccessMode::Write];
    let names = both.map(|access| sql_literal(&login_name(database, access))).join(", ");
    let there = work
        .fetch_answers(format!(
            "select count(*)::text from pg_roles where rolname in ({names}) \
             and exists (select from pg_database where datname = {})",
            sql_literal(database)
        ))
        .await?;
    if there.iter().flatten().next().map(|row| text_column(row, 0)).transpose()?.as_deref() != Some("2") {
        return Ok(());
    }
    let logins = both.map(|access| quoted_name(&login_name(database, access))).join(", ");
    work.run_sql(format!("revoke connect on database {} from {logins}", quoted_name(database))).await?;
    end_sessions(work, database, &both).await
}

/// Whether a session of one of these logins is in the database, or any session is just connecting. A session becomes
/// visible only after its right to connect was checked, and holds a lock on the database until then. So the locks are
/// checked first.
pub(in crate::postgres) async fn is_inhabited(
    work: &mut AdminConnection,
    database: &str,
    logins: &[AccessMode],
) -> Result<bool> {
    if logins.is_empty() {
        return Ok(false);
    }
    let (name, logins) = (sql_literal(database), literal_list(&login_names(database, logins)));
    let entering = format!(
        "select count(*)::text from pg_locks l join pg_database d on d.oid = l.objid
         where l.locktype = 'object' and l.classid = 'pg_database'::regclass and l.mode = 'RowExclusiveLock'
         and d.datname = {name} and l.pid <> pg_backend_pid()"
    );
    let inside =
        format!("select count(*)::text from pg_stat_activity where datname = {name} and usename in ({logins})");
    let mut inhabited = false;
    for question in [entering, inside] {
        let answers = work.fetch_answers(question).await?;
        for row in answers.iter().flatten() {
            inhabited |= text_column(row, 0)? != "0";
        }
    }
    Ok(inhabited)
}

/// Ends the sessions. At first it spares those that run a statement, so that they can finish, and it is called again
/// for a while: a client whose statement is interrupted cannot know whether it was done. What such a session writes
/// until it ends counts, because the database is not read before. A statement that reaches an idle session just before
/// the signal is refused, because the right to write to tables has been revoked. A function of a migration that writes
/// with its owner's rights is not refused, and may be interrupted.
async fn terminate_sessions(
    work: &mut AdminConnection,
    database: &str,
    logins: &[String],
    spare_busy: bool,
) -> Result<()> {
    let which = if spare_busy { "and state is distinct from 'active'" } else { "" };
    let (name, listed) = (sql_literal(database), literal_list(logins));
    let roles = logins.iter().map(|login| quoted_name(login)).collect::<Vec<_>>().join(", ");
    // One caller at a time for a database: two callers would grant and revoke at cross purposes.
    let lock = lock_key(database);
    work.run_sql(format!(
        "begin;
         select pg_advisory_xact_lock({lock});
         grant {roles} to current_user;
         select pg_terminate_backend(pid) from pg_stat_activity where datname = {name} and usename in ({listed}) {which};
         revoke {roles} from current_user;
         commit;"
    ))
    .await
}

fn literal_list(names: &[String]) -> String {
    names.iter().map(|name| sql_literal(name)).collect::<Vec<_>>().join(", ")
}
