//! Databases that are no longer current but kept until a date: what undo returns to.
//!
//! Which of two was replaced last is told by their generations: a tenant's only grow. Times are for people.

use sqlx::any::AnyRow;

use crate::bulk::{built, limit};
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Generation, OperationId, ServerId, TenantId};
use crate::row;
use crate::tenant::Pin;

const COLUMNS: &str = "tenant_id, server_id, placement, generation, reason, op_id, schema_version, created_at, keep_until, \
     pinned_below, pinned_at, pinned_op";

/// One row of `retained`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedRecord {
    /// Whose it was.
    pub tenant_id: TenantId,
    /// Where it is.
    pub server_id: ServerId,
    /// Where it is.
    pub placement: String,
    /// Stamped into it.
    pub generation: Generation,
    /// restore or move.
    pub reason: String,
    /// The operation that replaced it.
    pub op_id: OperationId,
    /// Its ledger's newest version, when it was replaced.
    pub schema_version: Option<i64>,
    /// The tenant's pin, when it was replaced.
    pub pin: Option<Pin>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub keep_until: i64,
}

/// Keeps a database; what was known of one at this place is replaced.
///
/// # Errors
/// `NotFound` for the tenant or the server.
pub async fn insert(tx: &mut WriteTx, record: &RetainedRecord) -> Result<()> {
    let sql = format!(
        "insert into retained ({COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
         on conflict (server_id, placement) do update set tenant_id = excluded.tenant_id, \
         generation = excluded.generation, reason = excluded.reason, op_id = excluded.op_id, \
         schema_version = excluded.schema_version, created_at = excluded.created_at, keep_until = excluded.keep_until, \
         pinned_below = excluded.pinned_below, pinned_at = excluded.pinned_at, pinned_op = excluded.pinned_op"
    );
    let sql = built(sql)
        .bind(record.tenant_id.to_string())
        .bind(record.server_id.to_string())
        .bind(record.placement.clone())
        .bind(record.generation.0)
        .bind(record.reason.clone())
        .bind(record.op_id.to_string())
        .bind(record.schema_version)
        .bind(record.created_at)
        .bind(record.keep_until)
        .bind(record.pin.map(|pin| pin.below))
        .bind(record.pin.map(|pin| pin.at))
        .bind(record.pin.map(|pin| pin.op.to_string()));
    tx.run(sql).await.map(|_| ())
}

/// The one of a tenant that was replaced last before this generation, for this reason.
///
/// # Errors
/// `Unavailable`.
pub async fn newest(
    tx: &mut ReadTx,
    tenant: TenantId,
    reason: &str,
    before: Generation,
) -> Result<Option<RetainedRecord>> {
    let sql = format!(
        "select {COLUMNS} from retained where tenant_id = $1 and reason = $2 and generation < $3 \
         order by generation desc, op_id desc limit 1"
    );
    let row = tx.one(built(sql).bind(tenant.to_string()).bind(reason.to_owned()).bind(before.0)).await?;
    row.as_ref().map(of_row).transpose()
}

/// Those of a tenant, the last replaced first.
///
/// # Errors
/// `Unavailable`.
pub async fn of_tenant(tx: &mut ReadTx, tenant: TenantId) -> Result<Vec<RetainedRecord>> {
    let sql = format!("select {COLUMNS} from retained where tenant_id = $1 order by generation desc, op_id desc");
    tx.all(built(sql).bind(tenant.to_string())).await?.iter().map(of_row).collect()
}

/// Those on a server, in the order of their placements.
///
/// # Errors
/// `Unavailable`.
pub async fn on_server(tx: &mut ReadTx, server: ServerId) -> Result<Vec<RetainedRecord>> {
    let sql = format!("select {COLUMNS} from retained where server_id = $1 order by placement");
    tx.all(built(sql).bind(server.to_string())).await?.iter().map(of_row).collect()
}

/// Those whose time is over, oldest first.
///
/// # Errors
/// `Unavailable`.
pub async fn expired(tx: &mut ReadTx, now: i64, page_limit: u32) -> Result<Vec<RetainedRecord>> {
    let sql = format!("select {COLUMNS} from retained where keep_until <= $1 order by keep_until, placement limit $2");
    tx.all(built(sql).bind(now).bind(limit(page_limit))).await?.iter().map(of_row).collect()
}

/// Forgets one: it is current again, or dropped.
///
/// # Errors
/// `NotFound`.
pub async fn remove(tx: &mut WriteTx, server: ServerId, placement: &str) -> Result<()> {
    let sql = sqlx::query("delete from retained where server_id = $1 and placement = $2");
    match tx.run(sql.bind(server.to_string()).bind(placement.to_owned())).await? {
        0 => Err(Error::new(ErrorKind::NotFound, "no such database is kept")),
        _ => Ok(()),
    }
}

fn of_row(row: &AnyRow) -> Result<RetainedRecord> {
    Ok(RetainedRecord {
        tenant_id: row::parsed(row, "tenant_id")?,
        server_id: row::parsed(row, "server_id")?,
        placement: row::text(row, "placement")?,
        generation: Generation(row::int(row, "generation")?),
        reason: row::text(row, "reason")?,
        op_id: row::parsed(row, "op_id")?,
        schema_version: row::int_or_null(row, "schema_version")?,
        pin: crate::tenants::pin_of_row(row)?,
        created_at: row::int(row, "created_at")?,
        keep_until: row::int(row, "keep_until")?,
    })
}
