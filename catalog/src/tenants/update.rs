//! The compare-and-set changes of tenants: a change based on an older generation is refused.

use std::collections::HashSet;

use crate::bulk::{INT, SqlQuery, TEXT, distinct_rounds, dynamic_query, sized_chunks, values_clause};
use crate::changes;
use crate::db::WriteTx;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{BackupId, Generation, ReleaseId, ServerId, TenantId};
use crate::row;
use crate::tenant::{BlockWrites, SchemaPin, TenantState};
use crate::text_enum::TextEnum as _;

/// A compare-and-set update of one tenant. It applies only if the generation is still `from`, which becomes the next
/// one. Appends to the change feed. `None` leaves a column unchanged; `Some(None)` clears it.
#[derive(Debug, Clone)]
pub struct TenantUpdate {
    /// The tenant to change.
    pub tenant: TenantId,
    /// The generation that the caller read; it must equal the row's.
    pub from: Generation,
    /// The new generation, if it must be greater than the next one.
    pub to: Option<Generation>,
    /// The new state.
    pub state: Option<TenantState>,
    /// The new reason for the state.
    pub reason: Option<Option<String>>,
    /// The new block of writes.
    pub block_writes: Option<Option<BlockWrites>>,
    /// The new state in which the tenant wakes, for a tenant that becomes archived or deleted. Any other new state clears
    /// it.
    pub wake_state: Option<TenantState>,
    /// The new backup from which the tenant comes back, for a tenant that becomes archived. Any other new state but
    /// deleted clears it.
    pub archive_backup_id: Option<BackupId>,
    /// The new placement.
    pub placement: Option<Option<String>>,
    /// The new server.
    pub server_id: Option<ServerId>,
    /// For a deleted tenant: the earliest time of the purge.
    pub purge_after: Option<Option<i64>>,
    /// The new hint of the schema version, if known.
    pub schema_version: Option<Option<i64>>,
    /// The new hint of the release, if known.
    pub release_id: Option<Option<ReleaseId>>,
    /// The new pin.
    pub pin: Option<Option<SchemaPin>>,
    /// The new hint of the size in bytes, if known.
    pub size_bytes: Option<i64>,
}

impl TenantUpdate {
    /// An update that changes only the generation.
    #[must_use]
    pub fn for_generation(tenant: TenantId, from: Generation) -> Self {
        Self {
            tenant,
            from,
            to: None,
            state: None,
            reason: None,
            block_writes: None,
            wake_state: None,
            archive_backup_id: None,
            placement: None,
            server_id: None,
            purge_after: None,
            schema_version: None,
            release_id: None,
            pin: None,
            size_bytes: None,
        }
    }
}

/// Applies each update whose tenant is still at its `from`. Returns the tenants whose update was not applied. Two
/// updates of one tenant are applied in order.
///
/// # Errors
/// `Conflict` when another tenant has a placement; the transaction must not be committed then.
pub async fn update_many(tx: &mut WriteTx, flips: &[TenantUpdate]) -> Result<Vec<TenantId>> {
    let mut stale = Vec::new();
    for round in distinct_rounds(flips, |flip| flip.tenant) {
        for chunk in sized_chunks(&round) {
            let applied = update_chunk(tx, chunk).await?;
            changes::append_changes(tx, &applied).await?;
            let applied: HashSet<TenantId> = applied.into_iter().collect();
            stale.extend(chunk.iter().map(|flip| flip.tenant).filter(|tenant| !applied.contains(tenant)));
        }
    }
    Ok(stale)
}

/// Condition of an update after which the tenant does not wait to wake.
const AWAKE: &str = "v.new_state not in ('archived', 'deleted')";

/// Applies updates of distinct tenants in one statement. Clears values of waking that an older process left behind.
/// Returns the tenants that were updated.
async fn update_chunk(tx: &mut WriteTx, flips: &[&TenantUpdate]) -> Result<Vec<TenantId>> {
    let types = [TEXT, INT, INT, INT, TEXT, TEXT, TEXT, TEXT, TEXT, INT, INT, TEXT, INT, INT, INT, TEXT, TEXT, TEXT];
    let now = flips.len() * types.len() + 1;
    let sql = format!(
        "with v(tenant_id, was, next, sets, new_state, reason, block, place, server, purge, version, release, size, \
           pin_below, pin_at, pin_op, wake, archive) as ({rows}) \
         update tenants set generation = v.next, updated_at = ${now}, \
           state = coalesce(v.new_state, state), \
           deleted_at = case when v.new_state = 'deleted' then ${now} when v.new_state is null or v.new_state = 'purged' \
             then deleted_at else null end, \
           state_reason = case when (v.sets & 1) > 0 then v.reason else state_reason end, \
           block_writes = case when (v.sets & 2) > 0 then v.block else block_writes end, \
           placement = case when (v.sets & 4) > 0 then v.place else placement end, \
           server_id = coalesce(v.server, server_id), \
           wake_requested_at = case when v.new_state is null then wake_requested_at else null end, \
           purge_after = case when (v.sets & 8) > 0 then v.purge else purge_after end, \
           schema_version = case when (v.sets & 16) > 0 then v.version else schema_version end, \
           release_id = case when (v.sets & 32) > 0 then v.release else release_id end, \
           ledger_release_id = case when (v.sets & 32) > 0 then v.release else ledger_release_id end, \
           size_bytes = coalesce(v.size, size_bytes), \
           pinned_below = case when (v.sets & 64) > 0 then v.pin_below else pinned_below end, \
           pinned_at = case when (v.sets & 64) > 0 then v.pin_at else pinned_at end, \
           pinned_op = case when (v.sets & 64) > 0 then v.pin_op else pinned_op end, \
           wake_state = case when {AWAKE} then null when v.wake is not null then v.wake \
             when wake_generation = v.was then wake_state else null end, \
           archive_backup_id = case when {AWAKE} then null when v.archive is not null then v.archive \
             when wake_generation = v.was then archive_backup_id else null end, \
           wake_generation = v.next \
         from v where tenants.id = v.tenant_id and tenants.generation = v.was returning tenants.id",
        rows = values_clause(flips.len(), &types)
    );
    let sql = flips.iter().fold(dynamic_query(sql), |sql, flip| bind_update(sql, flip)).bind(tx.now());
    let rows = tx.fetch_rows(sql).await.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Error::new(ErrorKind::Conflict, "the placement belongs to another tenant").with_source(error)
        }
        _ => error,
    })?;
    rows.iter().map(|row| row::parsed_column(row, "id")).collect()
}

/// The values of one update in the order of its statement. `sets` has a bit for each column that may become null.
fn bind_update<'q>(sql: SqlQuery<'q>, flip: &TenantUpdate) -> SqlQuery<'q> {
    let sets = [
        flip.reason.is_some(),
        flip.block_writes.is_some(),
        flip.placement.is_some(),
        flip.purge_after.is_some(),
        flip.schema_version.is_some(),
        flip.release_id.is_some(),
        flip.pin.is_some(),
    ];
    let sets = sets.iter().rev().fold(0i64, |bits, set| bits * 2 + i64::from(*set));
    sql.bind(flip.tenant.to_string())
        .bind(flip.from.0)
        .bind(flip.to.map_or(flip.from.0 + 1, |to| to.0.max(flip.from.0 + 1)))
        .bind(sets)
        .bind(flip.state.map(|state| state.stored_text()))
        .bind(flip.reason.clone().flatten())
        .bind(flip.block_writes.flatten().map(|block| block.stored_text()))
        .bind(flip.placement.clone().flatten())
        .bind(flip.server_id.map(|id| id.to_string()))
        .bind(flip.purge_after.flatten())
        .bind(flip.schema_version.flatten())
        .bind(flip.release_id.flatten().map(|id| id.to_string()))
        .bind(flip.size_bytes)
        .bind(flip.pin.flatten().map(|pin| pin.below))
        .bind(flip.pin.flatten().map(|pin| pin.at))
        .bind(flip.pin.flatten().map(|pin| pin.op.to_string()))
        .bind(flip.wake_state.map(|state| state.stored_text()))
        .bind(flip.archive_backup_id.map(|id| id.to_string()))
}
