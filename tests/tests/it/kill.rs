//! A real process killed with SIGKILL in the middle of its work; another one finishes it, and nothing is lost.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use fleet_tests::{Api, Fleet, Served, example_migrations, invariants};
use reqwest::Method;
use serde_json::{Value, json};

/// Kills are spread over the run: at these shares of the steps done.
const KILL_AT_PERCENT: [i64; 4] = [0, 20, 50, 80];

/// Waits until an operation has finished `share` percent of its steps.
async fn reached(api: &Api, operation: &str, share: i64) {
    loop {
        let found = api.get(&format!("/v1/operations/{operation}")).await.ok();
        let (done, total) = (found["progress"]["done"].as_i64().unwrap(), found["progress"]["total"].as_i64().unwrap());
        if done * 100 >= total * share || found["finished_at"].is_string() {
            return;
        }
        // Asking without a pause would take the processor time that the server needs.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

/// Kills the server at each share of the work, starting it again every time, then lets the operation finish.
async fn finish_through_kills(fleet: &Fleet, mut served: Served, operation: &str) -> (Served, Value) {
    for share in KILL_AT_PERCENT {
        reached(&served.admin(), operation, share).await;
        served.kill();
        drop(served);
        served = Served::start(fleet.dir());
    }
    let finished = served.admin().finished(operation).await;
    (served, finished)
}

fn names(count: usize) -> Vec<Value> {
    (0..count).map(|n| json!({"name": format!("tenant-{n:04}")})).collect()
}

/// Ends the server so that the files can be looked at.
fn stop(mut served: Served) {
    served.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creating_many_tenants_survives_being_killed() {
    let fleet = Fleet::with_tenants(&["first"]);
    let served = Served::start(fleet.dir());
    let submitted = served.admin().post("/v1/tenants/batch", &json!({"tenants": names(400)})).await.ok();
    let operation = submitted["id"].as_str().unwrap().to_owned();
    let (served, finished) = finish_through_kills(&fleet, served, &operation).await;
    assert_eq!(finished["state"], "succeeded", "{finished}");
    stop(served);
    invariants::check(fleet.dir());
    assert_eq!(invariants::tenants(fleet.dir()).iter().filter(|t| t.state == "active").count(), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrating_survives_being_killed_and_applies_every_file_once() {
    let fleet = Fleet::with_tenants(&["first"]);
    let served = Served::start(fleet.dir());
    let created = served.admin().post("/v1/tenants/batch", &json!({"tenants": names(300)})).await.ok();
    served.admin().finished(created["id"].as_str().unwrap()).await;
    let files = counting_migrations(fleet.dir());
    let submitted =
        served.admin().post("/v1/migrations", &json!({"files": files, "selection": {"all": true}})).await.ok();
    let (served, finished) = finish_through_kills(&fleet, served, submitted["id"].as_str().unwrap()).await;
    assert_eq!(finished["state"], "succeeded", "{finished}");
    stop(served);
    invariants::check(fleet.dir());
    for tenant in invariants::tenants(fleet.dir()) {
        let database = invariants::open(&tenant.file.unwrap());
        let applied: i64 = database.query_row("select count(*) from applied_counter", [], |r| r.get(0)).unwrap();
        assert_eq!(applied, 3, "{}: each of the three files ran exactly once", tenant.name);
    }
}

/// The example's files and three more; each of them leaves one row, so that running one twice shows.
fn counting_migrations(_dir: &Path) -> Vec<Value> {
    let mut files: Vec<Value> = std::fs::read_dir(example_migrations())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| json!({"name": path.file_name().unwrap().to_str().unwrap(), "sql": std::fs::read_to_string(&path).unwrap()}))
        .collect();
    for n in 1..=3 {
        let sql = format!(
            "create table if not exists applied_counter (n integer not null);\ninsert into applied_counter values ({n});\n\
             alter table tasks add column extra_{n} text;\ncreate index tasks_extra_{n} on tasks (extra_{n});\n"
        );
        files.push(json!({"name": format!("90{n:02}_count.sql"), "sql": sql}));
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_is_found_exactly_once_after_a_kill() {
    let fleet = Fleet::with_tenants(&["acme"]);
    let token = fleet.token("acme", "writer");
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let next = Arc::new(AtomicI64::new(1));
    for _ in 0..3 {
        let mut served = Served::start(fleet.dir());
        let enough = acknowledged.lock().unwrap().len() + 200;
        let writers: Vec<_> = (0..4)
            .map(|_| {
                tokio::spawn(write_until_gone(
                    served.data_url.clone(),
                    token.clone(),
                    next.clone(),
                    acknowledged.clone(),
                ))
            })
            .collect();
        while acknowledged.lock().unwrap().len() < enough {
            tokio::task::yield_now().await;
        }
        served.kill();
        for writer in writers {
            writer.await.unwrap();
        }
    }
    let file = invariants::tenants(fleet.dir()).into_iter().find(|t| t.name == "acme").unwrap().file.unwrap();
    let database = invariants::open(&file);
    for id in acknowledged.lock().unwrap().iter() {
        let found: i64 = database.query_row("select count(*) from tasks where id = ?1", [id], |r| r.get(0)).unwrap();
        assert_eq!(found, 1, "the acknowledged write {id} was lost");
    }
    invariants::check(fleet.dir());
}

/// One client: inserts ever new ids, notes those that were acknowledged, ends when the server is gone.
async fn write_until_gone(url: String, token: String, next: Arc<AtomicI64>, acknowledged: Arc<Mutex<Vec<i64>>>) {
    let api = Api::new(&url, &token);
    loop {
        let id = next.fetch_add(1, Ordering::Relaxed);
        let body =
            json!({"sql": "insert into tasks (id, title) values (?1, ?2)", "params": [id, format!("write {id}")]});
        match api.send(Method::POST, "/t/acme/query", Some(&body)).await {
            Ok(answer) if answer.status == 200 => acknowledged.lock().unwrap().push(id),
            Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.body),
            Err(_) => return,
        }
    }
}
