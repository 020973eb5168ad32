//! Runs the work of a whole operation before its steps, such as building a template.
//!
//! The operation is recorded first and shows what it does. Its parameters record that the opening is still to be done,
//! and no step is claimed before. If a process dies meanwhile, the next process opens the operation again. An operation
//! that is cancelled meanwhile ends at once, because no step is running. The result of its opening is then dropped.

use std::sync::Arc;

use catalog::events::{self, NewEvent};
use catalog::operations::{self, OperationRecord};
use catalog::{OperationId, WriteTx};
use serde_json::json;

use super::Runner;
use super::dispatch::{AFTER_ERROR, CLOSE_ATTEMPTS_MAX, RunningOperation, end_operation};
use crate::error::Result;
use crate::operation::OpenedOperation;

impl Runner {
    /// Opens an operation in a task, because it may take long. Does nothing if the operation is already being opened.
    pub(super) fn open_once(self: &Arc<Self>, prepared: &RunningOperation) {
        let id = prepared.record.id;
        if !self.lock_state().closing.insert(id) {
            return;
        }
        let (runner, prepared) = (Arc::clone(self), prepared.clone());
        self.tasks.spawn_task(async move {
            if let Err(error) = runner.run_opening(&prepared).await {
                tracing::warn!(op = %id, code = %error.code(), %error, "an operation was not opened");
                tokio::time::sleep(AFTER_ERROR).await;
            }
            runner.lock_state().closing.remove(&id);
            runner.progress.send_modify(|seen| *seen += 1);
            runner.wake.notify_one();
        });
    }

    async fn run_opening(&self, prepared: &RunningOperation) -> Result<()> {
        let record = &prepared.record;
        let operation = &prepared.operation;
        self.begin_opening(record, operation.describe_opening().unwrap_or_default()).await?;
        self.context.fault_point("operation: opens").await;
        let mut opened = operation.run_opening(&self.context, record).await;
        for _ in 1..CLOSE_ATTEMPTS_MAX {
            if !opened.as_ref().is_err_and(|error| error.transient) {
                break;
            }
            tokio::time::sleep(AFTER_ERROR).await;
            opened = operation.run_opening(&self.context, record).await;
        }
        self.context.fault_point("operation: opened").await;
        let mut tx = self.context.catalog.write().await?;
        record_opening(&mut tx, record, opened).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn begin_opening(&self, record: &OperationRecord, what: &str) -> Result<()> {
        let mut tx = self.context.catalog.write().await?;
        if operations::begin_operation(&mut tx, record.id).await? {
            let event = opening_event(record, "operation.opening", json!({"phase": what}));
            events::append_events(&mut tx, &[event]).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

/// Writes the outcome of an opening, unless the operation has ended or another process was first.
async fn record_opening(tx: &mut WriteTx, record: &OperationRecord, opened: Result<OpenedOperation>) -> Result<()> {
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) if is_open(tx, record).await? => return end_operation(tx, record, Some(error)).await,
        Err(_) => return Ok(()),
    };
    let is_of_nobody = record.steps_total == 0 && record.steps_skipped == 0;
    if let Some(error) = opened.nothing_done.filter(|_| is_of_nobody)
        && is_open(tx, record).await?
    {
        return end_operation(tx, record, Some(error)).await;
    }
    let params = opened.operation.to_json()?;
    if !operations::set_params(tx, record.id, &record.params, &params).await? {
        return Ok(());
    }
    let mut written = vec![opening_event(record, "operation.opened", opened.data)];
    if let Some((from, release)) = opened.promotes
        && !has_steps(tx, record.id).await?
        && catalog::fleet::promote_release(tx, record.id, from, release).await?
    {
        written.push(opening_event(record, "release.activated", json!({"release": release, "before": from})));
    }
    Ok(events::append_events(tx, &written).await?)
}

/// Whether the operation still waits for this opening.
async fn is_open(tx: &mut WriteTx, record: &OperationRecord) -> Result<bool> {
    let now = operations::get(tx, record.id).await?;
    Ok(now.is_some_and(|now| now.finished_at.is_none() && now.params == record.params))
}

/// Whether a tenant has to succeed first. Steps that failed in an earlier attempt count as well.
async fn has_steps(tx: &mut WriteTx, id: OperationId) -> Result<bool> {
    let progress = operations::operation_progress(tx, id).await?;
    Ok(progress.pending + progress.running + progress.succeeded + progress.failed + progress.cancelled > 0)
}

fn opening_event(record: &OperationRecord, kind: &str, data: serde_json::Value) -> NewEvent {
    NewEvent {
        kind: kind.to_owned(),
        actor: record.requested_by.clone(),
        tenant_id: None,
        op_id: Some(record.id),
        request_id: None,
        data,
    }
}
