//! What a clock that was ahead has written blocks nothing once the clock is right again.

use catalog::idempotency::{self, IdempotencyClaimant, IdempotencyLookup};
use catalog::operations::OperationState;
use catalog::steps::{self, StepClaimant, StepResult, StepState};
use catalog::{leases, operations};

use super::steps::{LEASE, claim, claims, finish, next_due, outcome, record, renew, slot, step, submit};
use super::{Fixture, START, seed};

const HOURS: i64 = 2 * 3_600_000;

#[tokio::test]
async fn a_lease_of_a_clock_that_was_ahead_is_over_when_the_clock_is_right() {
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (_, ids) = seed(catalog, 2).await;
    let op = submit(catalog, &ids, 0).await;
    fixture.advance(HOURS);
    claim(catalog, op, "ahead", 1).await;
    fixture.advance(-HOURS);
    assert_eq!(next_due(catalog).await, Some(START), "it is due now, not in two hours");
    let again = claim(catalog, op, "right", 9).await;
    assert_eq!(again.len(), 2, "the one that was held, and the other");
    assert_eq!((again[0].lease_epoch, again[0].lease_until), (2, Some(START + LEASE)));

    // A lease that a right clock has written holds, also where clocks differ by seconds.
    fixture.advance(-5_000);
    assert!(claim(catalog, op, "other", 9).await.is_empty());
}

#[tokio::test]
async fn an_operation_of_a_clock_that_was_ahead_is_cancelled_and_frees_its_tenants() {
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (_, ids) = seed(catalog, 1).await;
    let op = submit(catalog, &ids, 0).await;
    fixture.advance(HOURS);
    let held = claim(catalog, op, "ahead", 1).await;
    fixture.advance(-HOURS);
    let mut tx = catalog.write().await.unwrap();
    operations::set_state(&mut tx, op, &[OperationState::Running], OperationState::Cancelled).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(steps::abandoned_operations(&mut catalog.read().await.unwrap()).await.unwrap(), [op]);
    let mut tx = catalog.write().await.unwrap();
    assert_eq!(steps::cancel_pending(&mut tx, op, &[]).await.unwrap(), 1);
    tx.commit().await.unwrap();
    assert_eq!((slot(catalog, ids[0]).await, finish(catalog, op).await), (None, Some(OperationState::Cancelled)));
    assert_eq!(record(catalog, &[outcome(&held[0], StepResult::Done { facts: "{}".to_owned() })]).await, [false]);
    assert_eq!(step(catalog, op, ids[0]).await.state, StepState::Cancelled);
}

#[tokio::test]
async fn a_wait_of_a_clock_that_was_ahead_is_over_when_the_clock_is_right() {
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (_, ids) = seed(catalog, 1).await;
    let op = submit(catalog, &ids, 0).await;
    let held = claim(catalog, op, "w", 1).await;
    let (code, message) = ("database_busy".to_owned(), "locked".to_owned());
    let later = StepResult::Retry { not_before: START + HOURS, code, message };
    record(catalog, &[outcome(&held[0], later)]).await;
    assert_eq!(next_due(catalog).await, Some(START));
    assert_eq!(claim(catalog, op, "w", 1).await.len(), 1);
}

fn taker(owner: &str, ahead: i64) -> IdempotencyClaimant<'_> {
    IdempotencyClaimant { owner, is_running: true, until: START + ahead + 20_000 }
}

#[tokio::test]
async fn tasks_and_keys_of_a_clock_that_was_ahead_are_free_and_slices_are_known() {
    let fixture = Fixture::new().await;
    let (server, _) = seed(&fixture.catalog, 0).await;
    fixture.advance(HOURS);
    let mut tx = fixture.catalog.write().await.unwrap();
    assert!(leases::take_task(&mut tx, "settle", "ahead", START + HOURS + 40_000).await.unwrap());
    leases::set_connection_share(&mut tx, server, "ahead", 50, START + HOURS + 15_000).await.unwrap();
    assert_eq!(
        idempotency::begin_request(&mut tx, "ann", "k", "h", taker("ahead", HOURS)).await.unwrap(),
        IdempotencyLookup::New
    );
    tx.commit().await.unwrap();
    fixture.advance(-HOURS);
    let mut tx = fixture.catalog.write().await.unwrap();
    assert!(leases::take_task(&mut tx, "settle", "right", START + 40_000).await.unwrap());
    // Whether its process is gone is measured by the one that asks.
    assert!(leases::connection_shares(&mut tx, server).await.unwrap().iter().all(|slice| slice.is_ahead));
    assert_eq!(
        idempotency::begin_request(&mut tx, "ann", "k", "h", taker("right", 0)).await.unwrap(),
        IdempotencyLookup::New
    );
}

#[tokio::test]
async fn a_clock_that_is_set_takes_no_step_from_the_process_that_runs_it() {
    for by in [-HOURS, HOURS] {
        let fixture = Fixture::new().await;
        let catalog = &fixture.catalog;
        let (_, ids) = seed(catalog, 2).await;
        let op = submit(catalog, &ids, 0).await;
        let mine = claim(catalog, op, "mine", 1).await;
        fixture.advance(by);
        let mut tx = catalog.write().await.unwrap();
        let held = &[ids[0]];
        let claimant =
            StepClaimant { owner: "mine", lease_until: START + by + LEASE, limit: 9, may_run_alone: true, held };
        let more = steps::claim_steps(&mut tx, op, claimant).await.unwrap();
        assert_eq!(more.iter().map(|step| step.tenant_id).collect::<Vec<_>>(), ids[1..]);
        assert_eq!(steps::cancel_pending(&mut tx, op, held).await.unwrap(), 0);
        tx.commit().await.unwrap();
        assert_eq!(renew(catalog, &claims(&mine), START + by + LEASE).await, 1);
        assert!(claim(catalog, op, "other", 9).await.is_empty(), "all is as before from the next renewal on");
        assert_eq!(record(catalog, &[outcome(&mine[0], StepResult::Done { facts: "{}".to_owned() })]).await, [true]);
    }
}

/// Until that renewal another process may take the step over. Then the first one can neither renew nor record it.
#[tokio::test]
async fn a_step_that_another_process_took_by_a_wrong_clock_is_recorded_once() {
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (_, ids) = seed(catalog, 1).await;
    let op = submit(catalog, &ids, 0).await;
    let first = claim(catalog, op, "first", 1).await;
    fixture.advance(-HOURS);
    let second = claim(catalog, op, "second", 1).await;
    assert_eq!(renew(catalog, &claims(&first), START).await, 0);
    let done = |step| outcome(step, StepResult::Done { facts: "{}".to_owned() });
    assert_eq!(record(catalog, &[done(&first[0]), done(&second[0])]).await, [false, true]);
}

/// The other way round: a key or a task that is taken over while its process lives is lost to that process.
#[tokio::test]
async fn a_task_and_a_key_that_were_taken_over_have_one_owner() {
    let fixture = Fixture::new().await;
    let mut tx = fixture.catalog.write().await.unwrap();
    assert!(leases::take_task(&mut tx, "settle", "first", START + 40_000).await.unwrap());
    assert_eq!(
        idempotency::begin_request(&mut tx, "ann", "k", "h", taker("first", 0)).await.unwrap(),
        IdempotencyLookup::New
    );
    tx.commit().await.unwrap();
    fixture.advance(-HOURS);
    let mut tx = fixture.catalog.write().await.unwrap();
    assert!(leases::take_task(&mut tx, "settle", "second", START - HOURS + 40_000).await.unwrap());
    assert!(!leases::take_task(&mut tx, "settle", "first", START - HOURS + 40_000).await.unwrap());
    // The process that holds a key knows it by itself, whatever the clock says.
    assert_eq!(
        idempotency::begin_request(&mut tx, "ann", "k", "h", taker("first", -HOURS)).await.unwrap(),
        IdempotencyLookup::Running
    );
    assert_eq!(
        idempotency::begin_request(&mut tx, "ann", "k", "h", taker("second", -HOURS)).await.unwrap(),
        IdempotencyLookup::New
    );
    let first = idempotency::ClaimedIdempotencyKey { key: "k".to_owned(), owner: "first".to_owned() };
    idempotency::renew_key(&mut tx, "ann", &first, START).await.unwrap();
    let late = idempotency::finish_request(&mut tx, "ann", &first, 201, "{}").await.unwrap_err();
    assert_eq!(late.kind(), catalog::ErrorKind::NotFound, "its change is undone with its answer");
}
