//! Removes operations, steps and events that are older than the retention time, in short transactions.

use catalog::{OperationId, history};

use crate::error::Result;
use crate::operation::StepContext;

/// Operations per query.
const BATCH: u32 = 1_000;

/// The rest of an operation, its last successful steps, is checked again after this time, milliseconds.
const LOOK_AGAIN_MS: i64 = 86_400_000;

/// Removes old history. `now` is the time up to which history may be removed; see `steady_time.rs`.
pub(super) async fn prune_history(context: &StepContext, now: i64) -> Result<()> {
    let policy = history::history_policy(&mut context.catalog.read().await?).await?;
    loop {
        let found = {
            let mut tx = context.catalog.read().await?;
            let looked_at = tx.now() - LOOK_AGAIN_MS;
            history::prunable_operations(&mut tx, now - policy.operations_ms, looked_at, BATCH).await?
        };
        if found.is_empty() {
            break;
        }
        for op in found {
            prune_operation(context, op).await?;
        }
    }
    while prune_events(context, now - policy.events_ms).await? > 0 {}
    Ok(())
}

/// Removes an operation in pieces, one transaction each, so that other writers wait only for one piece.
async fn prune_operation(context: &StepContext, op: OperationId) -> Result<()> {
    let mut after = Some(String::new());
    while let Some(last) = after {
        let mut tx = context.catalog.write().await?;
        after = history::prune_steps(&mut tx, op, &last).await?;
        if after.is_none() {
            history::prune_operation(&mut tx, op).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

async fn prune_events(context: &StepContext, before: i64) -> Result<i64> {
    let mut tx = context.catalog.write().await?;
    let removed = history::prune_events(&mut tx, before).await?;
    tx.commit().await?;
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use catalog::operations::{self, NewOperation, WhenLeft};

    use super::*;
    use crate::app::App;
    use crate::config::{Config, ProcessRole};

    const DAY: i64 = 86_400_000;

    #[tokio::test]
    async fn operations_go_when_they_are_older_than_the_policy_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path().canonicalize().unwrap(), ProcessRole::Embedded);
        let now = Arc::new(AtomicI64::new(1_764_000_000_000));
        let reads = Arc::clone(&now);
        let clock: catalog::CatalogClock = Arc::new(move || reads.load(Ordering::SeqCst));
        App::init_with(&config, Arc::clone(&clock)).await.unwrap();
        let app = App::open_with(config, clock).await.unwrap();
        let old = ended(&app.context).await;
        now.fetch_add(89 * DAY, Ordering::SeqCst);
        let new = ended(&app.context).await;
        prune_history(&app.context, app.catalog.now()).await.unwrap();
        assert_eq!((is_there(&app.context, old).await, is_there(&app.context, new).await), (true, true));
        now.fetch_add(2 * DAY, Ordering::SeqCst);
        prune_history(&app.context, app.catalog.now()).await.unwrap();
        assert_eq!((is_there(&app.context, old).await, is_there(&app.context, new).await), (false, true));
        app.shut_down(Duration::from_secs(1)).await;
    }

    async fn ended(context: &StepContext) -> OperationId {
        let id = OperationId::generate();
        let new = NewOperation {
            id,
            kind: "backup".to_owned(),
            params: "{}".to_owned(),
            release_id: None,
            tenants: Vec::new(),
            skipped: 0,
            left_out: Vec::new(),
            when_left: WhenLeft::Fail,
            concurrency: 1,
            requested_by: "test".to_owned(),
            reason: None,
        };
        let mut tx = context.catalog.write().await.unwrap();
        operations::insert_operation(&mut tx, &new).await.unwrap();
        operations::finish_if_done(&mut tx, id).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    async fn is_there(context: &StepContext, op: OperationId) -> bool {
        operations::get(&mut context.catalog.read().await.unwrap(), op).await.unwrap().is_some()
    }
}
