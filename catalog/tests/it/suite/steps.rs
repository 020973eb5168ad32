//! Operations and steps: claiming, recording, slots, ends.

use catalog::operations::{self, NewOperation, OperationState, WhenLeft};
use catalog::steps::{self, StepClaimant, StepOutcome, StepRecord, StepResult, StepState};
use catalog::{Catalog, ErrorKind, OperationId, TenantId, tenants};

use super::{Fixture, START, seed};

pub(super) const LEASE: i64 = 30_000;

pub(super) async fn submit(catalog: &Catalog, tenants: &[TenantId], skipped: i64) -> OperationId {
    let mut tx = catalog.write().await.unwrap();
    let new = NewOperation {
        id: OperationId::generate(),
        kind: "migrate".to_owned(),
        params: "{}".to_owned(),
        release_id: None,
        tenants: tenants.to_vec(),
        skipped,
        left_out: Vec::new(),
        when_left: WhenLeft::Fail,
        concurrency: 8,
        requested_by: "test".to_owned(),
        reason: None,
    };
    operations::insert_operation(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    new.id
}

pub(super) async fn claim(catalog: &Catalog, op: OperationId, owner: &str, limit: i64) -> Vec<StepRecord> {
    let mut tx = catalog.write().await.unwrap();
    let until = tx.now() + LEASE;
    let claimed = steps::claim_steps(
        &mut tx,
        op,
        StepClaimant { owner, lease_until: until, limit, may_run_alone: true, held: &[] },
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    claimed
}

pub(super) fn claims(held: &[StepRecord]) -> Vec<(OperationId, TenantId, i64)> {
    held.iter().map(|step| (step.op_id, step.tenant_id, step.lease_epoch)).collect()
}

pub(super) async fn renew(catalog: &Catalog, claims: &[(OperationId, TenantId, i64)], until: i64) -> i64 {
    let mut tx = catalog.write().await.unwrap();
    let renewed = steps::renew_claims(&mut tx, claims, until).await.unwrap();
    tx.commit().await.unwrap();
    renewed
}

pub(super) fn outcome(step: &StepRecord, result: StepResult) -> StepOutcome {
    StepOutcome {
        op_id: step.op_id,
        tenant_id: step.tenant_id,
        lease_owner: step.lease_owner.clone().unwrap(),
        lease_epoch: step.lease_epoch,
        result,
    }
}

fn done() -> StepResult {
    StepResult::Done { facts: "{\"version\":2}".to_owned() }
}

fn failed() -> StepResult {
    StepResult::Failed { code: "sql_error".to_owned(), message: "no such table".to_owned() }
}

pub(super) async fn record(catalog: &Catalog, outcomes: &[StepOutcome]) -> Vec<bool> {
    let mut tx = catalog.write().await.unwrap();
    let applied = steps::record_outcomes(&mut tx, outcomes).await.unwrap();
    tx.commit().await.unwrap();
    applied
}

pub(super) async fn finish(catalog: &Catalog, op: OperationId) -> Option<OperationState> {
    let mut tx = catalog.write().await.unwrap();
    let ended = operations::finish_if_done(&mut tx, op).await.unwrap();
    tx.commit().await.unwrap();
    ended.map(|operation| operation.state)
}

pub(super) async fn step(catalog: &Catalog, op: OperationId, tenant: TenantId) -> StepRecord {
    steps::get(&mut catalog.read().await.unwrap(), op, tenant).await.unwrap().unwrap()
}

pub(super) async fn slot(catalog: &Catalog, tenant: TenantId) -> Option<OperationId> {
    tenants::get(&mut catalog.read().await.unwrap(), tenant).await.unwrap().unwrap().op_id
}

pub(super) async fn next_due(catalog: &Catalog) -> Option<i64> {
    steps::next_due(&mut catalog.read().await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn steps_are_claimed_recorded_and_counted_to_the_end() {
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (_, ids) = seed(catalog, 3).await;
    let op = submit(catalog, &ids, 0).await;
    let claimed = claim(catalog, op, "w1", 2).await;
    assert_eq!(claimed.iter().map(|s| s.tenant_id).collect::<Vec<_>>(), ids[..2]);
    let first = &claimed[0];
    assert_eq!((first.attempt, first.lease_epoch, first.state), (1, 1, StepState::Running));
    assert_eq!((first.lease_until, first.started_at), (Some(START + LEASE), Some(START)));
    assert_eq!((first.phase.as_str(), first.facts.as_str()), ("", "{}"));
    let running = operations::get(&mut catalog.read().await.unwrap(), op).await.unwrap().unwrap();
    assert_eq!((running.state, running.started_at), (OperationState::Running, Some(START)));
    assert_eq!((slot(catalog, ids[0]).await, slot(catalog, ids[2]).await), (Some(op), None));

    let next = StepResult::Next { phase: "apply".to_owned(), facts: "{\"a\":1}".to_owned() };
    assert_eq!(record(catalog, &[outcome(&claimed[0], next), outcome(&claimed[1], failed())]).await, [true, true]);
    let moved = step(catalog, op, ids[0]).await;
    assert_eq!((moved.phase.as_str(), moved.facts.as_str(), moved.attempt), ("apply", "{\"a\":1}", 0));
    assert_eq!((moved.state, moved.lease_owner.as_deref()), (StepState::Running, Some("w1")));
    assert_eq!((slot(catalog, ids[0]).await, slot(catalog, ids[1]).await), (Some(op), None));
    assert_eq!(finish(catalog, op).await, None);
    let mut tx = catalog.read().await.unwrap();
    let unfinished: Vec<_> = ids.iter().copied().filter(|id| *id != ids[1]).collect();
    assert_eq!(steps::unfinished_tenants(&mut tx).await.unwrap(), unfinished);
    assert!(steps::has_unfinished(&mut tx, ids[2]).await.unwrap());
    assert!(!steps::has_unfinished(&mut tx, ids[1]).await.unwrap());
    drop(tx);

    assert_eq!(record(catalog, &[outcome(&claimed[0], done())]).await, [true]);
    let last = claim(catalog, op, "w1", 9).await;
    assert_eq!(last.len(), 1);
    fixture.advance(7);
    assert_eq!(record(catalog, &[outcome(&last[0], done())]).await, [true]);
    assert_eq!(finish(catalog, op).await, Some(OperationState::Partial));
    assert_eq!(finish(catalog, op).await, None);
    let failure = step(catalog, op, ids[1]).await;
    assert_eq!((failure.error_code.as_deref(), failure.finished_at), (Some("sql_error"), Some(START)));
    assert_eq!(step(catalog, op, ids[2]).await.finished_at, Some(START + 7));
    let ended = operations::get(&mut catalog.read().await.unwrap(), op).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.finished_at), (OperationState::Partial, Some(START + 7)));
    let progress = operations::operation_progress(&mut catalog.read().await.unwrap(), op).await.unwrap();
    assert_eq!((progress.succeeded, progress.failed, progress.pending), (2, 1, 0));
}

#[tokio::test]
async fn failed_steps_run_again_and_only_they() {
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (_, ids) = seed(catalog, 2).await;
    let op = submit(catalog, &ids, 0).await;
    let claimed = claim(catalog, op, "w", 9).await;
    record(catalog, &[outcome(&claimed[0], done()), outcome(&claimed[1], failed())]).await;
    finish(catalog, op).await;
    let mut tx = catalog.write().await.unwrap();
    assert_eq!(steps::retry_failed(&mut tx, op).await.unwrap(), 1);
    tx.commit().await.unwrap();
    let again = claim(catalog, op, "w", 9).await;
    assert_eq!(again.iter().map(|s| (s.tenant_id, s.attempt, s.lease_epoch)).collect::<Vec<_>>(), [(ids[1], 1, 2)]);
    record(catalog, &[outcome(&again[0], done())]).await;
    assert_eq!(finish(catalog, op).await, Some(OperationState::Succeeded));
    assert_eq!(step(catalog, op, ids[1]).await.error_code, None);
}

#[tokio::test]
async fn a_stale_claim_records_nothing() {
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (_, ids) = seed(catalog, 2).await;
    let op = submit(catalog, &ids, 0).await;
    let late = claim(catalog, op, "late", 9).await;
    assert!(claim(catalog, op, "other", 9).await.is_empty());
    fixture.advance(LEASE);
    let taken = claim(catalog, op, "other", 1).await;
    assert_eq!((taken[0].tenant_id, taken[0].lease_epoch, taken[0].attempt), (ids[0], 2, 2));
    let claims: Vec<_> = late.iter().map(|s| (op, s.tenant_id, s.lease_epoch)).collect();
    let live = steps::check_live_claims(&mut catalog.read().await.unwrap(), &claims).await.unwrap();
    assert_eq!(live, [false, true]);
    // The second one expired too, but nobody took it: its result still counts.
    let outcomes: Vec<_> = late.iter().map(|s| outcome(s, done())).collect();
    assert_eq!(record(catalog, &outcomes).await, [false, true]);
    assert_eq!(slot(catalog, ids[0]).await, Some(op));
    let mut wrong_owner = outcome(&taken[0], done());
    wrong_owner.lease_owner = "late".to_owned();
    assert_eq!(record(catalog, &[wrong_owner]).await, [false]);
    assert_eq!(record(catalog, &[outcome(&taken[0], done()), outcome(&taken[0], failed())]).await, [true, false]);
    assert_eq!(step(catalog, op, ids[0]).await.state, StepState::Succeeded);
}

#[tokio::test]
async fn a_busy_tenant_waits_without_being_due() {
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (_, ids) = seed(catalog, 2).await;
    let first = submit(catalog, &ids[..1], 0).await;
    let held = claim(catalog, first, "w", 9).await;
    let second = submit(catalog, &ids, 0).await;
    let other = claim(catalog, second, "w", 9).await;
    assert_eq!(other.iter().map(|s| s.tenant_id).collect::<Vec<_>>(), [ids[1]]);
    record(catalog, &[outcome(&other[0], done())]).await;
    assert_eq!(next_due(catalog).await, Some(START + LEASE), "only the lease of the first counts");
    record(catalog, &[outcome(&held[0], done())]).await;
    assert_eq!(next_due(catalog).await, Some(START));
    assert_eq!(claim(catalog, second, "w", 9).await.len(), 1);
}

#[tokio::test]
async fn a_retry_frees_the_tenant_and_waits_for_its_time() {
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (_, ids) = seed(catalog, 1).await;
    let op = submit(catalog, &ids, 0).await;
    let held = claim(catalog, op, "w", 9).await;
    let retry = StepResult::Retry { not_before: START + 500, code: "busy".to_owned(), message: "locked".to_owned() };
    record(catalog, &[outcome(&held[0], retry)]).await;
    assert_eq!((slot(catalog, ids[0]).await, next_due(catalog).await), (None, Some(START + 500)));
    assert!(claim(catalog, op, "w", 9).await.is_empty());
    fixture.advance(500);
    let again = claim(catalog, op, "w", 9).await;
    assert_eq!((again[0].attempt, again[0].error_code.as_deref()), (2, Some("busy")));
}

#[tokio::test]
async fn leases_are_renewed_while_they_live() {
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (_, ids) = seed(catalog, 3).await;
    let op = submit(catalog, &ids, 0).await;
    let (a, b) = (claims(&claim(catalog, op, "a", 2).await), claims(&claim(catalog, op, "b", 1).await));
    assert_eq!(renew(catalog, &a, START + 2 * LEASE).await, 2);
    fixture.advance(LEASE);
    assert_eq!(claim(catalog, op, "c", 9).await.iter().map(|s| s.tenant_id).collect::<Vec<_>>(), [ids[2]]);
    assert_eq!(renew(catalog, &b, START + 9 * LEASE).await, 0, "it is another's");
    fixture.advance(2 * LEASE);
    assert_eq!(renew(catalog, &a, START + 4 * LEASE).await, 2, "nobody has claimed them");
    assert_eq!(claim(catalog, op, "c", 9).await.iter().map(|s| s.tenant_id).collect::<Vec<_>>(), [ids[2]]);
}

#[tokio::test]
async fn paused_and_cancelled_operations_claim_nothing() {
    use OperationState::{Cancelled, Paused, Pending, Running};
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (_, ids) = seed(catalog, 3).await;
    let op = submit(catalog, &ids, 0).await;
    let held = claim(catalog, op, "w", 2).await;
    let mut tx = catalog.write().await.unwrap();
    operations::set_state(&mut tx, op, &[Pending, Running], Paused).await.unwrap();
    tx.commit().await.unwrap();
    assert!(claim(catalog, op, "w", 9).await.is_empty());
    assert_eq!(next_due(catalog).await, None);
    let mut tx = catalog.write().await.unwrap();
    let error = operations::set_state(&mut tx, op, &[Pending], Running).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    operations::set_state(&mut tx, op, &[Paused], Cancelled).await.unwrap();
    assert_eq!(steps::cancel_pending(&mut tx, op, &[]).await.unwrap(), 1);
    assert!(operations::finish_if_done(&mut tx, op).await.unwrap().is_none());
    tx.commit().await.unwrap();

    // What was running is still recorded; a retry of it is its end; a worker that died is found.
    let retry = StepResult::Retry { not_before: START, code: "busy".to_owned(), message: "locked".to_owned() };
    assert_eq!(record(catalog, &[outcome(&held[0], retry)]).await, [true]);
    assert_eq!(step(catalog, op, ids[0]).await.state, StepState::Cancelled);
    assert_eq!(steps::abandoned_operations(&mut catalog.read().await.unwrap()).await.unwrap(), []);
    fixture.advance(LEASE);
    assert_eq!(steps::abandoned_operations(&mut catalog.read().await.unwrap()).await.unwrap(), [op]);
    let mut tx = catalog.write().await.unwrap();
    assert_eq!(steps::cancel_pending(&mut tx, op, &[]).await.unwrap(), 1);
    let ended = operations::finish_if_done(&mut tx, op).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    assert_eq!((ended.state, slot(catalog, ids[1]).await), (Cancelled, None));
    assert_eq!(record(catalog, &[outcome(&held[1], done())]).await, [false], "too late");
}

#[tokio::test]
async fn an_operation_without_steps_has_succeeded() {
    let fixture = Fixture::new().await;
    let op = submit(&fixture.catalog, &[], 12).await;
    let mut tx = fixture.catalog.read().await.unwrap();
    let found = operations::get(&mut tx, op).await.unwrap().unwrap();
    assert_eq!((found.state, found.finished_at, found.steps_skipped), (OperationState::Succeeded, Some(START), 12));
    assert!(operations::open_operations(&mut tx).await.unwrap().is_empty());
}

#[tokio::test]
async fn operations_and_steps_are_paged() {
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (_, ids) = seed(catalog, 3).await;
    let (first, second) = (submit(catalog, &ids, 0).await, submit(catalog, &ids[..1], 0).await);
    let held = claim(catalog, first, "w", 1).await;
    let mut tx = catalog.read().await.unwrap();
    let mut found = Vec::new();
    for (states, kind, tenant, after) in [
        (&[][..], None, None, None),
        (&[OperationState::Running][..], None, None, None),
        (&[][..], Some("migrate"), Some(ids[0]), Some(second)),
        (&[][..], Some("backup"), None, None),
        (&[][..], None, Some(ids[2]), None),
    ] {
        let page = operations::list_operations(&mut tx, states, kind, tenant, after, 10).await.unwrap();
        found.push(page.iter().map(|operation| operation.id).collect::<Vec<_>>());
    }
    assert_eq!(found, [vec![second, first], vec![first], vec![first], vec![], vec![first]]);
    let open: Vec<_> =
        operations::open_operations(&mut tx).await.unwrap().iter().map(|operation| operation.id).collect();
    assert_eq!(open, [first, second]);
    let pending = steps::list_steps(&mut tx, first, &[StepState::Pending], None, 1).await.unwrap();
    assert_eq!(
        pending.iter().map(|(step, name)| (step.tenant_id, name.as_str())).collect::<Vec<_>>(),
        [(ids[1], "t1")]
    );
    let after = steps::list_steps(&mut tx, first, &[], Some(held[0].tenant_id), 10).await.unwrap();
    assert_eq!(after.len(), 2);
}

#[tokio::test]
async fn racing_workers_never_hold_the_same_step() {
    let fixture = Fixture::new().await;
    let other = fixture.other_process().await;
    let (_, ids) = seed(&fixture.catalog, 60).await;
    let op = submit(&fixture.catalog, &ids, 0).await;
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..6 {
        let catalog = if number % 2 == 0 { fixture.catalog.clone() } else { other.clone() };
        workers.spawn(async move {
            let mut mine = Vec::new();
            loop {
                let claimed = claim(&catalog, op, &format!("w{number}"), 3).await;
                if claimed.is_empty() {
                    return mine;
                }
                mine.extend(claimed.into_iter().map(|step| step.tenant_id));
            }
        });
    }
    let mut all: Vec<TenantId> = workers.join_all().await.concat();
    all.sort();
    assert_eq!(all, ids);
}

/// Lets the leases of all claimed steps run out.
fn expire(fixture: &Fixture) {
    fixture.advance(LEASE + 1);
}

#[tokio::test]
async fn a_death_is_counted_once_and_a_phase_begins_anew() {
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (_, ids) = seed(catalog, 1).await;
    let op = submit(catalog, &ids, 0).await;
    let count = |step: &StepRecord| (step.attempt, step.deaths, step.lease_epoch);
    assert_eq!(count(&claim(catalog, op, "a", 9).await[0]), (1, 0, 1));
    expire(&fixture);
    assert_eq!(count(&claim(catalog, op, "b", 9).await[0]), (2, 1, 2));
    expire(&fixture);
    let alive = claim(catalog, op, "b", 9).await.remove(0);
    assert_eq!(count(&alive), (2, 1, 3), "the same process lives");
    let next = StepResult::Next { phase: "apply".to_owned(), facts: "{}".to_owned() };
    assert_eq!(record(catalog, &[outcome(&alive, next)]).await, [true]);
    expire(&fixture);
    let again = claim(catalog, op, "c", 9).await.remove(0);
    assert_eq!(count(&again), (1, 1, 4));
    let back = StepResult::HandedBack { code: "shutting_down".to_owned(), message: "stopped".to_owned() };
    assert_eq!(record(catalog, &[outcome(&again, back)]).await, [true]);
    assert_eq!(count(&claim(catalog, op, "d", 9).await[0]), (1, 1, 5), "a claim that is handed back is no attempt");
    let mut tx = catalog.write().await.unwrap();
    assert_eq!(steps::expect_exit(&mut tx, "d").await.unwrap(), 1);
    tx.commit().await.unwrap();
    expire(&fixture);
    assert_eq!(count(&claim(catalog, op, "e", 9).await[0]), (1, 1, 6), "an exit in order is no death");
}

#[tokio::test]
async fn a_step_that_died_twice_runs_alone_and_first() {
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (_, ids) = seed(catalog, 4).await;
    let op = submit(catalog, &ids, 0).await;
    assert_eq!(claim(catalog, op, "a", 2).await.len(), 2);
    expire(&fixture);
    // One death may be anything: both again, and one more.
    assert_eq!(claim(catalog, op, "b", 3).await.len(), 3);
    expire(&fixture);
    let alone = claim(catalog, op, "c", 9).await;
    assert_eq!(alone.iter().map(|s| (s.tenant_id, s.deaths)).collect::<Vec<_>>(), [(ids[0], 2)]);
    let mut tx = catalog.write().await.unwrap();
    let busy = StepClaimant { owner: "c", lease_until: START + 9 * LEASE, limit: 9, may_run_alone: false, held: &[] };
    assert_eq!(steps::claim_steps(&mut tx, op, busy).await.unwrap(), []);
    drop(tx);
    assert_eq!(record(catalog, &[outcome(&alone[0], failed())]).await, [true]);
    let second = claim(catalog, op, "c", 9).await;
    assert_eq!(second.iter().map(|s| (s.tenant_id, s.deaths)).collect::<Vec<_>>(), [(ids[1], 2)]);
    assert_eq!(record(catalog, &[outcome(&second[0], done())]).await, [true]);
    let rest = claim(catalog, op, "c", 9).await;
    assert_eq!(rest.iter().map(|s| (s.tenant_id, s.deaths)).collect::<Vec<_>>(), [(ids[2], 1), (ids[3], 0)]);
}
