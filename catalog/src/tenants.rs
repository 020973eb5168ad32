//! The rows of tenants: lookups, pages, selections, and the compare-and-set changes of their state.

use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use std::collections::BTreeMap;

use crate::ids::{Generation, OperationId, ReleaseId, ServerId, TenantId};
use crate::name::Name;
use crate::tenant::{BlockWrites, TenantRecord, TenantState};

/// Which tenants; every field narrows. The empty selection means all: callers make "all" explicit before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these.
    pub ids: Option<Vec<TenantId>>,
    /// Only with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only on this server.
    pub server: Option<ServerId>,
    /// Only in one of these states; empty: every state but purged.
    pub states: Vec<TenantState>,
}

/// What a new tenant starts with.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// Made by the caller.
    pub id: TenantId,
    /// Its slug.
    pub name: Name,
    /// Where it shall live.
    pub server_id: ServerId,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A compare-and-set on one tenant: applied only where the generation is still `from`, which becomes `from + 1`;
/// appends to the change feed. `None` leaves a column alone; `Some(None)` clears it.
#[derive(Debug, Clone)]
pub struct Flip {
    /// Whose.
    pub tenant: TenantId,
    /// The generation the caller read; the row's must equal it.
    pub from: Generation,
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
            state: None,
            reason: None,
            block_writes: None,
            placement: None,
            server_id: None,
            purge_after: None,
            schema_version: None,
            release_id: None,
            size_bytes: None,
        }
    }
}

/// One tenant with its labels.
pub async fn get(_tx: &mut ReadTx, _id: TenantId) -> Result<Option<TenantRecord>> {
    todo!()
}
/// Several tenants, in the order of their ids, without labels.
pub async fn get_many(_tx: &mut ReadTx, _ids: &[TenantId]) -> Result<Vec<TenantRecord>> {
    todo!()
}
/// The tenant a slug, alias or host leads to, with its labels. One statement: the router's cold path.
pub async fn by_name(_tx: &mut ReadTx, _name: &Name) -> Result<Option<TenantRecord>> {
    todo!()
}
/// A page in the order of ids (oldest first), with labels, beginning after `after`.
pub async fn page(
    _tx: &mut ReadTx,
    _selection: &Selection,
    _after: Option<TenantId>,
    _limit: u32,
) -> Result<Vec<TenantRecord>> {
    todo!()
}
/// How many tenants a selection holds.
pub async fn count(_tx: &mut ReadTx, _selection: &Selection) -> Result<i64> {
    todo!()
}
/// How many tenants are in each state.
pub async fn count_by_state(_tx: &mut ReadTx) -> Result<Vec<(TenantState, i64)>> {
    todo!()
}
/// How many tenants are at each schema version (hint), of those not purged or deleted.
pub async fn count_by_version(_tx: &mut ReadTx) -> Result<Vec<(Option<i64>, i64)>> {
    todo!()
}
/// Inserts many tenants in state `provisioning`, generation 1, with their names and labels. All or nothing:
/// fails with `AlreadyExists` naming the first taken name.
pub async fn insert_many(_tx: &mut WriteTx, _tenants: &[NewTenant]) -> Result<()> {
    todo!()
}
/// Counts up `placement_epoch` of each and returns the new numbers: what makes a placement unique per attempt.
pub async fn next_epochs(_tx: &mut WriteTx, _ids: &[TenantId]) -> Result<Vec<(TenantId, i64)>> {
    todo!()
}
/// Applies each flip whose tenant still is at its `from`; returns the tenants that were not.
pub async fn flip_many(_tx: &mut WriteTx, _flips: &[Flip]) -> Result<Vec<TenantId>> {
    todo!()
}
/// Records what migrations reached, without touching the generation; appends to the change feed.
pub async fn set_schema_many(_tx: &mut WriteTx, _reached: &[(TenantId, Option<i64>, Option<ReleaseId>)]) -> Result<()> {
    todo!()
}
/// Records sizes.
pub async fn set_sizes(_tx: &mut WriteTx, _sizes: &[(TenantId, i64)]) -> Result<()> {
    todo!()
}
/// Sets and removes (`None`) labels; at most 64 per tenant.
pub async fn set_labels(_tx: &mut WriteTx, _id: TenantId, _labels: &BTreeMap<String, Option<String>>) -> Result<()> {
    todo!()
}
/// Switches the protection against deletion.
pub async fn set_protected(_tx: &mut WriteTx, _id: TenantId, _protected: bool) -> Result<()> {
    todo!()
}
/// Removes a tenant that never left `provisioning`, and frees its name: it never served anybody.
pub async fn remove_provisioning(_tx: &mut WriteTx, _id: TenantId) -> Result<()> {
    todo!()
}
/// Frees the operation slot of these tenants where `op` holds it.
pub async fn release_slots(_tx: &mut WriteTx, _op: OperationId, _ids: &[TenantId]) -> Result<()> {
    todo!()
}
