//! How long the past is kept.

use catalog::history::{self, HistoryPolicy};
use catalog::operations::{self, NewOperation, WhenLeft};
use catalog::retained::{self, RetainedReason, RetainedRecord};
use catalog::steps::{self, StepClaimant, StepOutcome, StepResult};
use catalog::tenants::{self, TenantUpdate};
use catalog::{Catalog, Generation, OperationId, ServerId, TenantId, TenantState, WriteTx, events};

use super::{Fixture, START, seed};

const DAY: i64 = 86_400_000;

/// Tenants that are made already.
async fn made(fixture: &Fixture, count: usize) -> (ServerId, Vec<TenantId>) {
    let (server, ids) = seed(&fixture.catalog, count).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let update = |id: &TenantId| TenantUpdate {
        state: Some(TenantState::Active),
        placement: Some(Some(id.to_string())),
        ..TenantUpdate::for_generation(*id, Generation::FIRST)
    };
    let updates: Vec<TenantUpdate> = ids.iter().map(update).collect();
    assert!(tenants::update_many(&mut tx, &updates).await.unwrap().is_empty());
    tx.commit().await.unwrap();
    (server, ids)
}

/// An operation of this kind on these tenants that ends well for those at an even place.
async fn ended(fixture: &Fixture, kind: &str, tenants: &[TenantId]) -> OperationId {
    let id = OperationId::generate();
    let new = NewOperation {
        id,
        kind: kind.to_owned(),
        params: "{}".to_owned(),
        release_id: None,
        tenants: tenants.to_vec(),
        skipped: 0,
        left_out: Vec::new(),
        when_left: WhenLeft::Fail,
        concurrency: 100,
        requested_by: "test".to_owned(),
        reason: None,
    };
    let mut tx = fixture.catalog.write().await.unwrap();
    operations::insert_operation(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    finish(&fixture.catalog, id).await;
    id
}

async fn finish(catalog: &Catalog, id: OperationId) {
    let mut tx = catalog.write().await.unwrap();
    let until = tx.now() + 1_000;
    let claimant = StepClaimant { owner: "w", lease_until: until, limit: 100, may_run_alone: true, held: &[] };
    let claimed = steps::claim_steps(&mut tx, id, claimant).await.unwrap();
    let outcomes: Vec<StepOutcome> = claimed
        .iter()
        .enumerate()
        .map(|(place, step)| StepOutcome {
            op_id: id,
            tenant_id: step.tenant_id,
            lease_owner: "w".to_owned(),
            lease_epoch: step.lease_epoch,
            result: match place % 2 {
                0 => StepResult::Done { facts: "{}".to_owned() },
                _ => StepResult::Failed { code: "c".to_owned(), message: "m".to_owned() },
            },
        })
        .collect();
    steps::record_outcomes(&mut tx, &outcomes).await.unwrap();
    operations::finish_if_done(&mut tx, id).await.unwrap();
    tx.commit().await.unwrap();
}

/// Removes what a serving process would, and returns the operations that went.
async fn pruned(catalog: &Catalog, before: i64) -> Vec<OperationId> {
    let found =
        history::prunable_operations(&mut catalog.read().await.unwrap(), before, i64::MAX, 1_000).await.unwrap();
    let mut gone = Vec::new();
    for op in found {
        let mut tx = catalog.write().await.unwrap();
        let mut after = Some(String::new());
        while let Some(last) = after {
            after = history::prune_steps(&mut tx, op, &last).await.unwrap();
        }
        if history::prune_operation(&mut tx, op).await.unwrap() {
            gone.push(op);
        }
        tx.commit().await.unwrap();
    }
    gone
}

async fn steps_left(catalog: &Catalog, op: OperationId) -> usize {
    steps::list_steps(&mut catalog.read().await.unwrap(), op, &[], None, 1_000).await.unwrap().len()
}

#[tokio::test]
async fn the_last_success_of_each_kind_stays_whatever_its_age() {
    let fixture = Fixture::new().await;
    let (_, tenants) = made(&fixture, 4).await;
    let first = ended(&fixture, "backup", &tenants).await;
    let verify = ended(&fixture, "verify", &tenants[..1]).await;
    fixture.advance(2);
    // The first tenant again; the second had failed, the third has no later success.
    let second = ended(&fixture, "backup", &tenants[..1]).await;
    fixture.advance(400 * DAY);
    let last = ended(&fixture, "migrate", &tenants[..1]).await;
    assert!(pruned(&fixture.catalog, START + DAY).await.is_empty());
    assert_eq!(steps_left(&fixture.catalog, first).await, 1, "of the third tenant");
    assert_eq!(steps_left(&fixture.catalog, verify).await, 1, "another kind");
    assert_eq!(steps_left(&fixture.catalog, second).await, 1);
    assert_eq!(steps_left(&fixture.catalog, last).await, 1, "not old");
    // A later success of the third tenant lets the first operation go.
    let again = ended(&fixture, "backup", &tenants[2..3]).await;
    assert_eq!(pruned(&fixture.catalog, START + 500 * DAY).await, [first]);
    assert_eq!(steps_left(&fixture.catalog, again).await, 1);
    let mut tx = fixture.catalog.write().await.unwrap();
    assert!(operations::get(&mut tx, first).await.unwrap().is_none());
    assert!(operations::get(&mut tx, verify).await.unwrap().is_some());
}

#[tokio::test]
async fn failures_go_but_not_of_a_tenant_that_an_operation_blocks_or_whose_kept_database_names_it() {
    let fixture = Fixture::new().await;
    let (server, tenants) = made(&fixture, 4).await;
    let op = ended(&fixture, "restore", &tenants).await;
    let kept = |tenant| RetainedRecord {
        tenant_id: tenant,
        server_id: server,
        placement: "old".to_owned(),
        generation: Generation(1),
        reason: RetainedReason::Restore,
        op_id: op,
        schema_version: None,
        pin: None,
        created_at: START,
        keep_until: START + 1_000 * DAY,
    };
    let mut tx = fixture.catalog.write().await.unwrap();
    retained::insert_retained(&mut tx, &kept(tenants[1])).await.unwrap();
    tx.commit().await.unwrap();
    fixture.advance(2 * DAY);
    ended(&fixture, "restore", &tenants[..1]).await;
    pruned(&fixture.catalog, START + DAY).await;
    // The first has a later success; the second has a kept database; the third's success is its last; the fourth failed.
    assert_eq!(steps_left(&fixture.catalog, op).await, 2);
}

#[tokio::test]
async fn the_failed_operation_that_should_have_made_a_tenant_stays_and_so_does_one_that_is_tried_again() {
    let fixture = Fixture::new().await;
    let (_, tenants) = seed(&fixture.catalog, 2).await;
    let create = ended(&fixture, "create", &tenants).await;
    fixture.advance(400 * DAY);
    ended(&fixture, "backup", &[]).await;
    assert!(pruned(&fixture.catalog, START + 300 * DAY).await.is_empty());
    assert_eq!(steps_left(&fixture.catalog, create).await, 2);
    // A retry that came after the operation was found.
    let mut tx = fixture.catalog.write().await.unwrap();
    assert_eq!(steps::retry_failed(&mut tx, create).await.unwrap(), 1);
    history::prune_steps(&mut tx, create, "").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(steps_left(&fixture.catalog, create).await, 2);
}

#[tokio::test]
async fn open_operations_and_the_newest_one_stay() {
    let fixture = Fixture::new().await;
    let (_, tenants) = made(&fixture, 1).await;
    let only = ended(&fixture, "backup", &[]).await;
    fixture.advance(400 * DAY);
    assert!(pruned(&fixture.catalog, START + 300 * DAY).await.is_empty(), "the next is numbered after it");
    let next = ended(&fixture, "backup", &tenants).await;
    assert_eq!(pruned(&fixture.catalog, START + 300 * DAY).await, [only]);
    assert_eq!(steps_left(&fixture.catalog, next).await, 1);
}

#[tokio::test]
async fn events_go_by_age_and_are_numbered_on() {
    let fixture = Fixture::new().await;
    let write = async |kind: &str| {
        let mut tx: WriteTx = fixture.catalog.write().await.unwrap();
        let event = events::NewEvent {
            kind: kind.to_owned(),
            actor: "test".to_owned(),
            tenant_id: None,
            op_id: None,
            request_id: None,
            data: serde_json::json!({}),
        };
        events::append_events(&mut tx, &[event]).await.unwrap();
        tx.commit().await.unwrap();
    };
    write("a.old").await;
    fixture.advance(10 * DAY);
    write("a.new").await;
    let mut tx = fixture.catalog.write().await.unwrap();
    assert!(history::prune_events(&mut tx, START + DAY).await.unwrap() >= 1);
    assert_eq!(history::prune_events(&mut tx, START + DAY).await.unwrap(), 0);
    assert_eq!(history::prune_events(&mut tx, START + 100 * DAY).await.unwrap(), 0, "the newest stays");
    tx.commit().await.unwrap();
    write("a.third").await;
    let left = events::list_events(&mut fixture.catalog.read().await.unwrap(), None, None, 0, 10).await.unwrap();
    let kinds: Vec<&str> = left.iter().map(|event| event.event.kind.as_str()).collect();
    assert_eq!(kinds, ["a.new", "a.third"]);
    assert!(left[0].seq < left[1].seq);
}

#[tokio::test]
async fn a_fleet_has_a_policy_that_can_be_changed() {
    let fixture = Fixture::new().await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let before = history::history_policy(&mut tx).await.unwrap();
    assert_eq!(before, HistoryPolicy { operations_ms: 90 * DAY, events_ms: 400 * DAY });
    let wanted = HistoryPolicy { operations_ms: 7 * DAY, events_ms: 8 * DAY };
    history::set_history_policy(&mut tx, wanted).await.unwrap();
    assert_eq!(history::history_policy(&mut tx).await.unwrap(), wanted);
}
