//! The compare-and-set changes of tenants: a change based on an older generation is refused.

use std::collections::HashSet;

use crate::bulk::{INT, SqlQuery, TEXT, distinct_rounds, dynamic_query, sized_chunks, values_clause};
use crate::changes;
use crate::db::WriteTx;
use crate::domains;
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
pub async fn update_many(tx: &mut WriteTx, updates: &[TenantUpdate]) -> Result<Vec<TenantId>> {
    let mut stale = Vec::new();
    for round in distinct_rounds(updates, |update| update.tenant) {
        for chunk in sized_chunks(&round) {
            let applied = update_chunk(tx, chunk).await?;
            changes::append_changes(tx, &applied).await?;
            let applied: HashSet<TenantId> = applied.into_iter().collect();
            free_domains(tx, chunk, &applied).await?;
            stale.extend(chunk.iter().map(|update| update.tenant).filter(|tenant| !applied.contains(tenant)));
        }
    }
    Ok(stale)
}

/// Removes the domains of the tenants that this update purged.
async fn free_domains(tx: &mut WriteTx, updates: &[&TenantUpdate], applied: &HashSet<TenantId>) -> Result<()> {
    let is_purged =
        |update: &&&TenantUpdate| update.state == Some(TenantState::Purged) && applied.contains(&update.tenant);
    let purged: Vec<TenantId> = updates.iter().filter(is_purged).map(|update| update.tenant).collect();
    domains::remove_all_domains(tx, &purged).await
}

/// Condition of an update after which the tenant does not wait to wake.
const AWAKE: &str = "v.new_state not in ('archived', 'deleted')";

/// Applies updates of distinct tenants in one statement. Clears values of waking that an older process left behind.
/// Returns the tenants that were updated.
async fn update_chunk(tx: &mut WriteTx, updates: &[&TenantUpdate]) -> Result<Vec<TenantId>> {
    let types = [TEXT, INT, INT, INT, TEXT, TEXT, TEXT, TEXT, TEXT, INT, INT, TEXT, INT, INT, INT, TEXT, TEXT, TEXT];
    let now = updates.len() * types.len() + 1;
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
        rows = values_clause(updates.len(), &types)
    );
    let sql = updates.iter().fold(dynamic_query(sql), |sql, update| bind_update(sql, update)).bind(tx.now());
    let rows = tx.fetch_rows(sql).await.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Error::new(ErrorKind::Conflict, "the placement belongs to another tenant").with_source(error)
        }
        _ => error,
    })?;
    rows.iter().map(|row| row::parsed_column(row, "id")).collect()
}

/// The values of one update in the order of its statement. `sets` has a bit for each column that may become null.
fn bind_update<'q>(sql: SqlQuery<'q>, update: &TenantUpdate) -> SqlQuery<'q> {
    let sets = [
        update.reason.is_some(),
        update.block_writes.is_some(),
        update.placement.is_some(),
        update.purge_after.is_some(),
        update.schema_version.is_some(),
        update.release_id.is_some(),
        update.pin.is_some(),
    ];
    let sets = sets.iter().rev().fold(0i64, |bits, set| bits * 2 + i64::from(*set));
    sql.bind(update.tenant.to_string())
        .bind(update.from.0)
        .bind(update.to.map_or(update.from.0 + 1, |to| to.0.max(update.from.0 + 1)))
        .bind(sets)
        .bind(update.state.map(|state| state.stored_text()))
        .bind(update.reason.clone().flatten())
        .bind(update.block_writes.flatten().map(|block| block.stored_text()))
        .bind(update.placement.clone().flatten())
        .bind(update.server_id.map(|id| id.to_string()))
        .bind(update.purge_after.flatten())
        .bind(update.schema_version.flatten())
        .bind(update.release_id.flatten().map(|id| id.to_string()))
        .bind(update.size_bytes)
        .bind(update.pin.flatten().map(|pin| pin.below))
        .bind(update.pin.flatten().map(|pin| pin.at))
        .bind(update.pin.flatten().map(|pin| pin.op.to_string()))
        .bind(update.wake_state.map(|state| state.stored_text()))
        .bind(update.archive_backup_id.map(|id| id.to_string()))
}
