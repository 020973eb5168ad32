//! Tenants on a real PostgreSQL server, by the command line and over HTTP: the whole life, and everything that a server
//! does to those who depend on it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use fleet_tests::postgres::{PostgresFleet, SERVER};
use fleet_tests::{Answer, Api, Served};
use postgres_fixture::Settings;
use reqwest::Method;
use serde_json::{Value, json};

/// The code and the exit of a command that must fail.
fn refused(pg: &PostgresFleet, args: &[&str]) -> (Option<i32>, String) {
    let output = pg.fleet.run(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{args:?} succeeded");
    (output.status.code(), text)
}

fn count(pg: &PostgresFleet, tenant: &str) -> i64 {
    let rows = pg.fleet.ok(&["query", "select count(*) as n from tasks", tenant, "-o", "jsonl"]);
    let row: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    row["n"].as_i64().unwrap()
}

async fn insert(api: &Api, tenant: &str, id: i64, title: &str) -> Answer {
    let body = json!({"sql": "insert into tasks (id, title) values ($1, $2)", "params": [id, title]});
    api.post(&format!("/t/{tenant}/query"), &body).await
}

async fn title(api: &Api, tenant: &str, id: i64) -> Answer {
    let body = json!({"sql": "select title, done from tasks where id = $1", "params": [id]});
    api.post(&format!("/t/{tenant}/query"), &body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_fleet_goes_through_everything() {
    let pg = PostgresFleet::with_tenants(&["acme"]);
    pg.fleet.ok(&["tenant", "create", "globex", "--server", "local"]);
    let acme = pg.fleet.json(&["tenant", "get", "acme"]);
    assert_eq!(
        (&acme["engine"], &acme["server"], &acme["schema_version"]),
        (&json!("postgres"), &json!(SERVER), &json!(1))
    );
    let writer = pg.fleet.token("acme", "writer");
    let mut served = Served::start(pg.fleet.dir());
    let api = Api::new(&served.data_url, &writer);
    assert_eq!(insert(&api, "acme", 1, "one").await.ok()["rows_affected"], 1);
    assert_eq!(title(&api, "acme", 1).await.ok()["rows"], json!([["one", false]]));
    let batch = json!({"statements": [
        {"sql": "insert into tasks (id, title) values (2, 'two')"},
        {"sql": "insert into tasks (id, title) values (1, 'again')"},
    ]});
    assert_eq!(api.post("/t/acme/batch", &batch).await.status, 409);
    assert_eq!(count(&pg, "acme"), 1, "a batch is all or nothing");
    served.kill();

    std::fs::create_dir_all(pg.fleet.dir().join("app/sqlite")).unwrap();
    std::fs::create_dir_all(pg.fleet.dir().join("app/postgres")).unwrap();
    for engine in ["sqlite", "postgres"] {
        let from = fleet_tests::workspace_root().join(format!("migrations/example/{engine}/0001_tasks.sql"));
        let to = pg.fleet.dir().join("app").join(engine);
        std::fs::copy(from, to.join("0001_tasks.sql")).unwrap();
        std::fs::write(to.join("0002_due.sql"), "alter table tasks add column due_at text;").unwrap();
    }
    pg.fleet.ok(&["migrate", "run", "app", "--all"]);
    assert_eq!(pg.fleet.json(&["migrate", "status"])["up_to_date"], 2);
    let listed = pg.fleet.ok(&["query", "select count(due_at) as n from tasks", "--all", "-o", "jsonl"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");

    pg.fleet.ok(&["backup", "run", "--all"]);
    pg.fleet.ok(&["backup", "verify", "acme"]);
    assert_eq!(pg.databases().len(), 1, "verifying leaves nothing behind");
    let database = pg.database("acme");
    pg.cluster.psql("postgres", &format!("drop database {database} with (force)"));
    let (exit, text) = refused(&pg, &["query", "select 1", "acme"]);
    assert!(text.contains("fenced") || text.contains("database_missing"), "{exit:?} {text}");
    pg.fleet.ok(&["restore", "run", "acme", "--to", "latest", "--yes"]);
    assert_eq!(count(&pg, "acme"), 1);
    pg.fleet.ok(&["restore", "run", "acme", "--to", "latest", "--as", "acme-copy"]);
    assert_eq!(count(&pg, "acme-copy"), 1);
    assert_eq!(pg.fleet.json(&["tenant", "get", "acme-copy"])["server"], SERVER);

    let (exit, text) = refused(&pg, &["server", "remove", SERVER]);
    assert_eq!(exit, Some(7), "{text}");
    pg.fleet.ok(&["tenant", "delete", "acme", "--yes"]);
    assert_eq!(refused(&pg, &["query", "select 1", "acme"]).0, Some(5));
}

#[test]
fn restoring_in_place_keeps_what_was_replaced_and_undo_brings_it_back() {
    let pg = PostgresFleet::with_tenants(&["acme"]);
    let fill = |n: i64| {
        let sql = format!("insert into tasks (title) select 't' || i from generate_series(1, {n}) i");
        pg.cluster.psql(&pg.database("acme"), &sql)
    };
    fill(2);
    pg.fleet.ok(&["backup", "run", "acme"]);
    fill(3);
    pg.fleet.ok(&["restore", "run", "acme", "--to", "latest", "--yes"]);
    assert_eq!(count(&pg, "acme"), 2);
    assert_eq!(pg.databases().len(), 2);
    pg.fleet.ok(&["restore", "undo", "acme", "--yes"]);
    assert_eq!(count(&pg, "acme"), 5);
}

#[test]
fn a_server_that_cannot_be_used_is_refused_with_its_reason() {
    let pg = PostgresFleet::init();
    let add = |name: &str, dsn: &str| {
        let file = pg.dsn_file("other.dsn", dsn);
        refused(&pg, &["server", "add", name, "--engine", "postgres", "--dsn-file", &file])
    };
    let port = pg.cluster.port();
    for (dsn, code, exit) in [
        ("nonsense".to_owned(), "server_invalid", 2),
        (format!("postgres://fleet:wrong-secret@127.0.0.1:{port}/postgres"), "server_auth_failed", 1),
        ("postgres://fleet:wrong-secret@127.0.0.1:1/postgres".to_owned(), "server_unreachable", 15),
        (format!("postgres://fleet:fleet-test@127.0.0.1:{port}/postgres?sslmode=require"), "server_tls", 1),
        (format!("postgres://fleet:fleet-test@localhost:{port}/postgres"), "already_exists", 7),
    ] {
        let (found, text) = add("pg2", &dsn);
        assert!(text.contains(code) && found == Some(exit), "{code}: {found:?} {text}");
        assert!(!text.contains("wrong-secret"), "{text}");
    }
    pg.cluster.psql("postgres", "create role weak login password 'weak'");
    let other = postgres_fixture::Cluster::start();
    other.psql("postgres", "create role weak login password 'weak'");
    let (_, text) = add("pg2", &format!("postgres://weak:weak@127.0.0.1:{}/postgres", other.port()));
    assert!(text.contains("server_privilege_missing") && text.to_uppercase().contains("CREATEDB"), "{text}");
    assert_eq!(pg.fleet.json(&["server", "list"])["items"].as_array().map_or(0, Vec::len), 2, "nothing was half added");
}

#[test]
fn a_changed_password_is_told_and_server_set_repairs_it() {
    let pg = PostgresFleet::with_tenants(&["acme"]);
    pg.cluster.psql("postgres", "alter role fleet password 'rotated'");
    let (_, text) = refused(&pg, &["backup", "run", "acme"]);
    assert!(text.contains("server_auth_failed"), "{text}");
    let looked = pg.fleet.run(&["server", "get", SERVER, "-o", "json"]);
    assert_eq!(looked.status.code(), Some(4), "{looked:?}");
    let looked: Value = serde_json::from_slice(&looked.stdout).unwrap();
    assert_eq!((&looked["healthy"], &looked["problem"]["code"]), (&json!(false), &json!("server_auth_failed")));
    let dsn = pg.dsn_file("pg1.dsn", &format!("postgres://fleet:rotated@127.0.0.1:{}/postgres", pg.cluster.port()));
    pg.fleet.ok(&["server", "set", SERVER, "--dsn-file", &dsn]);
    pg.fleet.ok(&["backup", "run", "acme"]);
    let listed = pg.fleet.json(&["server", "get", SERVER]);
    assert_eq!(listed["healthy"], true, "{listed}");
    assert!(listed["connections_budget"].as_i64() < listed["connections_max"].as_i64(), "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn colliding_ids_return_the_own_canary_under_concurrency() {
    let names = ["acme", "globex", "initech"];
    let pg = PostgresFleet::with_tenants(&names);
    let tokens: Vec<String> = names.iter().map(|name| pg.fleet.token(name, "writer")).collect();
    let served = Served::start(pg.fleet.dir());
    for (name, token) in names.iter().zip(&tokens) {
        let api = Api::new(&served.data_url, token);
        for id in 1..=3 {
            assert_eq!(insert(&api, name, id, &format!("canary-{name}-{id}")).await.status, 200);
        }
    }
    let readers = names.iter().zip(&tokens).flat_map(|reader| std::iter::repeat_n(reader, 3));
    let readers: Vec<_> = readers
        .map(|(name, token)| {
            let (api, name) = (Api::new(&served.data_url, token), (*name).to_owned());
            tokio::spawn(async move {
                for round in 0..40 {
                    let id = 1 + round % 3;
                    let answer = title(&api, &name, id).await.ok();
                    assert_eq!(answer["rows"], json!([[format!("canary-{name}-{id}"), false]]));
                }
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
    let stranger = Api::new(&served.data_url, &tokens[1]);
    let (foreign, unknown) = (title(&stranger, "acme", 1).await, title(&stranger, "nobody", 1).await);
    assert_eq!((foreign.status, unknown.status), (404, 404));
    assert!(!foreign.body.contains("canary"), "{}", foreign.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creating_and_migrating_survive_kills_of_the_control_plane() {
    let pg = PostgresFleet::init();
    let mut served = Served::start(pg.fleet.dir());
    let admin = |served: &Served| Api::new(&served.admin_url, &served.operator_token());
    let names: Vec<Value> = (0..24).map(|n| json!({"name": format!("t{n}")})).collect();
    let asked = json!({"tenants": names, "server": SERVER});
    let created = admin(&served).post("/v1/tenants/batch", &asked).await.ok();
    let operation = created["id"].as_str().unwrap().to_owned();
    for share in [0, 30, 70] {
        reached(&admin(&served), &operation, share).await;
        served.kill();
        served = Served::start(pg.fleet.dir());
    }
    assert_eq!(admin(&served).finished(&operation).await["state"], "succeeded");
    assert_eq!(pg.databases().len(), 24, "no half-made database is left");
    let file = |name: &str, sql: &str| json!({"name": name, "sql": sql});
    let tasks =
        std::fs::read_to_string(fleet_tests::workspace_root().join("migrations/example/postgres/0001_tasks.sql"));
    let files = json!([
        file("postgres/0001_tasks.sql", &tasks.unwrap()),
        file("postgres/0002_once.sql", "create table once (n integer); insert into once values (1);"),
    ]);
    let migrated =
        admin(&served).post("/v1/migrations", &json!({"files": files, "selection": {"all": true}})).await.ok();
    let operation = migrated["id"].as_str().unwrap().to_owned();
    for share in [0, 50] {
        reached(&admin(&served), &operation, share).await;
        served.kill();
        served = Served::start(pg.fleet.dir());
    }
    assert_eq!(admin(&served).finished(&operation).await["state"], "succeeded");
    for database in pg.databases() {
        assert_eq!(pg.cluster.psql(&database, "select count(*) from once"), "1", "{database}");
        assert_eq!(pg.cluster.psql(&database, "select state from _fleet_identity"), "active");
    }
}

/// Waits until an operation has finished `share` percent of its steps.
async fn reached(api: &Api, operation: &str, share: i64) {
    loop {
        let found = api.get(&format!("/v1/operations/{operation}")).await.ok();
        let (done, total) = (found["progress"]["done"].as_i64().unwrap(), found["progress"]["total"].as_i64().unwrap());
        if done * 100 >= total * share || found["finished_at"].is_string() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_under_load_loses_no_acknowledged_write() {
    let pg = PostgresFleet::with_tenants(&["acme"]);
    let token = pg.fleet.token("acme", "writer");
    let served = Served::start(pg.fleet.dir());
    let (next, acknowledged) = (Arc::new(AtomicI64::new(1)), Arc::new(Mutex::new(Vec::new())));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let api = Api::new(&served.data_url, &token);
            tokio::spawn(write_until(api, stopped.clone(), Arc::clone(&next), Arc::clone(&acknowledged)))
        })
        .collect();
    for restart in [false, true, true] {
        let enough = acknowledged.lock().unwrap().len() + 100;
        while acknowledged.lock().unwrap().len() < enough {
            tokio::task::yield_now().await;
        }
        if restart {
            pg.cluster.stop();
            pg.cluster.start_again();
        }
    }
    let enough = acknowledged.lock().unwrap().len() + 50;
    while acknowledged.lock().unwrap().len() < enough {
        tokio::task::yield_now().await;
    }
    stop.send(true).unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    let database = pg.database("acme");
    let found = pg.cluster.psql(&database, "select id from tasks order by id");
    let found: Vec<i64> = found.lines().map(|id| id.parse().unwrap()).collect();
    for id in acknowledged.lock().unwrap().iter() {
        assert!(found.binary_search(id).is_ok(), "the acknowledged write {id} was lost");
    }
}

/// One client: inserts ever new ids and notes those that were acknowledged; anything else must be a clear 503.
async fn write_until(
    api: Api,
    stopped: tokio::sync::watch::Receiver<bool>,
    next: Arc<AtomicI64>,
    acknowledged: Arc<Mutex<Vec<i64>>>,
) {
    while !*stopped.borrow() {
        let id = next.fetch_add(1, Ordering::Relaxed);
        let body = json!({"sql": "insert into tasks (id, title) values ($1, 'w')", "params": [id]});
        let answer = api.send(Method::POST, "/t/acme/query", Some(&body)).await.unwrap();
        match answer.status {
            200 => acknowledged.lock().unwrap().push(id),
            503 => assert!(answer.json()["code"].is_string(), "{}", answer.body),
            other => panic!("{other}: {}", answer.body),
        }
    }
}

#[test]
fn a_database_that_exists_already_is_adopted_as_a_copy() {
    let pg = PostgresFleet::init();
    let source = postgres_fixture::Cluster::start();
    source.psql("postgres", "create database shop owner fleet");
    source
        .psql("shop", "create table orders (id integer primary key, what text); insert into orders values (1, 'tea')");
    source.psql("shop", "grant select on orders to fleet");
    let dsn = pg.dsn_file("shop.dsn", &source.dsn("shop"));
    let adopt = ["tenant", "adopt", "shop", "--dsn-file", &dsn, "-l", "plan=pro"];
    assert!(pg.fleet.ok(&[&adopt[..], &["--dry-run"]].concat()).contains("shop"));
    let tenant = pg.fleet.json(&adopt);
    assert_eq!((&tenant["state"], &tenant["engine"]), (&json!("active"), &json!("postgres")), "{tenant}");
    assert!(pg.fleet.ok(&["query", "select what from orders", "shop"]).contains("tea"));
    assert_eq!(source.psql("shop", "select count(*) from orders"), "1", "the original stays");
    let catalog = std::fs::read(pg.fleet.dir().join("fleet-data/catalog.db")).unwrap();
    let secret = postgres_fixture::PASSWORD.as_bytes();
    assert!(!catalog.windows(secret.len()).any(|window| window == secret), "no password lies in the catalog");
    // A tenant's database is no stranger's.
    let own = pg.dsn_file("own.dsn", &pg.cluster.dsn(&pg.database("shop")));
    let (_, text) = refused(&pg, &["tenant", "adopt", "again", "--dsn-file", &own]);
    assert!(text.contains("wrong_tenant"), "{text}");
}

#[test]
fn a_server_without_room_for_connections_is_told_and_the_work_goes_on_when_there_is_some() {
    let pg = PostgresFleet::with(&Settings { connections_max: 12, ..Settings::default() });
    pg.fleet.ok(&["tenant", "create", "acme", "--server", SERVER]);
    // Others take every connection that a role like ours may have.
    let holders: Vec<_> = (0..9).map(|_| Holder::take(&pg)).collect();
    let (_, text) = refused(&pg, &["query", "select 1", "acme"]);
    assert!(text.contains("server_connections_max"), "{text}");
    drop(holders);
    pg.fleet.ok(&["query", "select 1 as one", "acme"]);
}

/// Somebody else's session, held open until dropped.
struct Holder(std::process::Child);

impl Holder {
    fn take(pg: &PostgresFleet) -> Self {
        use std::io::{BufRead, BufReader, Write};
        let mut psql = std::process::Command::new(postgres_fixture::bin("psql"));
        psql.arg(pg.cluster.dsn("postgres")).args(["-X", "-q", "-A", "-t"]);
        psql.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = psql.spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"select 1;\n").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "1");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
