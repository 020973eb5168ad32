//! Releases: immutable migration sets. The catalog contains their files, so that any process can resume a migration.

use sqlx::any::AnyRow;
use tenant_engine::migration::{LedgerName, MigrationFile, MigrationSets, SETTINGS_NAME, ledger_in};
use tenant_engine::placement::EngineKind;

use crate::bulk::{capped_limit, dynamic_query};
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::ReleaseId;
use crate::row;

const COLUMNS: &str = "id, digest, engine, head_version, created_at, created_by";

/// One row of `releases`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseRecord {
    /// The id, which never changes.
    pub id: ReleaseId,
    /// Digest of versions and checksums; equal digests mean equal releases.
    pub digest: String,
    /// The engines of its SQL: `any`, `sqlite`, `postgres` or `sqlite+postgres`.
    pub engine: String,
    /// The newest version in the set.
    pub head_version: Option<i64>,
    /// Time when it was stored, milliseconds since 1970.
    pub created_at: i64,
    /// The actor that stored it.
    pub created_by: String,
}

/// The release with the digest of these sets; stores it if it is new. An existing release keeps its first files, which
/// have the same versions and checksums.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn ensure_release(
    tx: &mut WriteTx,
    sets: &MigrationSets,
    files: &[MigrationFile],
    actor: &str,
) -> Result<ReleaseRecord> {
    if let Some(known) = by_digest(tx, sets.release_digest()).await? {
        return Ok(known);
    }
    let release = unstored_release(sets, tx.now(), actor);
    let sql = format!("insert into releases ({COLUMNS}) values ($1, $2, $3, $4, $5, $6)");
    let sql = dynamic_query(sql)
        .bind(release.id.to_string())
        .bind(release.digest.clone())
        .bind(release.engine.clone())
        .bind(release.head_version)
        .bind(release.created_at)
        .bind(release.created_by.clone());
    tx.execute_sql(sql).await?;
    for file in files {
        let sql = sqlx::query("insert into release_files (release_id, name, sql) values ($1, $2, $3)");
        tx.execute_sql(sql.bind(release.id.to_string()).bind(file.name.clone()).bind(file.sql.clone())).await?;
    }
    Ok(release)
}

/// The record that a release of these sets would get now (`now` in milliseconds since 1970), with a new id.
#[must_use]
pub fn unstored_release(sets: &MigrationSets, now: i64, actor: &str) -> ReleaseRecord {
    ReleaseRecord {
        id: ReleaseId::generate(),
        digest: sets.release_digest().to_owned(),
        engine: sets.written_for().to_owned(),
        head_version: sets.version_set().head_version(),
        created_at: now,
        created_by: actor.to_owned(),
    }
}

/// The release with this digest; `None` when there is none.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn by_digest(tx: &mut ReadTx, digest: &str) -> Result<Option<ReleaseRecord>> {
    let sql = format!("select {COLUMNS} from releases where digest = $1");
    let row = tx.fetch_row(dynamic_query(sql).bind(digest.to_owned())).await?;
    row.as_ref().map(release_from_row).transpose()
}

/// The release with this id; `None` when there is none.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn get(tx: &mut ReadTx, id: ReleaseId) -> Result<Option<ReleaseRecord>> {
    let sql = format!("select {COLUMNS} from releases where id = $1");
    tx.fetch_row(dynamic_query(sql).bind(id.to_string())).await?.as_ref().map(release_from_row).transpose()
}

/// The files of a release, by name.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn release_files(tx: &mut ReadTx, id: ReleaseId) -> Result<Vec<MigrationFile>> {
    let sql = sqlx::query("select name, sql from release_files where release_id = $1 order by name");
    let rows = tx.fetch_rows(sql.bind(id.to_string())).await?;
    rows.iter()
        .map(|row| Ok(MigrationFile { name: row::text_column(row, "name")?, sql: row::text_column(row, "sql")? }))
        .collect()
}

/// The ledger's name in this engine's databases, from the newest release with migrations for the engine. All such
/// releases name the same ledger. `None` before the first one.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn ledger(tx: &mut ReadTx, engine: EngineKind) -> Result<Option<LedgerName>> {
    let newest =
        sqlx::query("select id from releases where engine in ('any', 'sqlite+postgres', $1) order by id desc limit 1");
    let Some(row) = tx.fetch_row(newest.bind(engine.as_str())).await? else { return Ok(None) };
    let settings = sqlx::query("select name, sql from release_files where release_id = $1 and name in ($2, $3)")
        .bind(row::text_column(&row, "id")?)
        .bind(SETTINGS_NAME)
        .bind(format!("{engine}/{SETTINGS_NAME}"));
    let rows = tx.fetch_rows(settings).await?;
    let file = |row| Ok(MigrationFile { name: row::text_column(row, "name")?, sql: row::text_column(row, "sql")? });
    let files = rows.iter().map(file).collect::<Result<Vec<_>>>()?;
    let ledger = ledger_in(&files, engine);
    ledger.map(Some).map_err(|error| Error::new(ErrorKind::Invalid, error.message().to_owned()).with_source(error))
}

/// A page, newest first, of releases older than `after`.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn list_releases(tx: &mut ReadTx, after: Option<ReleaseId>, page_limit: u32) -> Result<Vec<ReleaseRecord>> {
    let condition = if after.is_some() { "where id < $2" } else { "" };
    let sql = format!("select {COLUMNS} from releases {condition} order by id desc limit $1");
    let mut sql = dynamic_query(sql).bind(capped_limit(page_limit));
    if let Some(after) = after {
        sql = sql.bind(after.to_string());
    }
    tx.fetch_rows(sql).await?.iter().map(release_from_row).collect()
}

fn release_from_row(row: &AnyRow) -> Result<ReleaseRecord> {
    Ok(ReleaseRecord {
        id: row::parsed_column(row, "id")?,
        digest: row::text_column(row, "digest")?,
        engine: row::text_column(row, "engine")?,
        head_version: row::nullable_int(row, "head_version")?,
        created_at: row::int_column(row, "created_at")?,
        created_by: row::text_column(row, "created_by")?,
    })
}
