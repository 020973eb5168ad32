//! The index of backups; the manifests in the backup store are authoritative.
//!
//! `seq`, the order of recording, tells which of two backups is newer. A tenant's backups are taken one after the
//! other, so this is also the order of their snapshots. `taken_at` comes from a clock and is for people.

use sqlx::any::AnyRow;
use tenant_engine::placement::EngineKind;

use crate::bulk::{INT, SqlQuery, TEXT, capped_limit, dynamic_query, sized_chunks, values_clause};
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{BackupId, OperationId, TenantId};
use crate::row;

const COLUMNS: &str = "id, tenant_id, op_id, object_key, engine, content_hash, size_bytes, stored_bytes, schema_version, \
    reason, taken_at, manifest_sha256, verified_at, verify_error, store";

/// A backup without a number was recorded last, by an older program on a shared catalog. Postgres sorts it first.
const NEWEST_FIRST: &str = "seq desc, id desc";

/// One row of `backups`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRecord {
    /// The id, which never changes.
    pub id: BackupId,
    /// The tenant whose database was backed up.
    pub tenant_id: TenantId,
    /// The operation that made the backup.
    pub op_id: Option<OperationId>,
    /// Key of the manifest in the store.
    pub object_key: String,
    /// The engine of the database.
    pub engine: EngineKind,
    /// Hash of the content: equal for equal content.
    pub content_hash: String,
    /// Size of the snapshot: a SQLite database's pages, or a Postgres database's dump.
    pub size_bytes: i64,
    /// Size of the stored object.
    pub stored_bytes: i64,
    /// The ledger's newest version in the snapshot.
    pub schema_version: Option<i64>,
    /// The reason: manual, scheduled, pre_restore or pre_delete.
    pub reason: String,
    /// Start of the snapshot, milliseconds since 1970.
    pub taken_at: i64,
    /// SHA-256 of the manifest as written, in hex; `None` when an older program took the backup.
    pub manifest_sha256: Option<String>,
    /// Time of the last verification, milliseconds since 1970.
    pub verified_at: Option<i64>,
    /// The problem that the last verification found.
    pub verify_error: Option<String>,
    /// The store that contains the backup, without secrets; `None` when an older program took the backup.
    pub store: Option<String>,
}

/// Adds backups, each newer than all existing ones. Skips backups whose id exists.
///
/// # Errors
/// `AlreadyExists` when another backup has the object key; `NotFound` for an unknown tenant.
pub async fn insert_many(tx: &mut WriteTx, backups: &[BackupRecord]) -> Result<()> {
    let types = [TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, INT, INT, INT, TEXT, INT, TEXT, INT, TEXT, TEXT, INT];
    let mut last = number_backups(tx).await?;
    for chunk in sized_chunks(backups) {
        let rows = values_clause(chunk.len(), &types);
        let sql = format!("insert into backups ({COLUMNS}, seq) {rows} on conflict (id) do nothing");
        let numbered = |sql, backup| {
            last += 1;
            bind_backup(sql, backup).bind(last)
        };
        tx.execute_sql(chunk.iter().fold(dynamic_query(sql), numbered)).await?;
    }
    Ok(())
}

/// Numbers the backups that an older program recorded. Returns the last number.
async fn number_backups(tx: &mut WriteTx) -> Result<i64> {
    let last = tx.fetch_row(sqlx::query("select coalesce(max(seq), 0) as last from backups")).await?;
    let mut last = last.map_or(Ok(0), |row| row::int_column(&row, "last"))?;
    let unnumbered = sqlx::query("select id from backups where seq is null order by taken_at, id");
    for backup in tx.fetch_rows(unnumbered).await? {
        last += 1;
        let sql = sqlx::query("update backups set seq = $2 where id = $1");
        tx.execute_sql(sql.bind(row::text_column(&backup, "id")?).bind(last)).await?;
    }
    Ok(last)
}

/// The backup with this id; `None` when there is none.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn get(tx: &mut ReadTx, id: BackupId) -> Result<Option<BackupRecord>> {
    let sql = format!("select {COLUMNS} from backups where id = $1");
    tx.fetch_row(dynamic_query(sql).bind(id.to_string())).await?.as_ref().map(backup_from_row).transpose()
}

/// The newest backup of a tenant whose `taken_at` is at most `at` (`None`: the newest of all). After clock changes it
/// need not have the latest `taken_at`; see [`is_disputed`].
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn newest_backup(tx: &mut ReadTx, tenant: TenantId, at: Option<i64>) -> Result<Option<BackupRecord>> {
    let sql = format!(
        "select {COLUMNS} from backups where tenant_id = $1 and taken_at <= $2 order by {NEWEST_FIRST} limit 1"
    );
    let row = tx.fetch_row(dynamic_query(sql).bind(tenant.to_string()).bind(at.unwrap_or(i64::MAX))).await?;
    row.as_ref().map(backup_from_row).transpose()
}

/// The newest backup of a tenant at this version.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn newest_at_version(tx: &mut ReadTx, tenant: TenantId, version: i64) -> Result<Option<BackupRecord>> {
    let sql = format!(
        "select {COLUMNS} from backups where tenant_id = $1 and schema_version = $2 order by {NEWEST_FIRST} limit 1"
    );
    let row = tx.fetch_row(dynamic_query(sql).bind(tenant.to_string()).bind(version)).await?;
    row.as_ref().map(backup_from_row).transpose()
}

/// True when a backup of this tenant at this version was verified without finding a problem.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn is_proved(tx: &mut ReadTx, tenant: TenantId, version: Option<i64>) -> Result<bool> {
    let sql = "select 1 as found from backups where tenant_id = $1 and coalesce(schema_version, -1) = $2 \
               and verified_at is not null and verify_error is null limit 1";
    let sql = sqlx::query(sql).bind(tenant.to_string()).bind(version.unwrap_or(-1));
    Ok(tx.fetch_row(sql).await?.is_some())
}

/// True when an older backup than `backup` has a time later than `at`. A clock was wrong then, so times of this
/// tenant's backups are uncertain.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn is_disputed(tx: &mut ReadTx, backup: &BackupRecord, at: i64) -> Result<bool> {
    let sql = "select 1 as found from backups where tenant_id = $1 and taken_at > $2 \
               and seq < (select seq from backups where id = $3) limit 1";
    let sql = sqlx::query(sql).bind(backup.tenant_id.to_string()).bind(at).bind(backup.id.to_string());
    Ok(tx.fetch_row(sql).await?.is_some())
}

/// A page, newest first, of backups older than `after`, of one tenant if given.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn list_backups(
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
    let sql = arguments.into_iter().fold(dynamic_query(sql), |sql, id| sql.bind(id));
    tx.fetch_rows(sql.bind(capped_limit(page_limit))).await?.iter().map(backup_from_row).collect()
}

/// The earliest and the latest `taken_at` of all backups, milliseconds since 1970.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn backup_span(tx: &mut ReadTx) -> Result<(Option<i64>, Option<i64>)> {
    let row = tx.fetch_row(sqlx::query("select min(taken_at) as oldest, max(taken_at) as newest from backups")).await?;
    let Some(row) = row else { return Ok((None, None)) };
    Ok((row::nullable_int(&row, "oldest")?, row::nullable_int(&row, "newest")?))
}

/// The ages of the newest backups of tenants whose database is served or suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupFreshness {
    /// Number of tenants that should have a backup.
    pub tenants: i64,
    /// Of these, the number of older tenants without any backup.
    pub never: i64,
    /// Of these, the number of new tenants without any backup.
    pub young: i64,
    /// Of these, the number whose newest backup is too old.
    pub stale: i64,
    /// Of these, the number with a backup whose time is in the future.
    pub in_future: i64,
}

/// Checks each tenant's backups: `stale` are those from before `old`, `in_future` those from after `ahead`. A backup in
/// the future does not count as fresh.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn backup_freshness(tx: &mut ReadTx, old: i64, ahead: i64) -> Result<BackupFreshness> {
    let sql = "select count(*) as tenants, \
                 count(case when b.latest is null and t.created_at < $1 then 1 end) as never, \
                 count(case when b.latest is null and t.created_at >= $1 then 1 end) as young, \
                 count(case when b.latest is not null and (b.believed is null or b.believed < $1) then 1 end) as stale, \
                 count(case when b.latest > $2 then 1 end) as ahead \
               from tenants t left join (select tenant_id, max(taken_at) as latest, \
                 max(case when taken_at <= $2 then taken_at end) as believed from backups group by tenant_id) b \
                 on b.tenant_id = t.id where t.state in ('active', 'suspended')";
    let row = tx.fetch_row(sqlx::query(sql).bind(old).bind(ahead)).await?;
    let row = row.ok_or_else(|| Error::new(ErrorKind::Corrupt, "the catalog returned no count"))?;
    Ok(BackupFreshness {
        tenants: row::int_column(&row, "tenants")?,
        never: row::int_column(&row, "never")?,
        young: row::int_column(&row, "young")?,
        stale: row::int_column(&row, "stale")?,
        in_future: row::int_column(&row, "ahead")?,
    })
}

/// The manifest keys of the newest backups.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn last_keys(tx: &mut ReadTx, most: u32) -> Result<Vec<String>> {
    let sql = format!("select object_key from backups order by {NEWEST_FIRST} limit $1");
    tx.fetch_rows(dynamic_query(sql).bind(capped_limit(most)))
        .await?
        .iter()
        .map(|row| row::text_column(row, "object_key"))
        .collect()
}

/// Records a verification with the current time; `None` when it found no problem.
///
/// # Errors
/// `NotFound` when the backup does not exist.
pub async fn set_verified(tx: &mut WriteTx, id: BackupId, error: Option<&str>) -> Result<()> {
    let now = tx.now();
    let sql = sqlx::query("update backups set verified_at = $2, verify_error = $3 where id = $1");
    match tx.execute_sql(sql.bind(id.to_string()).bind(now).bind(error.map(str::to_owned))).await? {
        0 => Err(Error::new(ErrorKind::NotFound, format!("there is no backup {id}"))),
        _ => Ok(()),
    }
}

fn bind_backup<'q>(sql: SqlQuery<'q>, backup: &BackupRecord) -> SqlQuery<'q> {
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
        .bind(backup.store.clone())
}

fn backup_from_row(row: &AnyRow) -> Result<BackupRecord> {
    Ok(BackupRecord {
        id: row::parsed_column(row, "id")?,
        tenant_id: row::parsed_column(row, "tenant_id")?,
        op_id: row::nullable_id(row, "op_id")?,
        object_key: row::text_column(row, "object_key")?,
        engine: row::parsed_column(row, "engine")?,
        content_hash: row::text_column(row, "content_hash")?,
        size_bytes: row::int_column(row, "size_bytes")?,
        stored_bytes: row::int_column(row, "stored_bytes")?,
        schema_version: row::nullable_int(row, "schema_version")?,
        reason: row::text_column(row, "reason")?,
        taken_at: row::int_column(row, "taken_at")?,
        manifest_sha256: row::nullable_text(row, "manifest_sha256")?,
        verified_at: row::nullable_int(row, "verified_at")?,
        verify_error: row::nullable_text(row, "verify_error")?,
        store: row::nullable_text(row, "store")?,
    })
}
