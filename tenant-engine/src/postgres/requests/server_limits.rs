//! Asks a server once how many connections it allows.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};

use super::capacity::ServerLimits;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::error::{from_connect, from_sqlx};
use crate::postgres::servers::server::PostgresServer;

/// Longest wait for the server's answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Counts the processes that have their catalog on the server, by their names. Sessions of other roles show the name
/// only to a role that may read statistics. `catalog/src/opener/postgres.rs` sets the names.
pub(in crate::postgres) const CATALOGS: &str = "(select count(distinct (split_part(application_name, ', ', 2), \
    client_addr)) from pg_stat_activity where application_name like 'fleet catalog, process %')::text";

const ASK: &str = "select current_setting('max_connections'), current_setting('superuser_reserved_connections'), \
    coalesce(current_setting('reserved_connections', true), '0'), rolconnlimit::text, \
    current_setting('server_version_num')";

/// # Errors
/// [`ErrorKind::ServerUnreachable`] and the other kinds about servers.
pub(super) async fn query_limits(server: &PostgresServer) -> Result<ServerLimits> {
    tokio::time::timeout(ANSWER_MAX, ask_server(server)).await.unwrap_or_else(|_| {
        let message = format!("the server did not answer within {} s", ANSWER_MAX.as_secs());
        Err(Error::new(ErrorKind::ServerUnreachable, message))
    })
}

async fn ask_server(server: &PostgresServer) -> Result<ServerLimits> {
    let options = server.maintenance_options(&server.server_dsn().database_name()).disable_statement_logging();
    let mut connection = PgConnection::connect_with(&options).await.map_err(from_connect)?;
    let ask = format!("{ASK}, {CATALOGS} from pg_roles where rolname = current_user");
    let row = sqlx::raw_sql(AssertSqlSafe(ask)).fetch_one(&mut connection).await.map_err(from_sqlx)?;
    let facts = parse_limits(&row)?;
    // Dropping would close the connection as well, but the server would log a lost client.
    let _ = connection.close().await;
    Ok(facts)
}

fn parse_limits(row: &PgRow) -> Result<ServerLimits> {
    let number = |column: usize| -> Result<i64> {
        let text: String = row.try_get_unchecked(column).map_err(from_sqlx)?;
        text.parse::<i64>()
            .map_err(|error| Error::new(ErrorKind::Internal, "a setting is not a number").with_source(error))
    };
    let count = |column: usize| number(column).map(|number| usize::try_from(number).unwrap_or_default());
    Ok(ServerLimits {
        connections_max: count(0)?,
        superuser_reserved: count(1)?,
        reserved: count(2)?,
        // -1 means no limit.
        maintenance_max: usize::try_from(number(3)?).ok(),
        version: u32::try_from(number(4)?).unwrap_or_default(),
        catalogs: count(5)?,
    })
}
