//! Rules about a tenant's block of writes: which state its database has while no operation works on it, and which
//! operations may start while another one blocks it.

use catalog::{BlockWrites, TenantRecord, TenantState};
use tenant_engine::IdentityState;

use crate::error::{Error, ErrorKind, Result};
use crate::operation::{ClaimedStep, StepContext};

/// The identity state of a tenant's database while no operation works on it.
pub(crate) fn unfenced_tenant_state(tenant: &TenantRecord) -> IdentityState {
    state_under_block(tenant.block_writes)
}

pub(crate) fn state_under_block(block: Option<BlockWrites>) -> IdentityState {
    match block {
        Some(BlockWrites::Operator) => IdentityState::Frozen,
        Some(BlockWrites::Operation) | None => IdentityState::Active,
    }
}

/// The write block to remember while a tenant has no live database. Read-only is restored when the tenant wakes. If the
/// tenant was also suspended, only the suspension is remembered, because one reason serves both. Processes of older
/// versions also take a reason without a block for a suspension.
pub(crate) fn saved_block(state: TenantState, block: Option<BlockWrites>) -> Option<BlockWrites> {
    block.filter(|block| *block == BlockWrites::Operator && state != TenantState::Suspended)
}

/// Refuses to start on a tenant that another operation has fenced and will return to.
pub(crate) fn require_unblocked(step: &ClaimedStep) -> Result<()> {
    if step.tenant.block_writes != Some(BlockWrites::Operation) {
        return Ok(());
    }
    Err(operation_in_progress(step))
}

/// The error of a tenant that another operation will return to.
pub(crate) fn operation_in_progress(step: &ClaimedStep) -> Error {
    let detail = format!("another operation is replacing the database of {}", step.tenant.name);
    Error::new(ErrorKind::OperationInProgress, detail)
        .try_next(format!("fleetctl tenant repair {}      # if that operation has ended", step.tenant.name))
}

/// Refuses to start only if the operation that fenced the tenant still runs. Operations that replace the database may
/// start on a tenant that an ended operation left fenced.
pub(crate) async fn require_unawaited(context: &StepContext, step: &ClaimedStep) -> Result<()> {
    if step.tenant.block_writes != Some(BlockWrites::Operation) {
        return Ok(());
    }
    match catalog::steps::is_in_progress(&mut context.catalog.read().await?, step.tenant.id, step.op.id).await? {
        true => require_unblocked(step),
        false => Ok(()),
    }
}
