//! Replacements of tenants' databases that are under way: what an operation has done while it blocks a tenant's writes.
//!
//! The control plane writes a row in the transaction that blocks the writes, and removes it in the transaction that
//! allows them again. Only an older program blocks writes without a row.

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use crate::bulk::dynamic_query;
use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::{Generation, OperationId, ReleaseId, ServerId, TenantId};
use crate::row;
use crate::tenant::{BlockWrites, SchemaPin};
use crate::text_enum::TextEnum;

const COLUMNS: &str = "tenant_id, op_id, kind, stage, generation, server_id, placement, found, new_server_id, \
     new_placement, new_generation, new_schema_version, new_release_id, new_size_bytes, new_pinned_below, \
     new_pinned_at, new_pinned_op, previous_block, previous_reason, fenced_at";

/// Why a database is replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplacementKind {
    /// The new database was filled from a backup.
    #[default]
    Restore,
    /// The new database was a retained one.
    Undo,
    /// The new database is a copy on another server.
    Move,
    /// There is no new database: the tenant is archived.
    Archive,
}

/// How far a replacement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplacementStage {
    /// Writes are blocked. There is no new database yet.
    Fenced,
    /// The new database is complete. It may be stamped as active, and the current one as retired.
    Ready,
    /// The operation has given up. The current database is to serve again, and the new one is not needed.
    RollingBack,
}

/// The condition of the current database when its writes were blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FencedDatabase {
    /// The database is sound. It is retained, and can serve again.
    Frozen,
    /// The database is not what the catalog expects. It is retained for inspection, but never serves again
    /// automatically.
    Damaged,
    /// The database does not exist.
    Missing,
}

/// A new database that is ready to take the place of the current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDatabase {
    /// The server that holds it.
    pub server_id: ServerId,
    /// Its placement on that server.
    pub placement: String,
    /// The generation stamped into it.
    pub generation: Generation,
    /// Its ledger's newest version.
    pub schema_version: Option<i64>,
    /// The release at whose head it is.
    pub release_id: Option<ReleaseId>,
    /// Its size in bytes.
    pub size_bytes: i64,
    /// The pin that the tenant gets with it.
    pub pin: Option<SchemaPin>,
}

/// One row of `replacements`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplacementRecord {
    /// The tenant whose database is replaced.
    pub tenant_id: TenantId,
    /// The operation that replaces it.
    pub op_id: OperationId,
    /// Why it is replaced.
    pub kind: ReplacementKind,
    /// How far the replacement is.
    pub stage: ReplacementStage,
    /// The tenant's generation since the block. A row with another generation is out of date.
    pub generation: Generation,
    /// The server of the current database.
    pub server_id: ServerId,
    /// The placement of the current database; `None` when the tenant had none.
    pub placement: Option<String>,
    /// The condition of the current database when writes were blocked.
    pub found: FencedDatabase,
    /// The new database, from the stage `Ready` on.
    pub new: Option<NewDatabase>,
    /// The block of writes that the tenant gets back.
    pub previous_block: Option<BlockWrites>,
    /// The reason that the tenant gets back.
    pub previous_reason: Option<String>,
    /// Since when writes are blocked, milliseconds since 1970. Only for people, because clocks may be changed.
    pub fenced_at: i64,
}

/// The replacement of a tenant's database that is under way; `None` when there is none.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable; `Corrupt` when a newer program wrote the row.
pub async fn of_tenant(tx: &mut ReadTx, tenant: TenantId) -> Result<Option<ReplacementRecord>> {
    let sql = format!("select {COLUMNS} from replacements where tenant_id = $1");
    tx.fetch_row(dynamic_query(sql).bind(tenant.to_string())).await?.as_ref().map(record_from_row).transpose()
}

/// Records a replacement, or how far it is now.
///
/// # Errors
/// `NotFound` for an unknown tenant.
pub async fn put_replacement(tx: &mut WriteTx, record: &ReplacementRecord) -> Result<()> {
    end_replacement(tx, record.tenant_id).await?;
    let values = (1..=20).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
    let new = record.new.as_ref();
    let pin = new.and_then(|new| new.pin);
    let sql = dynamic_query(format!("insert into replacements ({COLUMNS}) values ({values})"))
        .bind(record.tenant_id.to_string())
        .bind(record.op_id.to_string())
        .bind(record.kind.stored_text())
        .bind(record.stage.stored_text())
        .bind(record.generation.0)
        .bind(record.server_id.to_string())
        .bind(record.placement.clone())
        .bind(record.found.stored_text())
        .bind(new.map(|new| new.server_id.to_string()))
        .bind(new.map(|new| new.placement.clone()))
        .bind(new.map(|new| new.generation.0))
        .bind(new.and_then(|new| new.schema_version))
        .bind(new.and_then(|new| new.release_id).map(|id| id.to_string()))
        .bind(new.map(|new| new.size_bytes))
        .bind(pin.map(|pin| pin.below))
        .bind(pin.map(|pin| pin.at))
        .bind(pin.map(|pin| pin.op.to_string()))
        .bind(record.previous_block.map(|block| block.stored_text()))
        .bind(record.previous_reason.clone())
        .bind(record.fenced_at);
    tx.execute_sql(sql).await.map(drop)
}

/// Removes the record of a tenant's replacement, if there is one: it was finished or given up.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn end_replacement(tx: &mut WriteTx, tenant: TenantId) -> Result<()> {
    let sql = sqlx::query("delete from replacements where tenant_id = $1").bind(tenant.to_string());
    tx.execute_sql(sql).await.map(drop)
}

fn record_from_row(row: &AnyRow) -> Result<ReplacementRecord> {
    Ok(ReplacementRecord {
        tenant_id: row::parsed_column(row, "tenant_id")?,
        op_id: row::parsed_column(row, "op_id")?,
        kind: row::enum_column(row, "kind")?,
        stage: row::enum_column(row, "stage")?,
        generation: Generation(row::int_column(row, "generation")?),
        server_id: row::parsed_column(row, "server_id")?,
        placement: row::nullable_text(row, "placement")?,
        found: row::enum_column(row, "found")?,
        new: new_database_from_row(row)?,
        previous_block: row::nullable_enum(row, "previous_block")?,
        previous_reason: row::nullable_text(row, "previous_reason")?,
        fenced_at: row::int_column(row, "fenced_at")?,
    })
}

fn new_database_from_row(row: &AnyRow) -> Result<Option<NewDatabase>> {
    let Some(placement) = row::nullable_text(row, "new_placement")? else { return Ok(None) };
    let (below, at) = (row::nullable_int(row, "new_pinned_below")?, row::nullable_int(row, "new_pinned_at")?);
    let pin = below.zip(at).zip(row::nullable_id(row, "new_pinned_op")?);
    Ok(Some(NewDatabase {
        server_id: row::parsed_column(row, "new_server_id")?,
        placement,
        generation: Generation(row::int_column(row, "new_generation")?),
        schema_version: row::nullable_int(row, "new_schema_version")?,
        release_id: row::nullable_id(row, "new_release_id")?,
        size_bytes: row::int_column(row, "new_size_bytes")?,
        pin: pin.map(|((below, at), op)| SchemaPin { below, at, op }),
    }))
}

impl TextEnum for ReplacementKind {
    const NOUN: &'static str = "kind of replacement";
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Restore, "restore"), (Self::Undo, "undo"), (Self::Move, "move"), (Self::Archive, "archive")];
}

impl TextEnum for ReplacementStage {
    const NOUN: &'static str = "stage of a replacement";
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Fenced, "fenced"), (Self::Ready, "ready"), (Self::RollingBack, "rolling_back")];
}

impl TextEnum for FencedDatabase {
    const NOUN: &'static str = "condition of a replaced database";
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Frozen, "frozen"), (Self::Damaged, "damaged"), (Self::Missing, "missing")];
}
