//! The verb `survey`: what a server is, and what the role that we were given lacks on it. Changes nothing.

use std::time::Duration;

use super::requests::capacity;
use super::sql::{quoted, text};
use super::work::Work;
use super::{PostgresEngine, prepare, rights};
use crate::error::{Error, ErrorKind, Result};
use crate::server::{Server, Survey};

/// What this program is tested with, counted as the server does; before it every login may make tables in `public`.
const VERSION_MIN: u32 = 150_000;
/// Adding up the sizes of thousands of databases takes long; it is a hint, not worth more.
const SIZE_MAX: Duration = Duration::from_secs(2);

/// Everything in one round trip. Whether a role may be entered is asked only if it exists.
const QUESTIONS: &str = "
    select current_setting('server_version'), (select system_identifier::text from pg_control_system()),
        (select count(*)::text from pg_stat_activity where backend_type = 'client backend'),
        (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true), '0')::int)::text,
        current_user::text
";

/// See [`crate::Engine::survey`].
pub(super) async fn survey(engine: &PostgresEngine, server: &Server) -> Result<Survey> {
    let site = engine.site_of(server)?;
    let _slot = site.slot().await?;
    // A new connection: whether these credentials are good is part of the question.
    let mut work = site.enter(&site.server.dsn().database()).await?;
    let answers = work.answers(QUESTIONS).await?;
    let row = answers.iter().flatten().next();
    let row = row.ok_or_else(|| Error::new(ErrorKind::Internal, "the server did not answer the survey"))?;
    let count = |column| text(row, column).map(|count| count.parse().ok());
    let survey = Survey {
        version: format!("PostgreSQL {}", text(row, 0)?),
        system_id: Some(text(row, 1)?),
        lacks: lacks(&mut work, &text(row, 4)?).await?,
        function_rights: rights::look(&site, &mut work).await.ok(),
        connections_used: count(2)?,
        connections_max: count(3)?,
        connections_budget: count(3)?.map(budget),
        databases_bytes: size(&mut work).await,
        ..Survey::default()
    };
    work.close().await;
    Ok(survey)
}

/// What requests of all processes share, as far as the maintenance role itself is not limited.
fn budget(usable: u64) -> u64 {
    capacity::of_usable(usize::try_from(usable).unwrap_or(usize::MAX), None) as u64
}

/// In words an administrator can act on. A superuser lacks nothing.
async fn lacks(work: &mut Work, role: &str) -> Result<Vec<String>> {
    let mut lacks = Vec::new();
    if work.version() < VERSION_MIN {
        lacks.push(format!("PostgreSQL {} or newer", VERSION_MIN / 10_000));
    }
    if is_some(work, "select 1::text where pg_is_in_recovery()").await? {
        lacks.push("the right to write: this is a standby, name the primary".to_owned());
    }
    let name = quoted(role);
    let attributes = "select rolname from pg_roles where rolname = current_user and not rolsuper and not ";
    for (attribute, right) in [("rolcreatedb", "createdb"), ("rolcreaterole", "createrole"), ("rolinherit", "inherit")]
    {
        if is_some(work, &format!("{attributes}{attribute}")).await? {
            lacks.push(format!("{}: alter role {name} {right}", right.to_uppercase()));
        }
    }
    for group in [prepare::OWNER, prepare::READ, prepare::WRITE] {
        // Who may create roles, or is its administrator, makes itself a member.
        let asked = format!(
            "select rolname from pg_roles where rolname = '{group}' and not pg_has_role(current_user, oid, 'usage')
             and not pg_has_role(current_user, oid, 'member with admin option')
             and (current_setting('server_version_num')::int >= 160000
                  or not (select rolcreaterole from pg_roles where rolname = current_user))"
        );
        if is_some(work, &asked).await? {
            lacks.push(format!("membership: grant {group} to {name} with admin option"));
        }
    }
    Ok(lacks)
}

async fn is_some(work: &mut Work, question: &str) -> Result<bool> {
    Ok(work.answers(question).await?.iter().any(|rows| !rows.is_empty()))
}

/// Of all databases in the default tablespace; `None` when the role may not ask, or it takes too long.
async fn size(work: &mut Work) -> Option<u64> {
    let limit = SIZE_MAX.as_millis();
    let sql = format!("set statement_timeout = '{limit}ms'; select pg_tablespace_size('pg_default')::text");
    let answers = work.try_answers(sql).await.ok()?;
    text(answers.get(1)?.first()?, 0).ok()?.parse().ok()
}
