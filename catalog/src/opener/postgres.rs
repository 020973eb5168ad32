//! A catalog in a Postgres database: the tables of the first schema in the connection's search path.
//!
//! Write transactions are serial, as on SQLite. Each takes one advisory lock with its first message, so it reads what
//! the previous one committed. A database's own collation may order text by language. So the catalog's columns use
//! `collate "C"`, because ids, pages and cursors compare bytes.

use std::future::Future;
use std::time::{Duration, Instant};

use sqlx::{AnyConnection, ConnectOptions as _};

use super::CatalogOpener;
use crate::dsn::CatalogDsn;
use crate::error::{Error, ErrorKind, Result};
use crate::error_mapping;
use crate::row;

/// The key of the write lock: "fleet" in ASCII. Locks of this kind are local to a database.
const LOCK: i64 = 0x66_6c_65_65_74;

/// Requests the lock together with `begin`, in one round trip. Sets the isolation level, because a database may have
/// another default. 5 s: a process that stops during a write (paused, cut off, swapping) loses the lock well before
/// waiting processes give up.
macro_rules! begin_write {
    ($more:literal) => {
        concat!(
            "begin isolation level read committed; set local idle_in_transaction_session_timeout = '5s'; ",
            $more,
            "select pg_advisory_xact_lock(439905248628)"
        )
    };
}
pub(super) const BEGIN_WRITE: &str = begin_write!("");
pub(super) const BEGIN_SCHEMA: &str = begin_write!("set local statement_timeout = 0; ");

/// Notifications carry no data: they only cause a poll, so false ones do no harm.
pub(super) const CHANNEL: &str = "fleet_catalog_changes";
pub(super) const COMMIT_AND_NOTIFY: &str = "select pg_notify('fleet_catalog_changes', ''); commit";

/// The oldest release that gets security updates.
const VERSION_MIN: i64 = 140_000;

/// Settings of each connection. 10 s: a write's wait for the lock. 20 s: no statement here takes a second, and a lost
/// client is detected by then. 30 s: a read of a stopped process must not prevent vacuuming. Keep-alive: a peer without
/// power is noticed within a minute. The last two settings keep stricter or unknown values. They let an acknowledged
/// write survive power loss, and end a waiting statement whose client has gone (release 14 and later).
const SETTINGS: &str = "set client_min_messages = warning; set lock_timeout = '10s'; set statement_timeout = '20s'; \
    set idle_in_transaction_session_timeout = '30s'; set tcp_keepalives_idle = 30; set tcp_keepalives_interval = 10; \
    set tcp_keepalives_count = 3; \
    select set_config('synchronous_commit', 'on', false) \
      where current_setting('synchronous_commit') in ('off', 'local'); \
    select set_config('client_connection_check_interval', '2s', false)";

/// Maximum time for a server to accept a connection.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a server that restarts, or has no free connection, is tried again.
const RECONNECT_MAX: Duration = Duration::from_secs(3);
const RECONNECT_EVERY: Duration = Duration::from_millis(100);

pub(super) const TABLES: &str = "select cast(c.relname as text) as name from pg_class c \
    where c.relnamespace = cast(quote_ident(current_schema()) as regnamespace) and c.relkind in ('r', 'p') order by c.oid";

pub(super) const COLUMNS: &str = "select cast(a.attname as text) as name, format_type(a.atttypid, a.atttypmod) as kind \
    from pg_attribute a join pg_class c on c.oid = a.attrelid \
    where c.relnamespace = cast(quote_ident(current_schema()) as regnamespace) and c.relname = $1 \
    and a.attnum > 0 and not a.attisdropped order by cast(a.attname as text) collate \"C\"";

/// The text columns that do not use `collate "C"`.
macro_rules! other_columns {
    () => {
        "from pg_attribute a join pg_class c on c.oid = a.attrelid \
         where c.relnamespace = cast(quote_ident(current_schema()) as regnamespace) and c.relkind = 'r' \
         and a.atttypid = cast('text' as regtype) and a.attnum > 0 and not a.attisdropped \
         and a.attcollation <> cast('\"C\"' as regcollation)"
    };
}

const ORDER_BYTEWISE: &str = concat!(
    "do $$ declare r record; begin for r in select c.relname, a.attname ",
    other_columns!(),
    " loop execute format('alter table %I alter column %I type text collate \"C\"', r.relname, r.attname); \
     end loop; end $$"
);

const OUT_OF_ORDER: &str = concat!("select count(*) as columns ", other_columns!());

/// The holder of the lock, by the name that its process gave itself.
const HOLDER: &str = "select a.application_name || coalesce(' at ' || host(a.client_addr), '') as holder \
    from pg_locks l join pg_stat_activity a on a.pid = l.pid where l.locktype = 'advisory' and l.granted \
    and a.datname = current_database() and cast(l.classid as bigint) * 4294967296 + cast(l.objid as bigint) = $1 limit 1";

/// The name of this process in the server's lists and log.
pub(super) fn application_name() -> String {
    format!("fleet catalog, process {}", std::process::id())
}

pub(super) async fn connect(dsn: &CatalogDsn) -> Result<AnyConnection> {
    connect_within(dsn, RECONNECT_MAX).await
}

/// Connects with one attempt.
pub(super) async fn connect_once(dsn: &CatalogDsn) -> Result<AnyConnection> {
    connect_within(dsn, Duration::ZERO).await
}

async fn connect_within(dsn: &CatalogDsn, again_for: Duration) -> Result<AnyConnection> {
    let options = dsn.connect_options(&application_name())?.disable_statement_logging();
    let started = Instant::now();
    loop {
        let attempt = async {
            let mut connection = options.connect().await?;
            sqlx::raw_sql(SETTINGS).execute(&mut connection).await?;
            Ok(connection)
        };
        match answer_within(CONNECT_MAX, attempt).await {
            Err(error) if error_mapping::is_passing(&error) && started.elapsed() < again_for => {
                tokio::time::sleep(RECONNECT_EVERY).await;
            }
            done => return done.map_err(error_mapping::catalog_error),
        }
    }
}

/// Waits for an answer. A silent peer counts as lost.
pub(crate) async fn answer_within<T>(
    at_most: Duration,
    work: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    tokio::time::timeout(at_most, work).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", at_most.as_secs());
        Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, message)))
    })
}

pub(super) async fn check_server(connection: &mut AnyConnection) -> Result<()> {
    let sql = "select cast(current_setting('server_version_num') as bigint) as version, \
               current_setting('server_version') as name, current_setting('server_encoding') as encoding";
    let row = sqlx::query(sql).fetch_one(connection).await.map_err(error_mapping::catalog_error)?;
    if row::int_column(&row, "version")? < VERSION_MIN {
        let message =
            format!("the catalog needs PostgreSQL 14 or newer; the server runs {}", row::text_column(&row, "name")?);
        return Err(Error::new(ErrorKind::Refused, message));
    }
    match row::text_column(&row, "encoding")?.as_str() {
        "UTF8" => Ok(()),
        other => {
            let message = format!("the catalog's database must have the encoding UTF8, this one has {other}");
            Err(Error::new(ErrorKind::Refused, message))
        }
    }
}

pub(super) async fn order_bytewise(connection: &mut AnyConnection) -> Result<()> {
    sqlx::raw_sql(ORDER_BYTEWISE).execute(connection).await.map(|_| ()).map_err(error_mapping::catalog_error)
}

pub(super) async fn columns_out_of_order(connection: &mut AnyConnection) -> Result<i64> {
    let row = sqlx::query(OUT_OF_ORDER).fetch_one(connection).await.map_err(error_mapping::catalog_error)?;
    row::int_column(&row, "columns")
}

/// The holder of the lock for an error message, if it can be found.
pub(super) async fn lock_holder(opener: &CatalogOpener) -> String {
    let look = async {
        let mut connection = opener.connect().await?;
        let row = sqlx::query(HOLDER)
            .bind(LOCK)
            .fetch_optional(&mut connection)
            .await
            .map_err(error_mapping::catalog_error)?;
        row.map(|row| row::text_column(&row, "holder")).transpose()
    };
    match tokio::time::timeout(CONNECT_MAX, look).await {
        Ok(Ok(Some(holder))) => format!("it is held by: {holder}; look at pg_stat_activity"),
        _ => "look at pg_locks where locktype = 'advisory'".to_owned(),
    }
}

/// Milliseconds since 1970.
pub(super) async fn server_clock(connection: &mut AnyConnection) -> Result<i64> {
    let sql = "select cast(extract(epoch from clock_timestamp()) * 1000 as bigint) as now";
    let row = sqlx::query(sql).fetch_one(connection).await.map_err(error_mapping::catalog_error)?;
    row::int_column(&row, "now")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_has_one_number_and_the_channel_one_name() {
        for sql in [BEGIN_WRITE, BEGIN_SCHEMA] {
            assert!(sql.contains(&format!("pg_advisory_xact_lock({LOCK})")), "{sql}");
        }
        assert!(COMMIT_AND_NOTIFY.contains(&format!("'{CHANNEL}'")));
    }
}
