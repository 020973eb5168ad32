//! The compare-and-set changes of tenants: whoever read the older generation loses.

use std::collections::HashSet;

use crate::bulk::{INT, Sql, TEXT, built, chunks, rounds, values};
use crate::changes;
use crate::db::WriteTx;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Generation, ReleaseId, ServerId, TenantId};
use crate::row;
use crate::tenant::{BlockWrites, Pin, TenantState};
use crate::word::Word as _;

/// A compare-and-set on one tenant: applied only where the generation is still `from`, which becomes the next one;
/// appends to the change feed. `None` leaves a column alone; `Some(None)` clears it.
#[derive(Debug, Clone)]
pub struct Flip {
    /// Whose.
    pub tenant: TenantId,
    /// The generation the caller read; the row's must equal it.
    pub from: Generation,
    /// The new generation, where it must be a later one than the next.
    pub to: Option<Generation>,
    /// The new state.
    pub state: Option<TenantState>,
    /// The new reason.
    pub reason: Option<Option<String>>,
    /// Who blocks writes.
    pub block_writes: Option<Option<BlockWrites>>,
    /// The new place.
    pub placement: Option<Option<String>>,
    /// The new server.
    pub server_id: Option<ServerId>,
    /// For a deleted tenant: when it may be purged.
    pub purge_after: Option<Option<i64>>,
    /// Hints, if known by the caller.
    pub schema_version: Option<Option<i64>>,
    /// Hints, if known by the caller.
    pub release_id: Option<Option<ReleaseId>>,
    /// Whether it stays at its version.
    pub pin: Option<Option<Pin>>,
    /// Hints, if known by the caller.
    pub size_bytes: Option<i64>,
}

impl Flip {
    /// A flip that changes nothing but the generation.
    #[must_use]
    pub fn of(tenant: TenantId, from: Generation) -> Self {
        Self {
            tenant,
            from,
            to: None,
            state: None,
            reason: None,
            block_writes: None,
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

/// Applies each flip whose tenant still is at its `from`; returns the tenants that were not. Two flips of one tenant
/// are applied in their order.
///
/// # Errors
/// `Conflict` when a placement is another tenant's; then nothing may be committed.
pub async fn flip_many(tx: &mut WriteTx, flips: &[Flip]) -> Result<Vec<TenantId>> {
    let mut stale = Vec::new();
    for round in rounds(flips, |flip| flip.tenant) {
        for chunk in chunks(&round) {
            let applied = flip_chunk(tx, chunk).await?;
            changes::append(tx, &applied).await?;
            let applied: HashSet<TenantId> = applied.into_iter().collect();
            stale.extend(chunk.iter().map(|flip| flip.tenant).filter(|tenant| !applied.contains(tenant)));
        }
    }
    Ok(stale)
}

/// Applies one statement's worth of flips, each of another tenant; returns the tenants it applied to.
async fn flip_chunk(tx: &mut WriteTx, flips: &[&Flip]) -> Result<Vec<TenantId>> {
    let types = [TEXT, INT, INT, INT, TEXT, TEXT, TEXT, TEXT, TEXT, INT, INT, TEXT, INT, INT, INT, TEXT];
    let now = flips.len() * types.len() + 1;
    let sql = format!(
        "with v(tenant_id, was, next, sets, new_state, reason, block, place, server, purge, version, release, size, \
           pin_below, pin_at, pin_op) as ({rows}) \
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
           pinned_op = case when (v.sets & 64) > 0 then v.pin_op else pinned_op end \
         from v where tenants.id = v.tenant_id and tenants.generation = v.was returning tenants.id",
        rows = values(flips.len(), &types)
    );
    let sql = flips.iter().fold(built(sql), |sql, flip| bind_flip(sql, flip)).bind(tx.now());
    let rows = tx.all(sql).await.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Error::new(ErrorKind::Conflict, "the placement belongs to another tenant").with_source(error)
        }
        _ => error,
    })?;
    rows.iter().map(|row| row::parsed(row, "id")).collect()
}

/// The values of one flip in the order of its statement; `sets` has a bit for each column that may be set to null.
fn bind_flip<'q>(sql: Sql<'q>, flip: &Flip) -> Sql<'q> {
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
        .bind(flip.state.map(|state| state.word()))
        .bind(flip.reason.clone().flatten())
        .bind(flip.block_writes.flatten().map(|block| block.word()))
        .bind(flip.placement.clone().flatten())
        .bind(flip.server_id.map(|id| id.to_string()))
        .bind(flip.purge_after.flatten())
        .bind(flip.schema_version.flatten())
        .bind(flip.release_id.flatten().map(|id| id.to_string()))
        .bind(flip.size_bytes)
        .bind(flip.pin.flatten().map(|pin| pin.below))
        .bind(flip.pin.flatten().map(|pin| pin.at))
        .bind(flip.pin.flatten().map(|pin| pin.op.to_string()))
}
