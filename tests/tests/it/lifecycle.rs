//! Tenants that are moved, suspended, cloned and emptied out under live load, by a control plane that is killed: every
//! acknowledged write is found afterwards, exactly once, where the catalog says; nothing is answered but 2xx or 503 with
//! a time to come back.

use fleet_tests::history::History;
use fleet_tests::postgres::{PostgresFleet, SERVER};
use fleet_tests::{Api, Fleet, Served, invariants};
use postgres_fixture::Cluster;
use serde_json::{Value, json};

async fn submit(api: &Api, path: &str, body: &Value) -> String {
    api.post(path, body).await.ok()["id"].as_str().unwrap().to_owned()
}

const TENANTS: [&str; 4] = ["t0", "t1", "t2", "t3"];

/// Moves everybody to and fro, and kills the server in the middle of every other move.
async fn to_and_fro(fleet: &Fleet, servers: [&str; 2]) -> Served {
    let mut served = Served::start(fleet.dir());
    let history = History::new(&served);
    let clients = history.clients(fleet, &TENANTS);
    history.more(40).await;
    for round in 0..4 {
        let body = json!({"selection": {"names": TENANTS}, "to": servers[(round + 1) % 2]});
        let operation = submit(&served.admin(), "/v1/lifecycle/move", &body).await;
        if round % 2 == 0 {
            // Wherever the moves are just then.
            history.more(1 + round * 3).await;
            served.kill();
            served = Served::start(fleet.dir());
            history.go_to(&served);
        }
        let ended = served.admin().finished(&operation).await;
        assert_eq!(ended["state"], "succeeded", "{ended}");
        history.more(40).await;
    }
    history.settle(clients, &served, fleet).await;
    served
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_files_through_kills_under_load_loses_nothing() {
    let fleet = Fleet::with_tenants(&TENANTS);
    fleet.add_directory("other");
    let mut served = to_and_fro(&fleet, ["local", "other"]).await;
    served.kill();
    invariants::check(fleet.dir());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_postgres_databases_through_kills_under_load_loses_nothing() {
    let pg = PostgresFleet::with_tenants(&TENANTS);
    let other = pg.add_other("pg2");
    to_and_fro(&pg.fleet, [SERVER, "pg2"]).await;
    let active = |cluster: &Cluster| {
        let all = cluster.psql("postgres", "select datname from pg_database where datname like 't\\_%'");
        let state = |name: &&str| cluster.psql(name, "select state from _fleet_identity") == "active";
        all.lines().filter(state).count()
    };
    assert_eq!((active(&pg.cluster), active(&other)), (4, 0), "each tenant is active in one place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_drained_under_load_and_no_request_is_lost() {
    let fleet = Fleet::with_tenants(&TENANTS);
    fleet.add_directory("other");
    let served = Served::start(fleet.dir());
    let history = History::new(&served);
    let clients = history.clients(&fleet, &TENANTS);
    history.more(40).await;
    let body = json!({"max_parallel": 2});
    let operation = submit(&served.admin(), "/v1/servers/local/drain", &body).await;
    let ended = served.admin().finished(&operation).await;
    assert_eq!((&ended["state"], &ended["progress"]["done"]), (&json!("succeeded"), &json!(4)), "{ended}");
    history.more(40).await;
    let drained = served.admin().get("/v1/servers/local").await.ok();
    assert_eq!((&drained["state"], &drained["tenants"]), (&json!("draining"), &json!(0)), "{drained}");
    history.settle(clients, &served, &fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archived_tenant_is_woken_by_its_first_request() {
    let fleet = Fleet::with_tenants(&["acme"]);
    let token = fleet.token("acme", "writer");
    let served = Served::start(fleet.dir());
    let api = Api::new(&served.data_url, &token);
    let insert = json!({"sql": "insert into tasks (id, title) values (7, 'kept')"});
    assert_eq!(api.post("/t/acme/query", &insert).await.status, 200);
    let body = json!({"selection": {"names": ["acme"]}});
    let operation = submit(&served.admin(), "/v1/lifecycle/archive", &body).await;
    assert_eq!(served.admin().finished(&operation).await["state"], "succeeded");
    let stranger = Api::new(&served.data_url, "flt_nobody");
    assert_eq!(stranger.post("/t/acme/query", &insert).await.status, 401);
    let read = json!({"sql": "select title from tasks where id = 7"});
    let asleep = api.post("/t/acme/query", &read).await;
    assert_eq!((asleep.status, asleep.headers.contains_key("retry-after")), (503, true), "{}", asleep.body);
    let begun = std::time::Instant::now();
    let woken = loop {
        let answer = api.post("/t/acme/query", &read).await;
        if answer.status == 200 {
            break answer;
        }
        assert_eq!(answer.json()["code"], "tenant_archived", "{}", answer.body);
        assert!(begun.elapsed().as_secs() < 60, "nobody woke it");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!(woken.json()["rows"], json!([["kept"]]));
}

#[test]
fn the_command_line_does_the_whole_life() {
    let fleet = Fleet::with_tenants(&["acme"]);
    let state = |name: &str| fleet.json(&["tenant", "get", name])["state"].clone();
    fleet.ok(&["tenant", "suspend", "acme", "--reason", "the invoice"]);
    let suspended = fleet.json(&["tenant", "get", "acme"]);
    assert_eq!((&suspended["state"], &suspended["state_reason"]), (&json!("suspended"), &json!("the invoice")));
    fleet.ok(&["tenant", "resume", "acme"]);
    fleet.ok(&["tenant", "read-only", "acme"]);
    assert_eq!(fleet.json(&["tenant", "get", "acme"])["block_writes"], "operator");
    fleet.ok(&["tenant", "read-only", "acme", "--off"]);
    fleet.ok(&["tenant", "rename", "acme", "acme-corp"]);
    assert_eq!(fleet.json(&["tenant", "get", "acme"])["name"], "acme-corp", "the old name leads to the same tenant");
    assert!(!fleet.run(&["tenant", "create", "acme"]).status.success(), "and never to another one");
    fleet.ok(&["tenant", "clone", "acme-corp", "acme-staging"]);
    assert_eq!(state("acme-staging"), "active");
    fleet.ok(&["tenant", "archive", "acme-corp", "--yes"]);
    assert_eq!(state("acme-corp"), "archived");
    fleet.ok(&["tenant", "unarchive", "acme-corp"]);
    fleet.ok(&["tenant", "delete", "acme-corp", "--yes"]);
    fleet.ok(&["tenant", "undelete", "acme-corp"]);
    assert_eq!(state("acme-corp"), "active");
    let nowhere = fleet.run(&["server", "drain", "local"]);
    assert_eq!(nowhere.status.code(), Some(7), "there is no other server");
    assert_eq!(fleet.json(&["server", "get", "local"])["state"], "active", "and nothing was changed");
    fleet.add_directory("disk2");
    fleet.ok(&["tenant", "move", "acme-corp", "--to", "disk2"]);
    assert_eq!(fleet.json(&["tenant", "get", "acme-corp"])["server"], "disk2");
    assert!(fleet.ok(&["server", "drain", "disk2", "--dry-run"]).contains("acme-corp"));
    fleet.ok(&["server", "drain", "disk2"]);
    assert_eq!(fleet.json(&["tenant", "get", "acme-corp"])["server"], "local");
    fleet.ok(&["tenant", "delete", "acme-corp", "--yes"]);
    let refused = fleet.run(&["tenant", "purge", "acme-corp"]);
    assert_eq!(refused.status.code(), Some(2), "purging wants a confirmation");
    fleet.ok(&["tenant", "purge", "acme-corp", "--yes"]);
    assert_eq!(fleet.json(&["tenant", "list", "--state", "purged"])["items"].as_array().unwrap().len(), 1);
    invariants::check(fleet.dir());
}
