//! Asks a server, once, how many connections it allows.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};

use super::capacity::Facts;
use super::error::{from_connect, from_sqlx};
use super::server::PostgresServer;
use crate::error::{Error, ErrorKind, Result};

/// How long a server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

const ASK: &str = "select current_setting('max_connections'), current_setting('superuser_reserved_connections'), \
    coalesce(current_setting('reserved_connections', true), '0'), rolconnlimit::text, \
    current_setting('server_version_num') from pg_roles where rolname = current_user";

/// # Errors
/// [`ErrorKind::ServerUnreachable`] and the other kinds about servers.
pub(super) async fn facts(server: &PostgresServer) -> Result<Facts> {
    tokio::time::timeout(ANSWER_MAX, ask(server)).await.unwrap_or_else(|_| {
        let message = format!("the server did not answer within {} s", ANSWER_MAX.as_secs());
        Err(Error::new(ErrorKind::ServerUnreachable, message))
    })
}

async fn ask(server: &PostgresServer) -> Result<Facts> {
    let options = server.maintenance(&server.dsn().database()).disable_statement_logging();
    let mut connection = PgConnection::connect_with(&options).await.map_err(from_connect)?;
    let row = sqlx::raw_sql(ASK).fetch_one(&mut connection).await.map_err(from_sqlx)?;
    let facts = read(&row)?;
    // Dropping would close it as well; this way the server's log stays quiet.
    let _ = connection.close().await;
    Ok(facts)
}

fn read(row: &PgRow) -> Result<Facts> {
    let number = |column: usize| -> Result<i64> {
        let text: String = row.try_get_unchecked(column).map_err(from_sqlx)?;
        text.parse::<i64>()
            .map_err(|error| Error::new(ErrorKind::Internal, "a setting is no number").with_source(error))
    };
    let count = |column: usize| number(column).map(|number| usize::try_from(number).unwrap_or_default());
    Ok(Facts {
        connections_max: count(0)?,
        superuser_reserved: count(1)?,
        reserved: count(2)?,
        // -1: no limit.
        maintenance_max: usize::try_from(number(3)?).ok(),
        version: u32::try_from(number(4)?).unwrap_or_default(),
    })
}
