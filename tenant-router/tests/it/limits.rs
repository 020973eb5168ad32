//! The limits of plans, on both engines: what they refuse, what they cost nobody else, and how changes arrive.

use std::time::Duration;

use postgres_fixture::Cluster;
use tenant_router::test_fleet::TestFleet;
use tenant_router::{ErrorKind, PlanLimits, Read, Role, Router, Tenant, Write};

use crate::world::open;

const SCHEMA: &str = "create table tasks (title text not null)";

struct Site {
    fleet: TestFleet,
    /// A statement that runs for several seconds.
    slow: &'static str,
    /// A size that the database reaches soon, or has from the start.
    small: u64,
    /// An insertion of about 20 KB.
    insert: &'static str,
    _cluster: Option<Cluster>,
}

async fn on_sqlite() -> Site {
    let fleet = TestFleet::start(SCHEMA, ["acme", "globex"]).await.unwrap();
    let slow =
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000000000) select count(*) from n";
    let insert = "insert into tasks values (printf('%.*c', 20000, 'x'))";
    Site { fleet, slow, small: 300_000, insert, _cluster: None }
}

async fn on_postgres() -> Site {
    let cluster = Cluster::start();
    let fleet = TestFleet::start_on_postgres(&cluster.dsn("postgres"), SCHEMA, ["acme", "globex"]).await.unwrap();
    let slow = "select count(*) from generate_series(1, 1000000000)";
    let insert = "insert into tasks values (repeat('x', 20000))";
    Site { fleet, slow, small: 1_000_000, insert, _cluster: Some(cluster) }
}

/// A test of each name on each engine.
macro_rules! on_both_engines {
    ($($name:ident)*) => {
        mod sqlite { $(#[tokio::test] async fn $name() { super::$name(super::on_sqlite().await).await; })* }
        mod postgres { $(#[tokio::test] async fn $name() { super::$name(super::on_postgres().await).await; })* }
    };
}

on_both_engines! {
    a_used_up_rate_is_refused_before_the_database
    open_requests_are_counted_until_they_end
    two_processes_share_the_limits
    a_plan_limits_statements_rows_and_bytes
    a_change_of_a_plan_counts_in_the_other_process
    statements_wait_for_one_of_the_plans_connections
    a_full_database_is_read_and_emptied_but_does_not_grow
}

impl Site {
    async fn token(&self, tenant: &str) -> String {
        self.fleet.token(tenant, Role::Writer).await.unwrap()
    }

    async fn limit(&self, limits: PlanLimits) {
        self.fleet.set_limits("acme", &limits).await.unwrap();
    }

    async fn reader(&self) -> Tenant<Read> {
        open(self.fleet.router(), "acme", &self.token("acme").await).await.unwrap()
    }

    /// A router of another process.
    async fn other_router(&self) -> Router {
        self.fleet.router_builder().await.unwrap().build().await.unwrap()
    }
}

/// How many of these requests pass, one after another.
async fn passed(router: &Router, token: &str, requests: usize) -> usize {
    let mut passed = 0;
    for _ in 0..requests {
        passed += usize::from(open::<Read>(router, "acme", token).await.is_ok());
    }
    passed
}

/// So slow that no token appears while a test runs.
fn slow_rate(burst: u64) -> PlanLimits {
    PlanLimits { requests_per_second: Some(1), burst: Some(burst), ..PlanLimits::default() }
}

async fn a_used_up_rate_is_refused_before_the_database(site: Site) {
    let (router, token) = (site.fleet.router(), site.token("acme").await);
    assert_eq!(site.reader().await.rate_state(), None, "without a plan");
    site.limit(PlanLimits { requests_per_second: Some(1), burst: Some(3_000), ..PlanLimits::default() }).await;
    // A stranger cannot use up the tenant's rate, and learns nothing of it.
    let stranger = site.token("globex").await;
    let refused = open::<Read>(router, "acme", &stranger).await.unwrap_err();
    assert_eq!((refused.kind(), refused.rate_state()), (ErrorKind::NotFound, None));
    let tenant = open::<Read>(router, "acme", &token).await.unwrap();
    let state = tenant.rate_state().unwrap();
    assert_eq!((state.burst, state.window_seconds, state.remaining), (3_000, 3_000, 2_999));
    tenant.at::<Write>().await.unwrap();
    assert_eq!(open::<Read>(router, "acme", &token).await.unwrap().rate_state().unwrap().remaining, 2_998);
    site.limit(slow_rate(1)).await;
    let refused = open::<Read>(router, "acme", &token).await.unwrap_err();
    assert_eq!((refused.kind(), refused.status()), (ErrorKind::RateLimited, 429), "a new plan does not refill");
    let state = refused.rate_state().unwrap();
    assert_eq!((state.remaining, state.reset_seconds), (0, 1));
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(1)));
    let globex = open::<Read>(router, "globex", &stranger).await.unwrap();
    assert_eq!(globex.rate_state(), None, "another tenant");
    let principal = std::sync::Arc::new(tenant_router::Principal::service("jobs", Role::Writer));
    router.open_id::<Write>(principal, site.fleet.tenant_id("acme").unwrap()).await.unwrap();
}

async fn open_requests_are_counted_until_they_end(site: Site) {
    let (router, token) = (site.fleet.router(), site.token("acme").await);
    site.limit(PlanLimits { concurrency: Some(2), ..PlanLimits::default() }).await;
    let first = open::<Write>(router, "acme", &token).await.unwrap();
    let second = open::<Read>(router, "acme", &token).await.unwrap();
    let again = first.at::<Read>().await.unwrap();
    let refused = open::<Read>(router, "acme", &token).await.unwrap_err();
    assert_eq!((refused.kind(), refused.status(), refused.code()), (ErrorKind::RequestsMax, 429, "requests_max"));
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(1)));
    // A stream keeps its request open.
    let stream = second.stream_as::<i64>("select 1", ()).await.unwrap();
    drop(second);
    assert_eq!(passed(router, &token, 1).await, 0);
    drop(stream);
    assert_eq!(passed(router, &token, 5).await, 5);
    drop(first);
    let third = open::<Read>(router, "acme", &token).await.unwrap();
    assert_eq!(passed(router, &token, 1).await, 0, "`at` is a part of the first request");
    drop(again);
    assert_eq!(passed(router, &token, 1).await, 1);
    drop(third);
}

async fn two_processes_share_the_limits(site: Site) {
    // The fleet's own router would be a third process.
    site.fleet.router().shutdown().await;
    site.limit(slow_rate(8)).await;
    let here = site.other_router().await;
    let there = site.other_router().await;
    here.catch_up().await.unwrap();
    let token = site.token("acme").await;
    let both = (passed(&here, &token, 20).await, passed(&there, &token, 20).await);
    assert_eq!(both, (4, 4));
    site.limit(PlanLimits { concurrency: Some(2), ..PlanLimits::default() }).await;
    for router in [&here, &there] {
        router.catch_up().await.unwrap();
        let open_one = open::<Read>(router, "acme", &token).await.unwrap();
        assert_eq!(passed(router, &token, 1).await, 0);
        drop(open_one);
    }
    there.shutdown().await;
    here.catch_up().await.unwrap();
    let _one = open::<Read>(&here, "acme", &token).await.unwrap();
    assert_eq!(passed(&here, &token, 1).await, 1, "the other process has ended");
}

async fn a_plan_limits_statements_rows_and_bytes(site: Site) {
    let rows = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 20) select i from n";
    let tenant = site.reader().await;
    assert_eq!(tenant.query(rows, ()).await.unwrap().rows.len(), 20);
    site.limit(PlanLimits { rows_max: Some(10), ..PlanLimits::default() }).await;
    assert_eq!(site.reader().await.query(rows, ()).await.unwrap_err().code(), "rows_max");
    site.limit(PlanLimits { answer_bytes_max: Some(1_024), ..PlanLimits::default() }).await;
    let long = "select replace('aaaaaaaaaaaaaaaaaaaa', 'a', '0123456789012345678901234567890123456789012345678901234567890123456789')";
    assert_eq!(site.reader().await.query(long, ()).await.unwrap_err().code(), "bytes_max");
    site.limit(PlanLimits { statement_ms: Some(50), ..PlanLimits::default() }).await;
    let began = std::time::Instant::now();
    let error = site.reader().await.query(site.slow, ()).await.unwrap_err();
    assert_eq!(error.code(), "deadline_exceeded");
    assert!(began.elapsed() < Duration::from_secs(4), "the limit of the process is 5 s: {:?}", began.elapsed());
}

async fn a_change_of_a_plan_counts_in_the_other_process(site: Site) {
    let (other, token) = (site.other_router().await, site.token("acme").await);
    assert_eq!(passed(&other, &token, 5).await, 5);
    site.limit(PlanLimits { concurrency: Some(1), ..PlanLimits::default() }).await;
    let news = async {
        loop {
            let held = open::<Read>(&other, "acme", &token).await;
            if open::<Read>(&other, "acme", &token).await.is_err() {
                return;
            }
            drop(held);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), news).await.unwrap();
}

async fn statements_wait_for_one_of_the_plans_connections(site: Site) {
    let tight = PlanLimits { connections_max: Some(1), statement_ms: Some(200), ..PlanLimits::default() };
    site.limit(tight).await;
    let tenant = site.reader().await;
    let mut tx = tenant.read();
    tx.query("select 1", ()).await.unwrap();
    let error = site.reader().await.query("select 1", ()).await.unwrap_err();
    assert_eq!((error.code(), error.status()), ("connections_max", 503));
    let globex = open::<Read>(site.fleet.router(), "globex", &site.token("globex").await).await.unwrap();
    globex.query("select 1", ()).await.unwrap();
    drop(tx);
    site.reader().await.query("select 1", ()).await.unwrap();
}

async fn a_full_database_is_read_and_emptied_but_does_not_grow(site: Site) {
    let limit = |bytes| PlanLimits { storage_bytes_max: Some(bytes), ..PlanLimits::default() };
    let token = site.token("acme").await;
    let writer = async || open::<Write>(site.fleet.router(), "acme", &token).await.unwrap();
    writer().await.execute(site.insert, ()).await.unwrap();
    site.limit(limit(site.small)).await;
    let tenant = writer().await;
    let mut refusal = None;
    for _ in 0..50 {
        refusal = tenant.execute(site.insert, ()).await.err();
        if refusal.is_some() {
            break;
        }
    }
    let refusal = refusal.expect("the database is full before a megabyte was written");
    assert_eq!((refusal.code(), refusal.status(), refusal.retry_after()), ("storage_full", 507, None));
    let mut tx = tenant.write();
    assert_eq!(tx.execute(site.insert, ()).await.unwrap_err().code(), "storage_full");
    drop(tx);
    assert_ne!(tenant.query_as::<i64>("select count(*) from tasks", ()).fetch_one().await.unwrap(), 0);
    let globex = open::<Write>(site.fleet.router(), "globex", &site.token("globex").await).await.unwrap();
    globex.execute(site.insert, ()).await.unwrap();
    tenant.execute("delete from tasks", ()).await.unwrap();
    site.limit(limit(100_000_000)).await;
    writer().await.execute(site.insert, ()).await.unwrap();
}

#[tokio::test]
async fn on_sqlite_deleted_rows_make_room_at_once() {
    let site = on_sqlite().await;
    site.limit(PlanLimits { storage_bytes_max: Some(site.small), ..PlanLimits::default() }).await;
    let tenant = open::<Write>(site.fleet.router(), "acme", &site.token("acme").await).await.unwrap();
    let mut rows = 0;
    while tenant.execute(site.insert, ()).await.is_ok() {
        rows += 1;
    }
    assert!((5..20).contains(&rows), "{rows} rows of 20 KB in {} bytes", site.small);
    tenant.execute("delete from tasks where rowid <= 2", ()).await.unwrap();
    tenant.execute(site.insert, ()).await.unwrap();
}
