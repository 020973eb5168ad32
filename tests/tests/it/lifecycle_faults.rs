//! What an operator's day does to a fleet whose tenants are on the move, under live load: the control plane is asked to
//! end, and the catalog's server is away for longer than a lease.

use std::time::{Duration, Instant};

use fleet_tests::history::History;
use fleet_tests::postgres::{PostgresFleet, SERVER};
use fleet_tests::{Fleet, Served, invariants};
use postgres_fixture::{Cluster, ROLE};
use serde_json::{Value, json};

const TENANTS: [&str; 6] = ["t0", "t1", "t2", "t3", "t4", "t5"];

async fn submit(served: &Served, path: &str, body: Value) -> String {
    served.admin().post(path, &body).await.ok()["id"].as_str().unwrap().to_owned()
}

/// How many steps of an operation are done.
async fn done(served: &Served, operation: &str) -> i64 {
    served.admin().get(&format!("/v1/operations/{operation}")).await.ok()["progress"]["done"].as_i64().unwrap()
}

/// Moves everybody from one server to the other under load; the control plane is asked to end when the first has
/// arrived, and the next one goes on.
async fn ended_in_the_middle(fleet: &Fleet, to: &str) -> Served {
    let mut served = Served::start(fleet.dir());
    let history = History::new(&served);
    let clients = history.clients(fleet, &TENANTS);
    history.more(40).await;
    let body = json!({"selection": {"names": TENANTS}, "to": to, "concurrency": 1});
    let operation = submit(&served, "/v1/lifecycle/move", body).await;
    while done(&served, &operation).await == 0 {
        tokio::task::yield_now().await;
    }
    let asked = Instant::now();
    assert_eq!(served.terminate(), Some(0), "it ends by itself, and says that all is well");
    assert!(asked.elapsed() < Duration::from_secs(35), "within its grace: {:?}", asked.elapsed());
    served = Served::start(fleet.dir());
    history.go_to(&served);
    let ended = served.admin().finished(&operation).await;
    assert_eq!((&ended["state"], &ended["progress"]["done"]), (&json!("succeeded"), &json!(6)), "{ended}");
    history.more(40).await;
    history.settle(clients, &served, fleet).await;
    served.terminate();
    served
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_is_asked_to_end_hands_moves_of_files_on() {
    let fleet = Fleet::with_tenants(&TENANTS);
    fleet.add_directory("other");
    drop(ended_in_the_middle(&fleet, "other").await);
    invariants::check(fleet.dir());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_is_asked_to_end_hands_moves_of_databases_on() {
    let pg = PostgresFleet::with_tenants(&TENANTS);
    let other = pg.add_other("pg2");
    drop(ended_in_the_middle(&pg.fleet, "pg2").await);
    let states = |cluster: &Cluster| {
        let all = cluster.psql("postgres", "select datname from pg_database where datname like 't\\_%'");
        let mut states: Vec<_> =
            all.lines().map(|name| cluster.psql(name, "select state from _fleet_identity")).collect();
        states.sort();
        states
    };
    assert_eq!(states(&pg.cluster), ["moved"; 6], "{SERVER}");
    assert_eq!(states(&other), ["active"; 6]);
}

/// Longer than the lease of a step.
const AWAY: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_is_away_for_30_s_stops_a_drain_and_loses_nothing() {
    let catalog = Cluster::start();
    catalog.psql("postgres", &format!("create database catalog owner {ROLE}"));
    let fleet = Fleet::init_on(&catalog.dsn("catalog"));
    fleet.add_directory("disk1");
    fleet.fill(&TENANTS);
    fleet.add_directory("disk2");
    let served = Served::start(fleet.dir());
    let history = History::new(&served);
    let clients = history.clients(&fleet, &TENANTS);
    history.more(40).await;
    let operation = submit(&served, "/v1/servers/disk1/drain", json!({"max_parallel": 2})).await;
    while done(&served, &operation).await < 2 {
        tokio::task::yield_now().await;
    }
    catalog.stop();
    let before = history.writes();
    let away = Instant::now();
    while away.elapsed() < AWAY {
        // Who is not on the move goes on by what is known of them.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let asked = Instant::now();
        assert_eq!(served.admin().get("/v1/tenants?limit=1").await.status, 503);
        assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    }
    assert!(history.writes() > before, "nobody was served without the catalog");
    catalog.start_again();
    // It says so until its work goes on.
    let back = Instant::now();
    while served.admin().get("/readyz").await.status != 200 {
        assert!(back.elapsed() < Duration::from_secs(60), "it does not come back by itself");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ended = served.admin().finished(&operation).await;
    assert_eq!((&ended["state"], &ended["progress"]["done"]), (&json!("succeeded"), &json!(6)), "{ended}");
    history.more(40).await;
    assert!(history.slowest() < Duration::from_secs(15), "an answer took {:?}", history.slowest());
    history.settle(clients, &served, &fleet).await;
}
