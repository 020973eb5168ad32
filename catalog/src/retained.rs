//! Retained databases: replaced databases that are kept until a date, for undo.
//!
//! A tenant's generations only grow, so they tell which of two databases was replaced later. Times are for people.

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use crate::bulk::{capped_limit, dynamic_query};
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Generation, OperationId, ServerId, TenantId};
use crate::row;
use crate::tenant::SchemaPin;
use crate::text_enum::TextEnum;

const COLUMNS: &str = "tenant_id, server_id, placement, generation, reason, op_id, schema_version, created_at, keep_until, \
     pinned_below, pinned_at, pinned_op";

/// The reason why a database is retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetainedReason {
    /// A restore or an undo replaced it. An undo can return to it.
    Restore,
    /// The tenant was moved, and this is the database on the previous server.
    Move,
    /// The tenant was archived, and the database is about to be dropped.
    Archive,
    /// It is the new database of a replacement that was given up, and may have served.
    GivenUp,
    /// It was replaced because it was not what the catalog expected. It never serves again automatically.
    Damaged,
}

impl RetainedReason {
    /// The text of the reason in the catalog and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.stored_text()
    }
}

impl TextEnum for RetainedReason {
    const NOUN: &'static str = "reason of a retained database";
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Restore, "restore"),
        (Self::Move, "move"),
        (Self::Archive, "archive"),
        (Self::GivenUp, "given_up"),
        (Self::Damaged, "damaged"),
    ];
}

/// One row of `retained`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedRecord {
    /// The tenant that used the database.
    pub tenant_id: TenantId,
    /// The server of the database.
    pub server_id: ServerId,
    /// Its placement on that server.
    pub placement: String,
    /// The generation stamped into it.
    pub generation: Generation,
    /// Why it is retained.
    pub reason: RetainedReason,
    /// The operation that replaced it.
    pub op_id: OperationId,
    /// Its ledger's newest version, when it was replaced.
    pub schema_version: Option<i64>,
    /// The tenant's pin, when it was replaced.
    pub pin: Option<SchemaPin>,
    /// Time of the replacement, milliseconds since 1970.
    pub created_at: i64,
    /// Time until which it is kept, milliseconds since 1970.
    pub keep_until: i64,
}

/// Records a retained database; replaces an existing record of this placement.
///
/// # Errors
/// `NotFound` for an unknown tenant or server.
pub async fn insert_retained(tx: &mut WriteTx, record: &RetainedRecord) -> Result<()> {
    let sql = format!(
        "insert into retained ({COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
         on conflict (server_id, placement) do update set tenant_id = excluded.tenant_id, \
         generation = excluded.generation, reason = excluded.reason, op_id = excluded.op_id, \
         schema_version = excluded.schema_version, created_at = excluded.created_at, keep_until = excluded.keep_until, \
         pinned_below = excluded.pinned_below, pinned_at = excluded.pinned_at, pinned_op = excluded.pinned_op"
    );
    let sql = dynamic_query(sql)
        .bind(record.tenant_id.to_string())
        .bind(record.server_id.to_string())
        .bind(record.placement.clone())
        .bind(record.generation.0)
        .bind(record.reason.stored_text())
        .bind(record.op_id.to_string())
        .bind(record.schema_version)
        .bind(record.created_at)
        .bind(record.keep_until)
        .bind(record.pin.map(|pin| pin.below))
        .bind(record.pin.map(|pin| pin.at))
        .bind(record.pin.map(|pin| pin.op.to_string()));
    tx.execute_sql(sql).await.map(|_| ())
}

/// The tenant's last database that was replaced before this generation, for this reason.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn newest_retained(
    tx: &mut ReadTx,
    tenant: TenantId,
    reason: RetainedReason,
    before: Generation,
) -> Result<Option<RetainedRecord>> {
    let sql = format!(
        "select {COLUMNS} from retained where tenant_id = $1 and reason = $2 and generation < $3 \
         order by generation desc, op_id desc limit 1"
    );
    let row =
        tx.fetch_row(dynamic_query(sql).bind(tenant.to_string()).bind(reason.stored_text()).bind(before.0)).await?;
    row.as_ref().map(retained_from_row).transpose()
}

/// The retained databases of a tenant, last replaced first.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn of_tenant(tx: &mut ReadTx, tenant: TenantId) -> Result<Vec<RetainedRecord>> {
    let sql = format!("select {COLUMNS} from retained where tenant_id = $1 order by generation desc, op_id desc");
    tx.fetch_rows(dynamic_query(sql).bind(tenant.to_string())).await?.iter().map(retained_from_row).collect()
}

/// The retained databases on a server, in the order of their placements.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn on_server(tx: &mut ReadTx, server: ServerId) -> Result<Vec<RetainedRecord>> {
    let sql = format!("select {COLUMNS} from retained where server_id = $1 order by placement");
    tx.fetch_rows(dynamic_query(sql).bind(server.to_string())).await?.iter().map(retained_from_row).collect()
}

/// Retained databases whose time is over, oldest first.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn expired_retained(tx: &mut ReadTx, now: i64, page_limit: u32) -> Result<Vec<RetainedRecord>> {
    let sql = format!("select {COLUMNS} from retained where keep_until <= $1 order by keep_until, placement limit $2");
    tx.fetch_rows(dynamic_query(sql).bind(now).bind(capped_limit(page_limit)))
        .await?
        .iter()
        .map(retained_from_row)
        .collect()
}

/// Removes the record: the database is current again, or dropped.
///
/// # Errors
/// `NotFound` when there is no such record.
pub async fn remove_retained(tx: &mut WriteTx, server: ServerId, placement: &str) -> Result<()> {
    let sql = sqlx::query("delete from retained where server_id = $1 and placement = $2");
    match tx.execute_sql(sql.bind(server.to_string()).bind(placement.to_owned())).await? {
        0 => Err(Error::new(ErrorKind::NotFound, "there is no such retained database")),
        _ => Ok(()),
    }
}

fn retained_from_row(row: &AnyRow) -> Result<RetainedRecord> {
    Ok(RetainedRecord {
        tenant_id: row::parsed_column(row, "tenant_id")?,
        server_id: row::parsed_column(row, "server_id")?,
        placement: row::text_column(row, "placement")?,
        generation: Generation(row::int_column(row, "generation")?),
        reason: row::enum_column(row, "reason")?,
        op_id: row::parsed_column(row, "op_id")?,
        schema_version: row::nullable_int(row, "schema_version")?,
        pin: crate::tenants::pin_of_row(row)?,
        created_at: row::int_column(row, "created_at")?,
        keep_until: row::int_column(row, "keep_until")?,
    })
}
