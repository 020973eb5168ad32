//! Prints how long the bulk functions take. Run in release: `cargo run --release -p catalog --example catalog_timing`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails may panic and must print")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use catalog::db::CatalogLocation;
use catalog::operations::{self, NewOperation, WhenLeft};
use catalog::seal::FleetKey;
use catalog::steps::{self, StepOutcome, StepResult};
use catalog::tenants::{self, NewTenant, TenantCriteria, TenantUpdate};
use catalog::{Catalog, Generation, OperationId, TenantId, TenantName, TenantState, changes, servers};

const TENANTS: usize = 10_000;
const BATCH: usize = 500;

fn report(what: &str, count: usize, started: Instant) {
    let elapsed = started.elapsed();
    println!("{what:<44} {count:>6}  {elapsed:>10.2?}  {:>8.1?} each", elapsed / u32::try_from(count).unwrap());
}

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir().unwrap();
    let clock: catalog::CatalogClock = Arc::new(|| jiff::Timestamp::now().as_millisecond());
    let location = CatalogLocation::File(directory.path().join("catalog.db"));
    let started = Instant::now();
    let catalog = Catalog::create(&location, FleetKey::generate(), clock).await.unwrap();
    report("create the catalog", 1, started);
    let ids = insert(&catalog).await;
    reads(&catalog, &ids).await;
    writes(&catalog, &ids).await;
    operation(&catalog, &ids).await;
    let started = Instant::now();
    catalog.snapshot_to(&directory.path().join("copy.db")).await.unwrap();
    report("snapshot", 1, started);
    catalog.close().await;
}

async fn insert(catalog: &Catalog) -> Vec<TenantId> {
    let mut tx = catalog.write().await.unwrap();
    let server = servers::insert_server(&mut tx, servers::NewServer::in_directory("local", "/srv")).await.unwrap().id;
    tx.commit().await.unwrap();
    let new: Vec<NewTenant> = (0..TENANTS)
        .map(|n| NewTenant {
            id: TenantId::generate(),
            name: TenantName::parse_slug(&format!("tenant-{n}")).unwrap(),
            server_id: server,
            labels: BTreeMap::from([("plan".to_owned(), "pro".to_owned())]),
            plan: None,
        })
        .collect();
    let started = Instant::now();
    let mut tx = catalog.write().await.unwrap();
    tenants::insert_many(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    report("insert_many with label, one transaction", TENANTS, started);
    new.iter().map(|tenant| tenant.id).collect()
}

async fn reads(catalog: &Catalog, ids: &[TenantId]) {
    for round in ["cold", "warm"] {
        let started = Instant::now();
        for n in 0..2_000 {
            let mut tx = catalog.read().await.unwrap();
            tenants::by_name(&mut tx, &TenantName::parse_slug(&format!("tenant-{}", n * 5)).unwrap())
                .await
                .unwrap()
                .unwrap();
        }
        report(&format!("read + by_name ({round})"), 2_000, started);
    }
    let started = Instant::now();
    for _ in 0..2_000 {
        drop(catalog.read().await.unwrap());
    }
    report("an empty read", 2_000, started);
    let mut tx = catalog.read().await.unwrap();
    let started = Instant::now();
    let all = tenants::list_tenants(&mut tx, &TenantCriteria::default(), None, 10_000).await.unwrap();
    report("page with labels", all.len(), started);
    let labelled = TenantCriteria { labels: "plan=pro".parse().expect("a selector"), ..TenantCriteria::default() };
    let started = Instant::now();
    tenants::list_tenants(&mut tx, &labelled, None, 1_000).await.unwrap();
    report("page by label", 1_000, started);
    let chosen = TenantCriteria { ids: Some(ids.to_vec()), ..TenantCriteria::default() };
    let started = Instant::now();
    tenants::list_tenants(&mut tx, &chosen, None, 10_000).await.unwrap();
    report("page by ids", TENANTS, started);
    let started = Instant::now();
    changes::changes_since(&mut tx, 5_000).await.unwrap();
    report("changes since", 5_000, started);
}

async fn writes(catalog: &Catalog, ids: &[TenantId]) {
    for round in 0..3 {
        let started = Instant::now();
        let mut tx = catalog.write().await.unwrap();
        let updates: Vec<TenantUpdate> = ids[..BATCH]
            .iter()
            .map(|id| {
                let mut update = TenantUpdate::for_generation(*id, Generation(1 + round));
                update.state = Some(TenantState::Active);
                update.placement = Some(Some(format!("{}/g{round}-1.db", id.uuid())));
                update
            })
            .collect();
        assert!(tenants::update_many(&mut tx, &updates).await.unwrap().is_empty());
        let done = Instant::now();
        tx.commit().await.unwrap();
        println!("{:<44} {:>6}  {:>10.2?}", "  of it: commit", "", done.elapsed());
        report("update_many and commit", BATCH, started);
        let started = Instant::now();
        let mut tx = catalog.write().await.unwrap();
        let at_seven =
            |id: &TenantId| tenants::ReachedSchema { tenant: *id, version: Some(7), release: None, ledger: None };
        let reached: Vec<_> = ids[..BATCH].iter().map(at_seven).collect();
        tenants::set_schema_many(&mut tx, &reached).await.unwrap();
        tx.commit().await.unwrap();
        report("set_schema_many and commit", BATCH, started);
    }
}

async fn operation(catalog: &Catalog, ids: &[TenantId]) {
    let started = Instant::now();
    let mut tx = catalog.write().await.unwrap();
    let new = NewOperation {
        id: OperationId::generate(),
        kind: "migrate".to_owned(),
        params: "{}".to_owned(),
        release_id: None,
        tenants: ids.to_vec(),
        skipped: 0,
        left_out: Vec::new(),
        when_left: WhenLeft::Fail,
        concurrency: 8,
        requested_by: "timing".to_owned(),
        reason: None,
    };
    operations::insert_operation(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    report("operations::insert", TENANTS, started);
    let (mut claiming, mut recording) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
    let mut batches = 0;
    loop {
        let started = Instant::now();
        let mut tx = catalog.write().await.unwrap();
        let until = tx.now() + 60_000;
        let claimed = steps::claim_steps(
            &mut tx,
            new.id,
            steps::StepClaimant {
                owner: "w",
                lease_until: until,
                limit: i64::try_from(BATCH).unwrap(),
                may_run_alone: true,
                held: &[],
            },
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        if claimed.is_empty() {
            break;
        }
        claiming += started.elapsed();
        let outcomes: Vec<StepOutcome> = claimed
            .iter()
            .map(|step| StepOutcome {
                op_id: step.op_id,
                tenant_id: step.tenant_id,
                lease_owner: "w".to_owned(),
                lease_epoch: step.lease_epoch,
                result: StepResult::Done { facts: "{\"version\":3}".to_owned() },
            })
            .collect();
        let started = Instant::now();
        let mut tx = catalog.write().await.unwrap();
        steps::record_outcomes(&mut tx, &outcomes).await.unwrap();
        operations::finish_if_done(&mut tx, new.id).await.unwrap();
        tx.commit().await.unwrap();
        recording += started.elapsed();
        batches += 1;
    }
    println!("{:<44} {BATCH:>6}  {:>10.2?}", "claim and commit, on average", claiming / batches);
    println!("{:<44} {BATCH:>6}  {:>10.2?}", "record, finish_if_done and commit, on average", recording / batches);
    let started = Instant::now();
    operations::operation_progress(&mut catalog.read().await.unwrap(), new.id).await.unwrap();
    report("progress", 1, started);
    let started = Instant::now();
    for _ in 0..100 {
        steps::next_due(&mut catalog.read().await.unwrap()).await.unwrap();
    }
    report("next_due", 100, started);
}
