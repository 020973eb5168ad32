//! Releases: immutable migration sets, their files kept in the catalog so that any process can resume.

use sqlx::any::AnyRow;
use tenant_engine::migration::{File, MigrationSets};

use crate::bulk::{built, limit};
use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::ReleaseId;
use crate::row;

const COLUMNS: &str = "id, digest, engine, head_version, created_at, created_by";

/// One row of `releases`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseRecord {
    /// For ever.
    pub id: ReleaseId,
    /// Of versions and checksums: equal digest, equal release.
    pub digest: String,
    /// Whose SQL it is: `any`, `sqlite`, `postgres` or `sqlite+postgres`.
    pub engine: String,
    /// The newest version.
    pub head_version: Option<i64>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// The actor.
    pub created_by: String,
}

/// The release with these sets' digest, stored now if it is new. Of one that is there the first files stay: they have
/// the same versions and checksums.
///
/// # Errors
/// `Unavailable`.
pub async fn ensure(tx: &mut WriteTx, sets: &MigrationSets, files: &[File], actor: &str) -> Result<ReleaseRecord> {
    if let Some(known) = by_digest(tx, sets.digest()).await? {
        return Ok(known);
    }
    let release = ReleaseRecord {
        id: ReleaseId::generate(),
        digest: sets.digest().to_owned(),
        engine: sets.written_for().to_owned(),
        head_version: sets.versions().head(),
        created_at: tx.now(),
        created_by: actor.to_owned(),
    };
    let sql = format!("insert into releases ({COLUMNS}) values ($1, $2, $3, $4, $5, $6)");
    let sql = built(sql)
        .bind(release.id.to_string())
        .bind(release.digest.clone())
        .bind(release.engine.clone())
        .bind(release.head_version)
        .bind(release.created_at)
        .bind(release.created_by.clone());
    tx.run(sql).await?;
    for file in files {
        let sql = sqlx::query("insert into release_files (release_id, name, sql) values ($1, $2, $3)");
        tx.run(sql.bind(release.id.to_string()).bind(file.name.clone()).bind(file.sql.clone())).await?;
    }
    Ok(release)
}

/// The release whose sets have this digest.
///
/// # Errors
/// `Unavailable`.
pub async fn by_digest(tx: &mut ReadTx, digest: &str) -> Result<Option<ReleaseRecord>> {
    let sql = format!("select {COLUMNS} from releases where digest = $1");
    let row = tx.one(built(sql).bind(digest.to_owned())).await?;
    row.as_ref().map(record).transpose()
}

/// One release.
///
/// # Errors
/// `Unavailable`.
pub async fn get(tx: &mut ReadTx, id: ReleaseId) -> Result<Option<ReleaseRecord>> {
    let sql = format!("select {COLUMNS} from releases where id = $1");
    tx.one(built(sql).bind(id.to_string())).await?.as_ref().map(record).transpose()
}

/// Its files, by name.
///
/// # Errors
/// `Unavailable`.
pub async fn files(tx: &mut ReadTx, id: ReleaseId) -> Result<Vec<File>> {
    let sql = sqlx::query("select name, sql from release_files where release_id = $1 order by name");
    let rows = tx.all(sql.bind(id.to_string())).await?;
    rows.iter().map(|row| Ok(File { name: row::text(row, "name")?, sql: row::text(row, "sql")? })).collect()
}

/// A page, newest first, beginning after (older than) `after`.
///
/// # Errors
/// `Unavailable`.
pub async fn page(tx: &mut ReadTx, after: Option<ReleaseId>, page_limit: u32) -> Result<Vec<ReleaseRecord>> {
    let condition = if after.is_some() { "where id < $2" } else { "" };
    let sql = format!("select {COLUMNS} from releases {condition} order by id desc limit $1");
    let mut sql = built(sql).bind(limit(page_limit));
    if let Some(after) = after {
        sql = sql.bind(after.to_string());
    }
    tx.all(sql).await?.iter().map(record).collect()
}

fn record(row: &AnyRow) -> Result<ReleaseRecord> {
    Ok(ReleaseRecord {
        id: row::parsed(row, "id")?,
        digest: row::text(row, "digest")?,
        engine: row::text(row, "engine")?,
        head_version: row::int_or_null(row, "head_version")?,
        created_at: row::int(row, "created_at")?,
        created_by: row::text(row, "created_by")?,
    })
}
