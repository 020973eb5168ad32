//! Taking steps: leases, epochs and the tenants' slots.

use std::collections::HashSet;

use crate::bulk::{INT, TEXT, built, chunks, values};
use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::{OperationId, TenantId};
use crate::operations::{self, OperationState};
use crate::row;
use crate::steps::{COLUMNS, Slot, StepRecord, bind_slots, step};

/// Claims up to `limit` steps of an operation that are due, whose lease is free or expired and whose tenant is free or
/// already this operation's, and takes the tenants' slots in the same transaction. Expired ones come first.
/// An operation that is not pending or running gets nothing.
///
/// # Errors
/// `NotFound` for the operation.
pub async fn claim(
    tx: &mut WriteTx,
    op: OperationId,
    owner: &str,
    lease_until: i64,
    limit: i64,
) -> Result<Vec<StepRecord>> {
    let operation = operations::get(tx, op).await?.ok_or_else(|| operations::missing(op))?;
    if !matches!(operation.state, OperationState::Pending | OperationState::Running) {
        return Ok(Vec::new());
    }
    let lease = Lease { op, owner, until: lease_until };
    let mut claimed = claim_where(tx, &lease, "s.state = 'running' and s.lease_until <= $4", limit).await?;
    let left = limit - i64::try_from(claimed.len()).unwrap_or(i64::MAX);
    if left > 0 {
        claimed.extend(claim_where(tx, &lease, "s.state = 'pending' and s.not_before <= $4", left).await?);
    }
    if claimed.is_empty() {
        return Ok(claimed);
    }
    claimed.sort_unstable_by_key(|step| step.tenant_id);
    let slots: Vec<Slot> = claimed.iter().map(|step| (op, step.tenant_id)).collect();
    take_slots(tx, &slots).await?;
    if operation.state == OperationState::Pending {
        let now = tx.now();
        let sql = "update operations set state = 'running', started_at = coalesce(started_at, $2) where id = $1";
        tx.run(sqlx::query(sql).bind(op.to_string()).bind(now)).await?;
    }
    Ok(claimed)
}

/// Which of these claims are still live, without changing them: asked before effects are applied.
///
/// # Errors
/// `Unavailable`.
pub async fn live(tx: &mut ReadTx, claims: &[(OperationId, TenantId, i64)]) -> Result<Vec<bool>> {
    let mut held = HashSet::new();
    for chunk in chunks(claims) {
        let sql = format!(
            "with v(op_id, tenant_id, epoch) as ({}) select s.op_id, s.tenant_id, s.lease_epoch from v join steps s \
             on s.op_id = v.op_id and s.tenant_id = v.tenant_id and s.lease_epoch = v.epoch and s.state = 'running'",
            values(chunk.len(), &[TEXT, TEXT, INT])
        );
        let sql = chunk.iter().fold(built(sql), |sql, (op, tenant, epoch)| {
            sql.bind(op.to_string()).bind(tenant.to_string()).bind(*epoch)
        });
        for row in tx.all(sql).await? {
            let claim: (OperationId, TenantId, i64) =
                (row::parsed(&row, "op_id")?, row::parsed(&row, "tenant_id")?, row::int(&row, "lease_epoch")?);
            held.insert(claim);
        }
    }
    Ok(claims.iter().map(|claim| held.contains(claim)).collect())
}

/// Extends all live leases of a worker; returns how many. An expired one is not extended: it may be another's already.
///
/// # Errors
/// `Unavailable`.
pub async fn renew(tx: &mut WriteTx, owner: &str, lease_until: i64) -> Result<i64> {
    let now = tx.now();
    let sql = "update steps set lease_until = $2 where state = 'running' and lease_owner = $1 and lease_until > $3";
    tx.run(sqlx::query(sql).bind(owner.to_owned()).bind(lease_until).bind(now)).await
}

struct Lease<'a> {
    op: OperationId,
    owner: &'a str,
    until: i64,
}

async fn claim_where(tx: &mut WriteTx, lease: &Lease<'_>, due: &str, limit: i64) -> Result<Vec<StepRecord>> {
    let sql = format!(
        "update steps set state = 'running', lease_owner = $2, lease_until = $3, lease_epoch = lease_epoch + 1, \
         attempt = attempt + 1, started_at = coalesce(started_at, $4) where op_id = $1 and tenant_id in \
         (select s.tenant_id from steps s join tenants t on t.id = s.tenant_id where s.op_id = $1 and {due} \
          and (t.op_id is null or t.op_id = $1) order by s.tenant_id limit $5) returning {COLUMNS}"
    );
    let now = tx.now();
    let sql = built(sql).bind(lease.op.to_string()).bind(lease.owner.to_owned()).bind(lease.until).bind(now);
    tx.all(sql.bind(limit)).await?.iter().map(step).collect()
}

async fn take_slots(tx: &mut WriteTx, slots: &[Slot]) -> Result<()> {
    for chunk in chunks(slots) {
        let sql = format!(
            "with v(op_id, tenant_id) as ({}) update tenants set op_id = v.op_id from v where tenants.id = v.tenant_id",
            values(chunk.len(), &[TEXT, TEXT])
        );
        tx.run(bind_slots(built(sql), chunk)).await?;
    }
    Ok(())
}
