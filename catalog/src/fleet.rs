//! The one row about the fleet itself.

use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{OperationId, ReleaseId};
use crate::row;

/// The release new tenants start from; `None`: an empty database.
///
/// # Errors
/// `Unavailable`.
pub async fn current_release(tx: &mut ReadTx) -> Result<Option<ReleaseId>> {
    let row = tx.one(sqlx::query("select current_release_id from fleet where one = 1")).await?;
    row.map_or(Ok(None), |row| row::id_or_null(&row, "current_release_id"))
}

/// Where the data directory was when it was last opened; `None` before that was recorded.
///
/// # Errors
/// `Unavailable`.
pub async fn data_dir(tx: &mut ReadTx) -> Result<Option<String>> {
    let row = tx.one(sqlx::query("select data_dir from fleet where one = 1")).await?;
    row.map_or(Ok(None), |row| row::text_or_null(&row, "data_dir"))
}

/// Records where the data directory is.
///
/// # Errors
/// `Unavailable`.
pub async fn set_data_dir(tx: &mut WriteTx, path: &str) -> Result<()> {
    tx.run(sqlx::query("update fleet set data_dir = $1 where one = 1").bind(path.to_owned())).await.map(|_| ())
}

/// The time by which databases are dropped, milliseconds since 1970; `None` before the first process looked.
///
/// # Errors
/// `Unavailable`.
pub async fn steady_time(tx: &mut ReadTx) -> Result<Option<i64>> {
    let row = tx.one(sqlx::query("select steady_at from fleet where one = 1")).await?;
    row.map_or(Ok(None), |row| row::int_or_null(&row, "steady_at"))
}

/// Notes how far that time is.
///
/// # Errors
/// `Unavailable`.
pub async fn set_steady_time(tx: &mut WriteTx, at: i64) -> Result<()> {
    tx.run(sqlx::query("update fleet set steady_at = $1 where one = 1").bind(at)).await.map(|_| ())
}

/// A copy of the catalog in the backup store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogCopy {
    /// When it was begun, milliseconds since 1970.
    pub at: i64,
    /// The newest change of the change feed before it was begun.
    pub change: i64,
    /// How long it took, milliseconds.
    pub took_ms: i64,
    /// The operation at whose end it was made.
    pub op: OperationId,
}

/// The last copy; `None` before the first.
///
/// # Errors
/// `Unavailable`.
pub async fn last_copy(tx: &mut ReadTx) -> Result<Option<CatalogCopy>> {
    let sql =
        "select copied_at, copied_change, copied_in_ms, copied_by from fleet where one = 1 and copied_at is not null";
    let Some(row) = tx.one(sqlx::query(sql)).await? else { return Ok(None) };
    let [at, change, took_ms] = ["copied_at", "copied_change", "copied_in_ms"].map(|column| row::int(&row, column));
    Ok(Some(CatalogCopy { at: at?, change: change?, took_ms: took_ms?, op: row::parsed(&row, "copied_by")? }))
}

/// Notes a copy that is complete in the store.
///
/// # Errors
/// `Unavailable`.
pub async fn note_copy(tx: &mut WriteTx, copy: CatalogCopy) -> Result<()> {
    let sql = "update fleet set copied_at = $1, copied_change = $2, copied_in_ms = $3, copied_by = $4 where one = 1";
    let sql = sqlx::query(sql).bind(copy.at).bind(copy.change).bind(copy.took_ms).bind(copy.op.to_string());
    tx.run(sql).await.map(|_| ())
}

/// Makes `release` the current one.
///
/// # Errors
/// `NotFound`.
pub async fn set_current_release(tx: &mut WriteTx, release: ReleaseId) -> Result<()> {
    let sql =
        "update fleet set current_release_id = $1 where one = 1 and exists (select 1 from releases where id = $1)";
    match tx.run(sqlx::query(sql).bind(release.to_string())).await? {
        0 => Err(Error::new(ErrorKind::NotFound, format!("there is no release {release}"))),
        _ => Ok(()),
    }
}

/// Makes the release of an operation the current one after its first success, where `from` still is the current one;
/// returns whether it did. An operation promotes once: what an operator chose since stays.
///
/// # Errors
/// `Unavailable`.
pub async fn promote(tx: &mut WriteTx, op: OperationId, from: Option<ReleaseId>, release: ReleaseId) -> Result<bool> {
    let sql = "update fleet set current_release_id = $1 where one = 1 \
               and coalesce(current_release_id, '') = $2 and not exists \
               (select 1 from events where op_id = $3 and kind = 'release.activated')";
    let from = from.map(|id| id.to_string()).unwrap_or_default();
    let sql = sqlx::query(sql).bind(release.to_string()).bind(from).bind(op.to_string());
    Ok(tx.run(sql).await? > 0)
}
