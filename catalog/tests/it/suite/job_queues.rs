//! Which tenants have due jobs, and which runner works on them.

use catalog::job_queues;
use catalog::tenants::TenantUpdate;
use catalog::{BlockWrites, Generation, TenantId, TenantState};

use super::{Fixture, START, seed};

async fn activate(fixture: &Fixture, ids: &[TenantId]) {
    let mut tx = fixture.catalog.write().await.unwrap();
    let update = |id: &TenantId| TenantUpdate {
        state: Some(TenantState::Active),
        ..TenantUpdate::for_generation(*id, Generation::FIRST)
    };
    let updates: Vec<_> = ids.iter().map(update).collect();
    assert!(catalog::tenants::update_many(&mut tx, &updates).await.unwrap().is_empty());
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_due_queue_has_one_runner_until_its_claim_ends() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 3).await;
    activate(&fixture, &ids).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let marks = [(ids[0], START + 50), (ids[1], START), (ids[0], START + 10), (ids[0], START + 90)];
    job_queues::mark_due(&mut tx, &marks).await.unwrap();
    assert_eq!(job_queues::due_queues(&mut tx, 10).await.unwrap(), [ids[1]]);
    tx.commit().await.unwrap();
    fixture.advance(10);
    let mut tx = fixture.catalog.write().await.unwrap();
    assert_eq!(job_queues::due_queues(&mut tx, 10).await.unwrap(), [ids[1], ids[0]], "the earliest mark counts");
    assert_eq!(job_queues::due_queues(&mut tx, 1).await.unwrap(), [ids[1]]);
    let claimed = job_queues::claim_queues(&mut tx, &ids, "a", START + 100).await.unwrap();
    assert_eq!(
        claimed.iter().map(|queue| (queue.tenant_id, queue.marks)).collect::<Vec<_>>(),
        [(ids[0], 3), (ids[1], 1)]
    );
    assert_eq!(job_queues::claim_queues(&mut tx, &ids, "b", START + 100).await.unwrap(), []);
    assert!(!job_queues::renew_claim(&mut tx, ids[0], "b", START + 900).await.unwrap());
    assert!(job_queues::renew_claim(&mut tx, ids[0], "a", START + 200).await.unwrap());
    tx.commit().await.unwrap();
    fixture.advance(100);
    let mut tx = fixture.catalog.write().await.unwrap();
    assert_eq!(job_queues::due_queues(&mut tx, 10).await.unwrap(), [ids[1]], "a claim ends by itself");
    assert!(!job_queues::renew_claim(&mut tx, ids[1], "a", START + 900).await.unwrap(), "too late");
    let taken_over = job_queues::claim_queues(&mut tx, &ids, "b", START + 300).await.unwrap();
    assert_eq!(taken_over[0].runner.as_deref(), Some("b"));
    job_queues::release_queue(&mut tx, &claimed[1], "a", None).await.unwrap();
    assert_eq!(job_queues::queue_of(&mut tx, ids[1]).await.unwrap().unwrap().runner.as_deref(), Some("b"));
}

#[tokio::test]
async fn a_mark_during_a_claim_is_not_lost() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    activate(&fixture, &ids).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let due_at = async |tx: &mut catalog::WriteTx| job_queues::queue_of(tx, ids[0]).await.unwrap().unwrap().due_at;
    for (mark, next_due, then) in [
        (None, None, None),
        (None, Some(START + 500), Some(START + 500)),
        (Some(START), None, Some(START)),
        (Some(START + 40), Some(START + 500), Some(START)),
        (Some(START), Some(START - 7), Some(START - 7)),
    ] {
        job_queues::mark_due(&mut tx, &[(ids[0], START)]).await.unwrap();
        let claimed = job_queues::claim_queues(&mut tx, &ids, "a", START + 100).await.unwrap();
        if let Some(at) = mark {
            job_queues::mark_due(&mut tx, &[(ids[0], at)]).await.unwrap();
        }
        job_queues::release_queue(&mut tx, &claimed[0], "a", next_due).await.unwrap();
        assert_eq!(due_at(&mut tx).await, then, "{mark:?} {next_due:?}");
        let again = job_queues::queue_of(&mut tx, ids[0]).await.unwrap().unwrap();
        assert_eq!(again.runner, None);
    }
}

#[tokio::test]
async fn only_tenants_that_serve_reads_and_writes_have_due_jobs() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 2).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    job_queues::mark_due(&mut tx, &[(ids[0], START)]).await.unwrap();
    assert_eq!(job_queues::due_queues(&mut tx, 10).await.unwrap(), [], "it is being provisioned");
    tx.commit().await.unwrap();
    activate(&fixture, &ids[..1]).await;
    let states = [
        (TenantState::Active, None, true),
        (TenantState::Active, Some(BlockWrites::Operation), false),
        (TenantState::Active, Some(BlockWrites::Operator), false),
        (TenantState::Suspended, None, false),
        (TenantState::Archived, None, false),
        (TenantState::Deleted, None, false),
    ];
    for (state, block, is_due) in states {
        let mut tx = fixture.catalog.write().await.unwrap();
        let record = catalog::tenants::get(&mut tx, ids[0]).await.unwrap().unwrap();
        let update = TenantUpdate {
            state: Some(state),
            block_writes: Some(block),
            ..TenantUpdate::for_generation(ids[0], record.generation)
        };
        assert!(catalog::tenants::update_many(&mut tx, &[update]).await.unwrap().is_empty());
        assert_eq!(
            job_queues::due_queues(&mut tx, 10).await.unwrap().len(),
            usize::from(is_due),
            "{state:?} {block:?}"
        );
        tx.commit().await.unwrap();
    }
    let mut tx = fixture.catalog.write().await.unwrap();
    job_queues::bury_jobs(&mut tx, ids[1], Generation(7), "restored").await.unwrap();
    let listed = job_queues::list_queues(&mut tx, None, 10).await.unwrap();
    let buried = listed.iter().find(|queue| queue.queue.tenant_id == ids[1]).unwrap();
    assert_eq!(buried.queue.due_at, Some(START), "somebody looks for its schedules");
    let mut names: Vec<_> = listed.iter().map(|queue| (&*queue.tenant, queue.queue.dead_below.0)).collect();
    names.sort_unstable();
    assert_eq!(names, [("t0", 0), ("t1", 7)]);
    let last = listed[1].queue.tenant_id;
    assert_eq!(job_queues::list_queues(&mut tx, Some(last), 10).await.unwrap(), []);
}

#[tokio::test]
async fn the_sweep_for_a_dead_process_has_one_owner() {
    let fixture = Fixture::new().await;
    let mut tx = fixture.catalog.write().await.unwrap();
    job_queues::register_enqueuer(&mut tx, "dead", START + 10).await.unwrap();
    job_queues::register_enqueuer(&mut tx, "dead", START + 20).await.unwrap();
    job_queues::register_enqueuer(&mut tx, "ended", START + 5).await.unwrap();
    job_queues::remove_enqueuer(&mut tx, "ended").await.unwrap();
    tx.commit().await.unwrap();
    fixture.advance(10);
    let mut tx = fixture.catalog.write().await.unwrap();
    assert_eq!(job_queues::expired_enqueuer(&mut tx).await.unwrap(), None);
    assert!(!job_queues::take_sweep(&mut tx, "dead", START + 99).await.unwrap(), "it lives");
    tx.commit().await.unwrap();
    fixture.advance(10);
    let mut tx = fixture.catalog.write().await.unwrap();
    assert_eq!(job_queues::expired_enqueuer(&mut tx).await.unwrap().as_deref(), Some("dead"));
    assert!(job_queues::take_sweep(&mut tx, "dead", START + 99).await.unwrap());
    assert!(!job_queues::take_sweep(&mut tx, "dead", START + 99).await.unwrap(), "another process was faster");
    assert!(job_queues::extend_sweep(&mut tx, "dead", START + 99, START + 120).await.unwrap());
    // It was not dead, and renews its row during the sweep.
    job_queues::register_enqueuer(&mut tx, "dead", START + 300).await.unwrap();
    assert!(!job_queues::extend_sweep(&mut tx, "dead", START + 120, START + 140).await.unwrap());
    job_queues::end_sweep(&mut tx, "dead", START + 120).await.unwrap();
    assert!(!job_queues::take_sweep(&mut tx, "dead", START + 99).await.unwrap(), "its row stays");
    tx.commit().await.unwrap();
    fixture.advance(300);
    let mut tx = fixture.catalog.write().await.unwrap();
    assert_eq!(job_queues::expired_enqueuer(&mut tx).await.unwrap().as_deref(), Some("dead"));
    job_queues::register_enqueuer(&mut tx, "dead", START + 50_000_000).await.unwrap();
    assert_eq!(
        job_queues::expired_enqueuer(&mut tx).await.unwrap().as_deref(),
        Some("dead"),
        "written by a wrong clock"
    );
}
