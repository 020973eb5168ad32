//! Implements [`crate::Engine::survey_server`]: version and size of a server, and the rights that the connection
//! string's role lacks. Changes nothing.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::PostgresEngine;
use crate::postgres::requests::capacity;
use crate::postgres::requests::server_limits::CATALOGS;
use crate::postgres::servers::admin_connection::AdminConnection;
use crate::postgres::servers::{prepare, rights};
use crate::postgres::sql::{quoted_name, text_column};
use crate::server::{DatabaseServer, ServerSurvey};

/// The oldest version that this program is tested with, as the server counts. In older versions every login may make
/// tables in `public`.
const VERSION_MIN: u32 = 150_000;
/// Adding up the sizes of thousands of databases takes long. The sum is only a hint, so it gets no more time than this.
const SIZE_MAX: Duration = Duration::from_secs(2);

/// All questions in one round trip. Membership in a role is asked only if the role exists.
const QUESTIONS: &str = "
    select current_setting('server_version'), (select system_identifier::text from pg_control_system()),
        (select count(*)::text from pg_stat_activity where backend_type = 'client backend'),
        (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true), '0')::int)::text,
        current_user::text";

/// See [`crate::Engine::survey_server`].
pub(in crate::postgres) async fn survey_server(
    engine: &PostgresEngine,
    server: &DatabaseServer,
) -> Result<ServerSurvey> {
    let site = engine.state_of_server(server)?;
    let _slot = site.take_slot().await?;
    // A new connection, because the survey also tests these credentials. A full server is reported at once, without
    // waiting for a free connection.
    let mut work = site.enter_now(&site.server.server_dsn().database_name()).await?;
    let answers = work.fetch_answers(format!("{QUESTIONS}, {CATALOGS}")).await?;
    let row = answers.iter().flatten().next();
    let row = row.ok_or_else(|| Error::new(ErrorKind::Internal, "the server did not answer the survey"))?;
    let count = |column| text_column(row, column).map(|count| count.parse().ok());
    let catalogs = count(5)?.unwrap_or_default();
    let survey = ServerSurvey {
        version: format!("PostgreSQL {}", text_column(row, 0)?),
        system_id: Some(text_column(row, 1)?),
        lacks: missing_rights(&mut work, &text_column(row, 4)?).await?,
        function_rights: rights::function_rights(&site, &mut work).await.ok(),
        connections_used: count(2)?,
        connections_max: count(3)?,
        connections_budget: count(3)?.map(|usable| request_budget(usable, catalogs)),
        databases_bytes: total_size(&mut work).await,
        ..ServerSurvey::default()
    };
    work.close().await;
    Ok(survey)
}

/// Connections that the requests of all processes share, as far as the maintenance role itself is not limited.
fn request_budget(usable: u64, catalogs: u64) -> u64 {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    capacity::of_usable(number(usable), None, number(catalogs)) as u64
}

/// The missing rights, in words that an administrator can act on. A superuser lacks none.
async fn missing_rights(work: &mut AdminConnection, role: &str) -> Result<Vec<String>> {
    let mut lacks = Vec::new();
    if work.server_version() < VERSION_MIN {
        lacks.push(format!("PostgreSQL {} or newer", VERSION_MIN / 10_000));
    }
    if is_some(work, "select 1::text where pg_is_in_recovery()").await? {
        lacks.push("the right to write: this is a standby, name the primary".to_owned());
    }
    let name = quoted_name(role);
    let attributes = "select rolname from pg_roles where rolname = current_user and not rolsuper and not ";
    for (attribute, right) in [("rolcreatedb", "createdb"), ("rolcreaterole", "createrole"), ("rolinherit", "inherit")]
    {
        if is_some(work, &format!("{attributes}{attribute}")).await? {
            lacks.push(format!("{}: alter role {name} {right}", right.to_uppercase()));
        }
    }
    for group in [prepare::OWNER, prepare::READ, prepare::WRITE] {
        // A role that may create roles, or that is the role's administrator, makes itself a member.
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

async fn is_some(work: &mut AdminConnection, question: &str) -> Result<bool> {
    Ok(work.fetch_answers(question).await?.iter().any(|rows| !rows.is_empty()))
}

/// Size of all databases in the default tablespace; `None` when the role may not ask, or it takes too long.
async fn total_size(work: &mut AdminConnection) -> Option<u64> {
    let limit = SIZE_MAX.as_millis();
    let sql = format!("set statement_timeout = '{limit}ms'; select pg_tablespace_size('pg_default')::text");
    let answers = work.try_answers(sql).await.ok()?;
    text_column(answers.get(1)?.first()?, 0).ok()?.parse().ok()
}
