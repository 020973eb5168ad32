//! The single row about the fleet.

use tenant_engine::FleetClaims;

use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{FleetId, OperationId, ReleaseId};
use crate::row;

/// The release with which new tenants start; `None` for an empty database.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn current_release(tx: &mut ReadTx) -> Result<Option<ReleaseId>> {
    let row = tx.fetch_row(sqlx::query("select current_release_id from fleet where one = 1")).await?;
    row.map_or(Ok(None), |row| row::nullable_id(&row, "current_release_id"))
}

/// The path of the data directory when it was last opened; `None` before it was recorded.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn data_dir(tx: &mut ReadTx) -> Result<Option<String>> {
    let row = tx.fetch_row(sqlx::query("select data_dir from fleet where one = 1")).await?;
    row.map_or(Ok(None), |row| row::nullable_text(&row, "data_dir"))
}

/// Records the path of the data directory.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn set_data_dir(tx: &mut WriteTx, path: &str) -> Result<()> {
    tx.execute_sql(sqlx::query("update fleet set data_dir = $1 where one = 1").bind(path.to_owned())).await.map(|_| ())
}

/// The system's identifier of the data directory when it was last opened; `None` before it was recorded.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn directory_mark(tx: &mut ReadTx) -> Result<Option<String>> {
    let row = tx.fetch_row(sqlx::query("select directory_mark from fleet where one = 1")).await?;
    row.map_or(Ok(None), |row| row::nullable_text(&row, "directory_mark"))
}

/// Records the identifier of the data directory.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn set_directory_mark(tx: &mut WriteTx, mark: &str) -> Result<()> {
    let sql = sqlx::query("update fleet set directory_mark = $1 where one = 1");
    tx.execute_sql(sql.bind(mark.to_owned())).await.map(|_| ())
}

/// The ids of this fleet's data directory, which external servers store. Empty before the first is recorded.
///
/// # Errors
/// `Corrupt` when the stored ids cannot be read.
pub async fn fleet_claims(tx: &mut ReadTx) -> Result<FleetClaims> {
    let row = tx.fetch_row(sqlx::query("select claims from fleet where one = 1")).await?;
    let Some(text) = row.map_or(Ok(None), |row| row::nullable_text(&row, "claims"))? else {
        return Ok(FleetClaims::default());
    };
    let ids = serde_json::from_str(&text);
    ids.map(FleetClaims::new).map_err(|error| Error::new(ErrorKind::Corrupt, "the fleet's claims").with_source(error))
}

/// Records the ids of the data directory.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn set_claims(tx: &mut WriteTx, claims: &FleetClaims) -> Result<()> {
    let text = serde_json::to_string(claims.all_ids()).expect("a list of texts is JSON");
    tx.execute_sql(sqlx::query("update fleet set claims = $1 where one = 1").bind(text)).await.map(|_| ())
}

/// The fleet's next id, while its data directory gets its own identity.
///
/// # Errors
/// `Corrupt` when the stored id cannot be read.
pub async fn next_id(tx: &mut ReadTx) -> Result<Option<FleetId>> {
    let row = tx.fetch_row(sqlx::query("select next_id from fleet where one = 1")).await?;
    row.map_or(Ok(None), |row| row::nullable_id(&row, "next_id"))
}

/// The clock by which databases are dropped, milliseconds since 1970; `None` before the first process set it.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn steady_time(tx: &mut ReadTx) -> Result<Option<i64>> {
    let row = tx.fetch_row(sqlx::query("select steady_at from fleet where one = 1")).await?;
    row.map_or(Ok(None), |row| row::nullable_int(&row, "steady_at"))
}

/// Advances the clock by which databases are dropped.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn set_steady_time(tx: &mut WriteTx, at: i64) -> Result<()> {
    tx.execute_sql(sqlx::query("update fleet set steady_at = $1 where one = 1").bind(at)).await.map(|_| ())
}

/// A copy of the catalog in the backup store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogCopy {
    /// Start of the copy, milliseconds since 1970.
    pub at: i64,
    /// The newest position of the change feed before the start.
    pub change: i64,
    /// Duration of the copy, milliseconds.
    pub took_ms: i64,
    /// The operation at whose end the copy was made.
    pub op: OperationId,
}

/// The last copy; `None` before the first.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn last_copy(tx: &mut ReadTx) -> Result<Option<CatalogCopy>> {
    let sql =
        "select copied_at, copied_change, copied_in_ms, copied_by from fleet where one = 1 and copied_at is not null";
    let Some(row) = tx.fetch_row(sqlx::query(sql)).await? else { return Ok(None) };
    let [at, change, took_ms] =
        ["copied_at", "copied_change", "copied_in_ms"].map(|column| row::int_column(&row, column));
    Ok(Some(CatalogCopy { at: at?, change: change?, took_ms: took_ms?, op: row::parsed_column(&row, "copied_by")? }))
}

/// Records a complete copy in the store.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn note_copy(tx: &mut WriteTx, copy: CatalogCopy) -> Result<()> {
    let sql = "update fleet set copied_at = $1, copied_change = $2, copied_in_ms = $3, copied_by = $4 where one = 1";
    let sql = sqlx::query(sql).bind(copy.at).bind(copy.change).bind(copy.took_ms).bind(copy.op.to_string());
    tx.execute_sql(sql).await.map(|_| ())
}

/// Makes `release` the current release.
///
/// # Errors
/// `NotFound` when the release does not exist.
pub async fn set_current_release(tx: &mut WriteTx, release: ReleaseId) -> Result<()> {
    let sql =
        "update fleet set current_release_id = $1 where one = 1 and exists (select 1 from releases where id = $1)";
    match tx.execute_sql(sqlx::query(sql).bind(release.to_string())).await? {
        0 => Err(Error::new(ErrorKind::NotFound, format!("there is no release {release}"))),
        _ => Ok(()),
    }
}

/// Makes an operation's release current after its first success, if `from` is still current. True when it did. An
/// operation does this once, so a later choice of an operator stays.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn promote_release(
    tx: &mut WriteTx,
    op: OperationId,
    from: Option<ReleaseId>,
    release: ReleaseId,
) -> Result<bool> {
    let sql = "update fleet set current_release_id = $1 where one = 1 \
               and coalesce(current_release_id, '') = $2 and not exists \
               (select 1 from events where op_id = $3 and kind = 'release.activated')";
    let from = from.map(|id| id.to_string()).unwrap_or_default();
    let sql = sqlx::query(sql).bind(release.to_string()).bind(from).bind(op.to_string());
    Ok(tx.execute_sql(sql).await? > 0)
}
