//! An operator's hand on a running operation.

use catalog::events::NewEvent;
use catalog::operations::{OperationRecord, OperationState as State};
use catalog::steps::StepState;
use catalog::{OperationId, TenantId, TenantRecord, TenantState, WriteTx};
use serde_json::json;

use super::submit::Caller;
use super::{Runner, not_found, reached};
use crate::error::Result;

/// Steps looked at in one page while giving up what is half made.
const PAGE: u32 = 1_000;

/// What to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Claim no more steps; those that run finish.
    Pause,
    /// Go on.
    Resume,
    /// Run the failed steps again.
    Retry,
    /// Run no more steps, ever.
    Cancel,
    /// Cancel, and give up what is half made: an abandoned create frees its names.
    Abandon,
}

impl Control {
    fn event(self) -> &'static str {
        match self {
            Self::Pause => "operation.paused",
            Self::Resume => "operation.resumed",
            Self::Retry => "operation.retried",
            Self::Cancel => "operation.cancelled",
            Self::Abandon => "operation.abandoned",
        }
    }
}

impl Runner {
    /// Does it, with an event, in one transaction.
    ///
    /// # Errors
    /// `not_found`; `conflict` when the operation is not in a state that allows it.
    pub async fn control(
        &self,
        caller: &Caller,
        op: OperationId,
        what: Control,
        reason: Option<&str>,
    ) -> Result<OperationRecord> {
        let mut tx = self.fleet.catalog.write().await?;
        let given_up = match what {
            Control::Abandon => abandon(&mut tx, op).await?,
            _ => Vec::new(),
        };
        let record = change(&mut tx, op, what).await?;
        let event = NewEvent {
            kind: what.event().to_owned(),
            actor: caller.actor.clone(),
            tenant_id: None,
            op_id: Some(op),
            request_id: caller.request_id.clone(),
            data: json!({"reason": reason}),
        };
        catalog::events::append(&mut tx, &[event]).await?;
        tx.commit().await?;
        if matches!(what, Control::Cancel | Control::Abandon) {
            reached::record(&self.fleet, op).await?;
        }
        for tenant in &given_up {
            // Nobody was told of these files; what cannot be removed now is found as an orphan later.
            if let Err(error) = self.fleet.drop_unfinished(tenant).await {
                tracing::warn!(tenant = %tenant.id, code = %error.code, %error, "a half-made database was not removed");
            }
        }
        if matches!(what, Control::Resume | Control::Retry) {
            self.run_only(op);
        }
        self.progress.send_modify(|seen| *seen += 1);
        self.wake.notify_one();
        Ok(record)
    }
}

async fn change(tx: &mut WriteTx, op: OperationId, what: Control) -> Result<OperationRecord> {
    const GOING: &[State] = &[State::Pending, State::Running];
    match what {
        Control::Pause => Ok(catalog::operations::set_state(tx, op, GOING, State::Paused).await?),
        Control::Resume => Ok(catalog::operations::set_state(tx, op, &[State::Paused], State::Running).await?),
        Control::Retry => {
            // A cancelled operation stays cancelled: its steps were given up on purpose.
            let ended = &[State::Partial, State::Failed, State::Running];
            catalog::operations::set_state(tx, op, ended, State::Running).await?;
            catalog::steps::retry_failed(tx, op).await?;
            read(tx, op).await
        }
        Control::Cancel => cancel(tx, op).await,
        Control::Abandon => read(tx, op).await,
    }
}

async fn cancel(tx: &mut WriteTx, op: OperationId) -> Result<OperationRecord> {
    let going = &[State::Pending, State::Running, State::Paused];
    catalog::operations::set_state(tx, op, going, State::Cancelled).await?;
    catalog::steps::cancel_pending(tx, op).await?;
    // What runs comes to its end first, and its worker ends the operation.
    match catalog::operations::finish_if_done(tx, op).await? {
        Some(ended) => Ok(ended),
        None => read(tx, op).await,
    }
}

/// Also of an operation that has ended: its failed creates are what is half made. Returns those tenants as they were.
async fn abandon(tx: &mut WriteTx, op: OperationId) -> Result<Vec<TenantRecord>> {
    let record = read(tx, op).await?;
    if record.finished_at.is_none() && record.state != State::Cancelled {
        cancel(tx, op).await?;
    }
    let given_up = given_up(tx, op).await?;
    for tenant in &given_up {
        catalog::tenants::remove_provisioning(tx, tenant.id).await?;
    }
    Ok(given_up)
}

/// Tenants that this operation was to make and did not.
async fn given_up(tx: &mut WriteTx, op: OperationId) -> Result<Vec<TenantRecord>> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = catalog::steps::page(tx, op, &[StepState::Failed, StepState::Cancelled], after, PAGE).await?;
        let ids: Vec<TenantId> = page.iter().map(|(step, _)| step.tenant_id).collect();
        let tenants = catalog::tenants::get_many(tx, &ids).await?;
        found.extend(tenants.into_iter().filter(|t| t.state == TenantState::Provisioning && t.op_id.is_none()));
        after = ids.last().copied();
        if ids.len() < PAGE as usize {
            return Ok(found);
        }
    }
}

async fn read(tx: &mut WriteTx, op: OperationId) -> Result<OperationRecord> {
    catalog::operations::get(tx, op).await?.ok_or_else(|| not_found(op))
}
