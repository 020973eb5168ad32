//! The index of backups; the manifests in the backup store are the truth.
//!
//! Which of two backups came last is told by `seq`, the order in which they were recorded. A tenant's backups are taken
//! one after the other, so this is also the order of their snapshots. `taken_at` comes from a clock and is for people.

use sqlx::any::AnyRow;
use tenant_engine::placement::EngineKind;

use crate::bulk::{INT, Sql, TEXT, built, chunks, limit, values};
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{BackupId, OperationId, TenantId};
use crate::row;

const COLUMNS: &str = "id, tenant_id, op_id, object_key, engine, content_hash, size_bytes, stored_bytes, schema_version, \
    reason, taken_at, manifest_sha256, verified_at, verify_error";

/// One without a number was recorded last, by an older program on a shared catalog; Postgres puts it first.
const NEWEST_FIRST: &str = "seq desc, id desc";

/// One row of `backups`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRecord {
    /// For ever.
    pub id: BackupId,
    /// Whose.
    pub tenant_id: TenantId,
    /// Which operation made it.
    pub op_id: Option<OperationId>,
    /// Of the manifest.
    pub object_key: String,
    /// What it was taken from.
    pub engine: EngineKind,
    /// Equal for equal content.
    pub content_hash: String,
    /// Of the snapshot: a SQLite database's pages, or a Postgres database's dump.
    pub size_bytes: i64,
    /// Of the stored object.
    pub stored_bytes: i64,
    /// The ledger's newest version inside.
    pub schema_version: Option<i64>,
    /// manual, scheduled, pre_restore, pre_delete.
    pub reason: String,
    /// When the snapshot began, milliseconds since 1970.
    pub taken_at: i64,
    /// Of the manifest as it was written, hex; `None`: an older program took the backup.
    pub manifest_sha256: Option<String>,
    /// When it was last verified, milliseconds since 1970.
    pub verified_at: Option<i64>,
    /// What the last verification found wrong.
    pub verify_error: Option<String>,
}

/// Adds many, each later than all that are there; one that is already there (same id) is left alone.
///
/// # Errors
/// `AlreadyExists` when another backup has the object key; `NotFound` for a tenant.
pub async fn insert_many(tx: &mut WriteTx, backups: &[BackupRecord]) -> Result<()> {
    let types = [TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, INT, INT, INT, TEXT, INT, TEXT, INT, TEXT, INT];
    let mut last = number_all(tx).await?;
    for chunk in chunks(backups) {
        let rows = values(chunk.len(), &types);
        let sql = format!("insert into backups ({COLUMNS}, seq) {rows} on conflict (id) do nothing");
        let numbered = |sql, backup| {
            last += 1;
            bind(sql, backup).bind(last)
        };
        tx.run(chunk.iter().fold(built(sql), numbered)).await?;
    }
    Ok(())
}

/// Numbers the backups that an older program recorded; returns the last number.
async fn number_all(tx: &mut WriteTx) -> Result<i64> {
    let last = tx.one(sqlx::query("select coalesce(max(seq), 0) as last from backups")).await?;
    let mut last = last.map_or(Ok(0), |row| row::int(&row, "last"))?;
    let unnumbered = sqlx::query("select id from backups where seq is null order by taken_at, id");
    for backup in tx.all(unnumbered).await? {
        last += 1;
        let sql = sqlx::query("update backups set seq = $2 where id = $1");
        tx.run(sql.bind(row::text(&backup, "id")?).bind(last)).await?;
    }
    Ok(last)
}

/// One backup.
///
/// # Errors
/// `Unavailable`.
pub async fn get(tx: &mut ReadTx, id: BackupId) -> Result<Option<BackupRecord>> {
    let sql = format!("select {COLUMNS} from backups where id = $1");
    tx.one(built(sql).bind(id.to_string())).await?.as_ref().map(record).transpose()
}

/// The last backup of a tenant, among those that say that they were taken at or before `at` (`None`: among all).
/// Where clocks have stepped, the last one of them need not be the one of the latest time; see [`is_disputed`].
///
/// # Errors
/// `Unavailable`.
pub async fn newest(tx: &mut ReadTx, tenant: TenantId, at: Option<i64>) -> Result<Option<BackupRecord>> {
    let sql = format!(
        "select {COLUMNS} from backups where tenant_id = $1 and taken_at <= $2 order by {NEWEST_FIRST} limit 1"
    );
    let row = tx.one(built(sql).bind(tenant.to_string()).bind(at.unwrap_or(i64::MAX))).await?;
    row.as_ref().map(record).transpose()
}

/// The last backup of a tenant at this version.
///
/// # Errors
/// `Unavailable`.
pub async fn newest_at_version(tx: &mut ReadTx, tenant: TenantId, version: i64) -> Result<Option<BackupRecord>> {
    let sql = format!(
        "select {COLUMNS} from backups where tenant_id = $1 and schema_version = $2 order by {NEWEST_FIRST} limit 1"
    );
    let row = tx.one(built(sql).bind(tenant.to_string()).bind(version)).await?;
    row.as_ref().map(record).transpose()
}

/// Whether a backup of this tenant at this version has been verified, and was found whole.
///
/// # Errors
/// `Unavailable`.
pub async fn is_proved(tx: &mut ReadTx, tenant: TenantId, version: Option<i64>) -> Result<bool> {
    let sql = "select 1 as found from backups where tenant_id = $1 and coalesce(schema_version, -1) = $2 \
               and verified_at is not null and verify_error is null limit 1";
    let sql = sqlx::query(sql).bind(tenant.to_string()).bind(version.unwrap_or(-1));
    Ok(tx.one(sql).await?.is_some())
}

/// Whether a backup that was taken before `backup` says a later time than `at`: a clock was wrong, and what a time means
/// for this tenant is not certain.
///
/// # Errors
/// `Unavailable`.
pub async fn is_disputed(tx: &mut ReadTx, backup: &BackupRecord, at: i64) -> Result<bool> {
    let sql = "select 1 as found from backups where tenant_id = $1 and taken_at > $2 \
               and seq < (select seq from backups where id = $3) limit 1";
    let sql = sqlx::query(sql).bind(backup.tenant_id.to_string()).bind(at).bind(backup.id.to_string());
    Ok(tx.one(sql).await?.is_some())
}

/// A page, newest first, of one tenant when given, beginning after (older than) `after`.
///
/// # Errors
/// `Unavailable`.
pub async fn page(
    tx: &mut ReadTx,
    tenant: Option<TenantId>,
    after: Option<BackupId>,
    page_limit: u32,
) -> Result<Vec<BackupRecord>> {
    let mut conditions = vec!["1 = 1".to_owned()];
    let mut arguments = Vec::new();
    let narrowing = [
        ("tenant_id =", tenant.map(|id| id.to_string())),
        ("seq < (select seq from backups where id =", after.map(|id| id.to_string())),
    ];
    for (condition, id) in narrowing {
        let Some(id) = id else { continue };
        arguments.push(id);
        let close = if condition.contains('(') { ")" } else { "" };
        conditions.push(format!("{condition} ${}{close}", arguments.len()));
    }
    let sql = format!(
        "select {COLUMNS} from backups where {} order by {NEWEST_FIRST} limit ${}",
        conditions.join(" and "),
        arguments.len() + 1
    );
    let sql = arguments.into_iter().fold(built(sql), |sql, id| sql.bind(id));
    tx.all(sql.bind(limit(page_limit))).await?.iter().map(record).collect()
}

/// When the oldest and the newest backup of any tenant were taken, milliseconds since 1970.
///
/// # Errors
/// `Unavailable`.
pub async fn span(tx: &mut ReadTx) -> Result<(Option<i64>, Option<i64>)> {
    let row = tx.one(sqlx::query("select min(taken_at) as oldest, max(taken_at) as newest from backups")).await?;
    let Some(row) = row else { return Ok((None, None)) };
    Ok((row::int_or_null(&row, "oldest")?, row::int_or_null(&row, "newest")?))
}

/// How fresh the backups of the tenants are that have a database which is served or suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Tenants that should have a backup.
    pub tenants: i64,
    /// Of these, those without any that are older than asked for.
    pub never: i64,
    /// Of these, those without any that are younger.
    pub young: i64,
    /// Of these, those whose newest backup is older than asked for.
    pub stale: i64,
    /// Of these, those with a backup that says it was taken later than now.
    pub in_future: i64,
}

/// Looks at each tenant's backups: `stale` is what was taken before `old`, `in_future` what was taken after `ahead`. What
/// is in the future does not count as fresh.
///
/// # Errors
/// `Unavailable`.
pub async fn freshness(tx: &mut ReadTx, old: i64, ahead: i64) -> Result<Freshness> {
    let sql = "select count(*) as tenants, \
                 count(case when b.latest is null and t.created_at < $1 then 1 end) as never, \
                 count(case when b.latest is null and t.created_at >= $1 then 1 end) as young, \
                 count(case when b.latest is not null and (b.believed is null or b.believed < $1) then 1 end) as stale, \
                 count(case when b.latest > $2 then 1 end) as ahead \
               from tenants t left join (select tenant_id, max(taken_at) as latest, \
                 max(case when taken_at <= $2 then taken_at end) as believed from backups group by tenant_id) b \
                 on b.tenant_id = t.id where t.state in ('active', 'suspended')";
    let row = tx.one(sqlx::query(sql).bind(old).bind(ahead)).await?;
    let row = row.ok_or_else(|| Error::new(ErrorKind::Corrupt, "the catalog counts nothing"))?;
    Ok(Freshness {
        tenants: row::int(&row, "tenants")?,
        never: row::int(&row, "never")?,
        young: row::int(&row, "young")?,
        stale: row::int(&row, "stale")?,
        in_future: row::int(&row, "ahead")?,
    })
}

/// The manifests of the backups that were recorded last.
///
/// # Errors
/// `Unavailable`.
pub async fn last_keys(tx: &mut ReadTx, most: u32) -> Result<Vec<String>> {
    let sql = format!("select object_key from backups order by {NEWEST_FIRST} limit $1");
    tx.all(built(sql).bind(limit(most))).await?.iter().map(|row| row::text(row, "object_key")).collect()
}

/// Records a verification, now: `None` when it found nothing wrong.
///
/// # Errors
/// `NotFound`.
pub async fn set_verified(tx: &mut WriteTx, id: BackupId, error: Option<&str>) -> Result<()> {
    let now = tx.now();
    let sql = sqlx::query("update backups set verified_at = $2, verify_error = $3 where id = $1");
    match tx.run(sql.bind(id.to_string()).bind(now).bind(error.map(str::to_owned))).await? {
        0 => Err(Error::new(ErrorKind::NotFound, format!("there is no backup {id}"))),
        _ => Ok(()),
    }
}

fn bind<'q>(sql: Sql<'q>, backup: &BackupRecord) -> Sql<'q> {
    sql.bind(backup.id.to_string())
        .bind(backup.tenant_id.to_string())
        .bind(backup.op_id.map(|id| id.to_string()))
        .bind(backup.object_key.clone())
        .bind(backup.engine.to_string())
        .bind(backup.content_hash.clone())
        .bind(backup.size_bytes)
        .bind(backup.stored_bytes)
        .bind(backup.schema_version)
        .bind(backup.reason.clone())
        .bind(backup.taken_at)
        .bind(backup.manifest_sha256.clone())
        .bind(backup.verified_at)
        .bind(backup.verify_error.clone())
}

fn record(row: &AnyRow) -> Result<BackupRecord> {
    Ok(BackupRecord {
        id: row::parsed(row, "id")?,
        tenant_id: row::parsed(row, "tenant_id")?,
        op_id: row::id_or_null(row, "op_id")?,
        object_key: row::text(row, "object_key")?,
        engine: row::parsed(row, "engine")?,
        content_hash: row::text(row, "content_hash")?,
        size_bytes: row::int(row, "size_bytes")?,
        stored_bytes: row::int(row, "stored_bytes")?,
        schema_version: row::int_or_null(row, "schema_version")?,
        reason: row::text(row, "reason")?,
        taken_at: row::int(row, "taken_at")?,
        manifest_sha256: row::text_or_null(row, "manifest_sha256")?,
        verified_at: row::int_or_null(row, "verified_at")?,
        verify_error: row::text_or_null(row, "verify_error")?,
    })
}
