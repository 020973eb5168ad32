//! A catalog in a SQLite file.

use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyRow};
use sqlx::{AnyConnection, ConnectOptions as _, Row as _};

use crate::error::{Error, ErrorKind, Result};
use crate::error_mapping;

/// Settings of each connection. FULL: an acknowledged write survives power loss. 2 s: waits for another process's lock
/// are split, so that a caller that gave up does not block the connection's thread for long. 64 MiB: the log's size
/// after a rare huge transaction.
const SETTINGS: &str = "pragma busy_timeout=2000; pragma synchronous=full; pragma foreign_keys=on; \
    pragma cache_size=-16000; pragma temp_store=memory; pragma journal_size_limit=67108864; pragma trusted_schema=off";

/// Attempts to switch a new file to WAL. SQLite answers "busy" at once while another process does the same.
const WAL_ATTEMPTS: u32 = 200;

pub(super) const TABLES: &str =
    "select name from sqlite_schema where type = 'table' and name not like 'sqlite_%' order by rowid";

pub(super) const COLUMNS: &str = "select name, lower(type) as kind from pragma_table_info($1) order by name";

pub(super) async fn connect(url: &str) -> Result<AnyConnection> {
    let options: AnyConnectOptions = url.parse().map_err(error_mapping::catalog_error)?;
    let mut connection = options.disable_statement_logging().connect().await.map_err(error_mapping::catalog_error)?;
    sqlx::raw_sql(SETTINGS).execute(&mut connection).await.map_err(error_mapping::catalog_error)?;
    Ok(connection)
}

pub(super) async fn data_version(connection: &mut AnyConnection) -> Result<i64> {
    let row: AnyRow =
        sqlx::query("pragma data_version").fetch_one(connection).await.map_err(error_mapping::catalog_error)?;
    row.try_get(0).map_err(error_mapping::catalog_error)
}

pub(super) async fn vacuum_into(connection: &mut AnyConnection, target: &str) -> Result<()> {
    sqlx::query("vacuum into $1")
        .bind(target)
        .execute(connection)
        .await
        .map(|_| ())
        .map_err(error_mapping::catalog_error)
}

/// Enables WAL, so that readers never wait for the writer. The file keeps this setting.
pub(super) async fn write_ahead_log(connection: &mut AnyConnection) -> Result<()> {
    for _ in 1..WAL_ATTEMPTS {
        match sqlx::query("pragma journal_mode=wal").fetch_one(&mut *connection).await {
            Err(error) if error_mapping::is_busy(&error) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => return Err(error_mapping::catalog_error(error)),
            Ok(row) => {
                let mode: String = row.try_get(0).map_err(error_mapping::catalog_error)?;
                if mode == "wal" {
                    return Ok(());
                }
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("the catalog's directory does not allow a write-ahead log (journal mode is {mode})"),
                ));
            }
        }
    }
    Err(Error::new(ErrorKind::Unavailable, "the catalog is locked by another process; try again"))
}
