//! Changes of a running operation that an operator requests.

use catalog::events::NewEvent;
use catalog::operations::{OperationRecord, OperationState as State};
use catalog::steps::StepState;
use catalog::{OperationId, TenantId, TenantRecord, TenantState, WriteTx};
use serde_json::json;

use super::submit::AuditCaller;
use super::{Runner, not_found, reached_versions};
use crate::error::Result;

/// Steps read per page while an operation is abandoned.
const PAGE: u32 = 1_000;

/// The requested change of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationControl {
    /// Claim no more steps. Running steps finish.
    Pause,
    /// Continue a paused operation.
    Resume,
    /// Run the failed steps again.
    Retry,
    /// Run no more steps, permanently.
    Cancel,
    /// Cancel, and remove half-finished work. An abandoned create frees its names.
    Abandon,
}

impl OperationControl {
    fn event_kind(self) -> &'static str {
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
    /// Applies the change and writes its event, in one transaction.
    ///
    /// # Errors
    /// `not_found`; `conflict` when the operation's state does not allow the change.
    pub async fn control_operation(
        &self,
        caller: &AuditCaller,
        op: OperationId,
        what: OperationControl,
        reason: Option<&str>,
    ) -> Result<OperationRecord> {
        let mut tx = self.context.catalog.write().await?;
        let given_up = match what {
            OperationControl::Abandon => self.abandon_operation(&mut tx, op).await?,
            _ => Vec::new(),
        };
        let record = self.apply_control(&mut tx, op, what).await?;
        let event = NewEvent {
            kind: what.event_kind().to_owned(),
            actor: caller.actor.clone(),
            tenant_id: None,
            op_id: Some(op),
            request_id: caller.request_id.clone(),
            data: json!({"reason": reason}),
        };
        catalog::events::append_events(&mut tx, &[event]).await?;
        caller.remember_operation(&mut tx, 200, op).await?;
        tx.commit().await?;
        if matches!(what, OperationControl::Cancel | OperationControl::Abandon) {
            reached_versions::record_reached(&self.context, self.operations, op).await?;
        }
        for tenant in &given_up {
            // No tenant was ever told of these files. Files that cannot be removed now are found as orphans later.
            if let Err(error) = crate::replacement::leftovers::drop_unfinished(&self.context, tenant).await {
                tracing::warn!(tenant = %tenant.id, code = %error.code(), %error, "an unfinished database was not removed");
            }
        }
        if matches!(what, OperationControl::Resume | OperationControl::Retry) {
            self.run_only(op);
        }
        self.progress.send_modify(|seen| *seen += 1);
        self.wake.notify_one();
        Ok(record)
    }
}

impl Runner {
    async fn apply_control(
        &self,
        tx: &mut WriteTx,
        op: OperationId,
        what: OperationControl,
    ) -> Result<OperationRecord> {
        const GOING: &[State] = &[State::Pending, State::Running];
        match what {
            OperationControl::Pause => Ok(catalog::operations::set_state(tx, op, GOING, State::Paused).await?),
            OperationControl::Resume => {
                Ok(catalog::operations::set_state(tx, op, &[State::Paused], State::Running).await?)
            }
            OperationControl::Retry => {
                // A cancelled operation stays cancelled: its steps were given up on purpose.
                let ended = &[State::Partial, State::Failed, State::Running];
                catalog::operations::set_state(tx, op, ended, State::Running).await?;
                catalog::steps::retry_failed(tx, op).await?;
                read_operation(tx, op).await
            }
            OperationControl::Cancel => self.cancel_operation(tx, op).await,
            OperationControl::Abandon => read_operation(tx, op).await,
        }
    }

    async fn cancel_operation(&self, tx: &mut WriteTx, op: OperationId) -> Result<OperationRecord> {
        let going = &[State::Pending, State::Running, State::Paused];
        catalog::operations::set_state(tx, op, going, State::Cancelled).await?;
        catalog::steps::cancel_pending(tx, op, &self.held(op)).await?;
        // Running steps finish first, and their worker ends the operation.
        match catalog::operations::finish_if_done(tx, op).await? {
            Some(ended) => Ok(ended),
            None => read_operation(tx, op).await,
        }
    }

    /// Also abandons an operation that has ended: its failed creates are half-finished work. Returns those tenants as
    /// they were before.
    async fn abandon_operation(&self, tx: &mut WriteTx, op: OperationId) -> Result<Vec<TenantRecord>> {
        let record = read_operation(tx, op).await?;
        if record.finished_at.is_none() && record.state != State::Cancelled {
            self.cancel_operation(tx, op).await?;
        }
        let given_up = unmade_tenants(tx, op).await?;
        for tenant in &given_up {
            catalog::tenants::remove_provisioning(tx, tenant.id).await?;
        }
        Ok(given_up)
    }
}

/// Tenants that this operation was to create and did not finish.
async fn unmade_tenants(tx: &mut WriteTx, op: OperationId) -> Result<Vec<TenantRecord>> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = catalog::steps::list_steps(tx, op, &[StepState::Failed, StepState::Cancelled], after, PAGE).await?;
        let ids: Vec<TenantId> = page.iter().map(|(step, _)| step.tenant_id).collect();
        let tenants = catalog::tenants::get_many(tx, &ids).await?;
        found.extend(tenants.into_iter().filter(|t| t.state == TenantState::Provisioning && t.op_id.is_none()));
        after = ids.last().copied();
        if ids.len() < PAGE as usize {
            return Ok(found);
        }
    }
}

async fn read_operation(tx: &mut WriteTx, op: OperationId) -> Result<OperationRecord> {
    catalog::operations::get(tx, op).await?.ok_or_else(|| not_found(op))
}
