//! Taking steps: leases, epochs and the tenants' slots. Counts the processes that died with a step in their hands.

use std::collections::HashSet;

use crate::bulk::{INT, TEXT, built, chunks, values};
use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::{OperationId, TenantId};
use crate::operations::{self, OperationState};
use crate::row;
use crate::steps::{COLUMNS, Slot, StepRecord, bind_slots, step};

/// A process that claims steps.
#[derive(Debug, Clone, Copy)]
pub struct Claimant<'a> {
    /// Names the process; no other process has the same name.
    pub owner: &'a str,
    /// Until when the claims are valid, milliseconds since 1970.
    pub lease_until: i64,
    /// The maximum number of steps.
    pub limit: i64,
    /// True when the process holds no other step of the operation, and no other step that has to run alone.
    pub may_run_alone: bool,
}

/// With so many deaths, counting an expired lease, a step runs alone: the step that ends its process is found so, and the
/// steps beside it do not use up their attempts. One death may be a restart of the machine.
pub const DEATHS_ALONE: i64 = 2;

/// Claims steps of an operation that are due, whose lease is free or expired and whose tenant is free or already this
/// operation's, and takes the tenants' slots in the same transaction. Expired ones come first.
/// While a step is due that has to run alone, nothing else of the operation is claimed.
/// An operation that is not pending or running gets nothing.
///
/// # Errors
/// `NotFound` for the operation.
pub async fn claim(tx: &mut WriteTx, op: OperationId, claimant: Claimant<'_>) -> Result<Vec<StepRecord>> {
    let operation = operations::get(tx, op).await?.ok_or_else(|| operations::missing(op))?;
    if !matches!(operation.state, OperationState::Pending | OperationState::Running) {
        return Ok(Vec::new());
    }
    let mut claimed = match must_run_alone(tx, op).await? {
        true if claimant.may_run_alone => claim_due(tx, op, &Claimant { limit: 1, ..claimant }, &alone()).await?,
        true => Vec::new(),
        false => claim_due(tx, op, &claimant, &Default::default()).await?,
    };
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

/// More conditions for steps whose lease expired and for pending ones.
#[derive(Default)]
struct Which {
    expired: String,
    pending: String,
}

/// The steps that have to run alone. The first condition is the one of the index.
fn alone() -> Which {
    Which {
        expired: format!("and (s.deaths > 0 and s.deaths + 1 >= {DEATHS_ALONE})"),
        pending: format!("and (s.deaths > 0 and s.deaths >= {DEATHS_ALONE})"),
    }
}

/// Whether a step is due that has to run alone.
async fn must_run_alone(tx: &mut WriteTx, op: OperationId) -> Result<bool> {
    let now = tx.now();
    let Which { expired, pending } = alone();
    let sql = format!(
        "select 1 as found from steps s join tenants t on t.id = s.tenant_id where s.op_id = $1 and s.deaths > 0 \
         and ((s.state = 'running' and s.lease_until <= $2 {expired}) \
         or (s.state = 'pending' and s.not_before <= $2 {pending})) \
         and (t.op_id is null or t.op_id = $1) limit 1"
    );
    Ok(tx.one(built(sql).bind(op.to_string()).bind(now)).await?.is_some())
}

async fn claim_due(
    tx: &mut WriteTx,
    op: OperationId,
    claimant: &Claimant<'_>,
    which: &Which,
) -> Result<Vec<StepRecord>> {
    let expired = format!("s.state = 'running' and s.lease_until <= $4 {}", which.expired);
    let mut claimed = claim_where(tx, op, claimant, &expired).await?;
    let left = claimant.limit - i64::try_from(claimed.len()).unwrap_or(i64::MAX);
    if left > 0 {
        let pending = format!("s.state = 'pending' and s.not_before <= $4 {}", which.pending);
        claimed.extend(claim_where(tx, op, &Claimant { limit: left, ..*claimant }, &pending).await?);
    }
    Ok(claimed)
}

/// The process is about to exit in order and holds these steps still: the next claim of them counts no death.
///
/// # Errors
/// `Unavailable`.
pub async fn expect_exit(tx: &mut WriteTx, owner: &str) -> Result<i64> {
    let sql =
        "update steps set attempt = attempt - 1, deaths = deaths - 1 where state = 'running' and lease_owner = $1";
    tx.run(sqlx::query(sql).bind(owner.to_owned())).await
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

/// An expired lease of another process counts as a death, and one of the same process as nothing: that process lives,
/// and only the catalog was away.
async fn claim_where(tx: &mut WriteTx, op: OperationId, claimant: &Claimant<'_>, due: &str) -> Result<Vec<StepRecord>> {
    let sql = format!(
        "update steps set state = 'running', lease_owner = $2, lease_until = $3, lease_epoch = lease_epoch + 1, \
         attempt = attempt + case when state = 'running' and lease_owner = $2 then 0 else 1 end, \
         deaths = deaths + case when state = 'running' and lease_owner <> $2 then 1 else 0 end, \
         started_at = coalesce(started_at, $4) where op_id = $1 and tenant_id in \
         (select s.tenant_id from steps s join tenants t on t.id = s.tenant_id where s.op_id = $1 and {due} \
          and (t.op_id is null or t.op_id = $1) order by s.tenant_id limit $5) returning {COLUMNS}"
    );
    let now = tx.now();
    let sql = built(sql).bind(op.to_string()).bind(claimant.owner.to_owned()).bind(claimant.lease_until).bind(now);
    tx.all(sql.bind(claimant.limit)).await?.iter().map(step).collect()
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
