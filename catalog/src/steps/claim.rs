//! Claims steps: leases, epochs and the tenants' slots. Counts the processes that died during a step.

use std::collections::HashSet;

use crate::bulk::{INT, TEXT, dynamic_query, sized_chunks, values_clause};
use crate::clock_skew::is_over;
use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::{OperationId, TenantId};
use crate::operations::{self, OperationState};
use crate::row;
use crate::steps::{COLUMNS, StepRecord, TenantSlot, bind_held, bind_slots, not_held, step_from_row};

/// A process that claims steps.
#[derive(Debug, Clone, Copy)]
pub struct StepClaimant<'a> {
    /// The name of the process, which no other process has.
    pub owner: &'a str,
    /// End of the leases, milliseconds since 1970.
    pub lease_until: i64,
    /// The maximum number of steps.
    pub limit: i64,
    /// True when the process holds no other step of the operation, and no other step that has to run alone.
    pub may_run_alone: bool,
    /// Tenants whose steps of the operation this process is running. They are not claimed again, even if a changed
    /// clock makes their leases look expired.
    pub held: &'a [TenantId],
}

/// After this many deaths, including an expired lease, a step runs alone. So the step that kills its process is found,
/// and steps beside it do not use up their attempts. One death may be a restart of the machine.
pub const DEATHS_ALONE: i64 = 2;

/// Claims due steps of an operation with a free or expired lease, and takes the tenants' slots in the same transaction.
/// The tenant must be free or already belong to this operation. Expired leases come first. While a step that must run
/// alone is due, nothing else of the operation is claimed. Only pending and running operations have steps to claim.
///
/// # Errors
/// `NotFound` when the operation does not exist.
pub async fn claim_steps(tx: &mut WriteTx, op: OperationId, claimant: StepClaimant<'_>) -> Result<Vec<StepRecord>> {
    let operation = operations::get(tx, op).await?.ok_or_else(|| operations::operation_not_found(op))?;
    if !matches!(operation.state, OperationState::Pending | OperationState::Running) {
        return Ok(Vec::new());
    }
    let mut claimed = match must_run_alone(tx, op, claimant.held).await? {
        true if claimant.may_run_alone => {
            claim_due(tx, op, &StepClaimant { limit: 1, ..claimant }, &alone_conditions()).await?
        }
        true => Vec::new(),
        false => claim_due(tx, op, &claimant, &Default::default()).await?,
    };
    if claimed.is_empty() {
        return Ok(claimed);
    }
    claimed.sort_unstable_by_key(|step| step.tenant_id);
    let slots: Vec<TenantSlot> = claimed.iter().map(|step| (op, step.tenant_id)).collect();
    take_slots(tx, &slots).await?;
    if operation.state == OperationState::Pending {
        let now = tx.now();
        let sql = "update operations set state = 'running', started_at = coalesce(started_at, $2) where id = $1";
        tx.execute_sql(sqlx::query(sql).bind(op.to_string()).bind(now)).await?;
    }
    Ok(claimed)
}

/// Further conditions for steps with an expired lease, and for pending steps.
#[derive(Default)]
struct ClaimConditions {
    expired: String,
    pending: String,
}

/// Conditions for steps that must run alone. The first condition matches the index.
fn alone_conditions() -> ClaimConditions {
    ClaimConditions {
        expired: format!("and (s.deaths > 0 and s.deaths + 1 >= {DEATHS_ALONE})"),
        pending: format!("and (s.deaths > 0 and s.deaths >= {DEATHS_ALONE})"),
    }
}

/// True when a step that must run alone is due.
async fn must_run_alone(tx: &mut WriteTx, op: OperationId, held: &[TenantId]) -> Result<bool> {
    let now = tx.now();
    let ClaimConditions { expired, pending } = alone_conditions();
    let sql = format!(
        "select 1 as found from steps s join tenants t on t.id = s.tenant_id where s.op_id = $1 and s.deaths > 0 \
         and ((s.state = 'running' and {} {expired}) or (s.state = 'pending' and {} {pending})) \
         and (t.op_id is null or t.op_id = $1) {} limit 1",
        is_over("s.lease_until", "$2"),
        is_over("s.not_before", "$2"),
        not_held("s.tenant_id", 3, held),
    );
    Ok(tx.fetch_row(bind_held(dynamic_query(sql).bind(op.to_string()).bind(now), held)).await?.is_some())
}

async fn claim_due(
    tx: &mut WriteTx,
    op: OperationId,
    claimant: &StepClaimant<'_>,
    which: &ClaimConditions,
) -> Result<Vec<StepRecord>> {
    let expired = format!("s.state = 'running' and {} {}", is_over("s.lease_until", "$4"), which.expired);
    let mut claimed = claim_where(tx, op, claimant, &expired).await?;
    let left = claimant.limit - i64::try_from(claimed.len()).unwrap_or(i64::MAX);
    if left > 0 {
        let pending = format!("s.state = 'pending' and {} {}", is_over("s.not_before", "$4"), which.pending);
        claimed.extend(claim_where(tx, op, &StepClaimant { limit: left, ..*claimant }, &pending).await?);
    }
    Ok(claimed)
}

/// Records that the process exits in order while it holds steps: their next claim counts no death.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn expect_exit(tx: &mut WriteTx, owner: &str) -> Result<i64> {
    let sql =
        "update steps set attempt = attempt - 1, deaths = deaths - 1 where state = 'running' and lease_owner = $1";
    tx.execute_sql(sqlx::query(sql).bind(owner.to_owned())).await
}

/// The claims among these that are still valid. Changes nothing; checked before effects are applied.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn check_live_claims(tx: &mut ReadTx, claims: &[(OperationId, TenantId, i64)]) -> Result<Vec<bool>> {
    let mut held = HashSet::new();
    for chunk in sized_chunks(claims) {
        let sql = format!(
            "with v(op_id, tenant_id, epoch) as ({}) select s.op_id, s.tenant_id, s.lease_epoch from v join steps s \
             on s.op_id = v.op_id and s.tenant_id = v.tenant_id and s.lease_epoch = v.epoch and s.state = 'running'",
            values_clause(chunk.len(), &[TEXT, TEXT, INT])
        );
        let sql = chunk.iter().fold(dynamic_query(sql), |sql, (op, tenant, epoch)| {
            sql.bind(op.to_string()).bind(tenant.to_string()).bind(*epoch)
        });
        for row in tx.fetch_rows(sql).await? {
            let claim: (OperationId, TenantId, i64) = (
                row::parsed_column(&row, "op_id")?,
                row::parsed_column(&row, "tenant_id")?,
                row::int_column(&row, "lease_epoch")?,
            );
            held.insert(claim);
        }
    }
    Ok(claims.iter().map(|claim| held.contains(claim)).collect())
}

/// Extends the leases of these claims and returns their number. An expired claim is extended too, if no other process
/// has claimed the step. Its worker is alive, but a clock was changed or the process slept.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn renew_claims(tx: &mut WriteTx, claims: &[(OperationId, TenantId, i64)], lease_until: i64) -> Result<i64> {
    let mut renewed = 0;
    for chunk in sized_chunks(claims) {
        let sql = format!(
            "with v(op_id, tenant_id, epoch, until) as ({}) update steps set lease_until = v.until from v \
             where steps.op_id = v.op_id and steps.tenant_id = v.tenant_id and steps.lease_epoch = v.epoch \
             and steps.state = 'running'",
            values_clause(chunk.len(), &[TEXT, TEXT, INT, INT])
        );
        let sql = chunk.iter().fold(dynamic_query(sql), |sql, (op, tenant, epoch)| {
            sql.bind(op.to_string()).bind(tenant.to_string()).bind(*epoch).bind(lease_until)
        });
        renewed += tx.execute_sql(sql).await?;
    }
    Ok(renewed)
}

/// An expired lease of another process counts as a death. One of this process does not: the process is alive, and only
/// the catalog was unavailable.
async fn claim_where(
    tx: &mut WriteTx,
    op: OperationId,
    claimant: &StepClaimant<'_>,
    due: &str,
) -> Result<Vec<StepRecord>> {
    let sql = format!(
        "update steps set state = 'running', lease_owner = $2, lease_until = $3, lease_epoch = lease_epoch + 1, \
         attempt = attempt + case when state = 'running' and lease_owner = $2 then 0 else 1 end, \
         deaths = deaths + case when state = 'running' and lease_owner <> $2 then 1 else 0 end, \
         started_at = coalesce(started_at, $4) where op_id = $1 and tenant_id in \
         (select s.tenant_id from steps s join tenants t on t.id = s.tenant_id where s.op_id = $1 and {due} \
          and (t.op_id is null or t.op_id = $1) {} order by s.tenant_id limit $5) returning {COLUMNS}",
        not_held("s.tenant_id", 6, claimant.held)
    );
    let now = tx.now();
    let sql =
        dynamic_query(sql).bind(op.to_string()).bind(claimant.owner.to_owned()).bind(claimant.lease_until).bind(now);
    let sql = bind_held(sql.bind(claimant.limit), claimant.held);
    tx.fetch_rows(sql).await?.iter().map(step_from_row).collect()
}

async fn take_slots(tx: &mut WriteTx, slots: &[TenantSlot]) -> Result<()> {
    for chunk in sized_chunks(slots) {
        let sql = format!(
            "with v(op_id, tenant_id) as ({}) update tenants set op_id = v.op_id from v where tenants.id = v.tenant_id",
            values_clause(chunk.len(), &[TEXT, TEXT])
        );
        tx.execute_sql(bind_slots(dynamic_query(sql), chunk)).await?;
    }
    Ok(())
}
