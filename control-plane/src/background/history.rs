//! Removes operations, steps and events that are older than the fleet keeps them, in short transactions.

use catalog::{OperationId, history};

use crate::error::Result;
use crate::operations::Fleet;

/// Operations found by one question.
const BATCH: u32 = 1_000;

/// What is left of an operation, the last successes, is looked at again after this time.
const LOOK_AGAIN_MS: i64 = 86_400_000;

/// `now` is the time by which history is removed; see `steady.rs`.
pub(super) async fn run(fleet: &Fleet, now: i64) -> Result<()> {
    let policy = history::policy(&mut fleet.catalog.read().await?).await?;
    loop {
        let found = {
            let mut tx = fleet.catalog.read().await?;
            let looked_at = tx.now() - LOOK_AGAIN_MS;
            history::prunable(&mut tx, now - policy.operations_ms, looked_at, BATCH).await?
        };
        if found.is_empty() {
            break;
        }
        for op in found {
            prune(fleet, op).await?;
        }
    }
    while prune_events(fleet, now - policy.events_ms).await? > 0 {}
    Ok(())
}

/// One transaction for each piece: other writers wait for no more than a piece.
async fn prune(fleet: &Fleet, op: OperationId) -> Result<()> {
    let mut after = Some(String::new());
    while let Some(last) = after {
        let mut tx = fleet.catalog.write().await?;
        after = history::prune_steps(&mut tx, op, &last).await?;
        if after.is_none() {
            history::prune_operation(&mut tx, op).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

async fn prune_events(fleet: &Fleet, before: i64) -> Result<i64> {
    let mut tx = fleet.catalog.write().await?;
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
    use crate::config::{Config, Role};

    const DAY: i64 = 86_400_000;

    #[tokio::test]
    async fn operations_go_when_they_are_older_than_the_policy_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path().canonicalize().unwrap(), Role::Embedded);
        let now = Arc::new(AtomicI64::new(1_764_000_000_000));
        let reads = Arc::clone(&now);
        let clock: catalog::Clock = Arc::new(move || reads.load(Ordering::SeqCst));
        App::init_with(&config, Arc::clone(&clock)).await.unwrap();
        let app = App::open_with(config, clock).await.unwrap();
        let old = ended(&app.fleet).await;
        now.fetch_add(89 * DAY, Ordering::SeqCst);
        let new = ended(&app.fleet).await;
        run(&app.fleet, app.catalog.now()).await.unwrap();
        assert_eq!((is_there(&app.fleet, old).await, is_there(&app.fleet, new).await), (true, true));
        now.fetch_add(2 * DAY, Ordering::SeqCst);
        run(&app.fleet, app.catalog.now()).await.unwrap();
        assert_eq!((is_there(&app.fleet, old).await, is_there(&app.fleet, new).await), (false, true));
        app.shutdown(Duration::from_secs(1)).await;
    }

    async fn ended(fleet: &Fleet) -> OperationId {
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
        let mut tx = fleet.catalog.write().await.unwrap();
        operations::insert(&mut tx, &new).await.unwrap();
        operations::finish_if_done(&mut tx, id).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    async fn is_there(fleet: &Fleet, op: OperationId) -> bool {
        operations::get(&mut fleet.catalog.read().await.unwrap(), op).await.unwrap().is_some()
    }
}
