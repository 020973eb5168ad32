//! A step that ends its process again and again is given up, and the other tenants are served.

use fleet_tests::{Api, Fleet, Served, example_migrations, invariants};
use serde_json::{Value, json};

/// Attempts of one step.
const ATTEMPTS: i64 = 5;

/// Endless where the table has a row, and over at once where it has none.
const ENDLESS: &str = "create table numbers (n integer);\n\
    insert into numbers with recursive c(n) as (select 1 union all select n + 1 from c \
    where n < (select count(*) from marks) * 9000000000000) select max(n) from c;\n";

fn catalog(fleet: &Fleet) -> rusqlite::Connection {
    let db = rusqlite::Connection::open(fleet.dir().join("fleet-data/catalog.db")).unwrap();
    db.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    db
}

/// Waits until the victim's step runs under this claim, and no other step of the operation does.
async fn claimed(fleet: &Fleet, claim: i64) {
    let sql = "select count(*) from steps s join tenants t on t.id = s.tenant_id where s.state = 'running' \
               and t.name = 'victim' and s.lease_epoch >= ?1 and (select count(*) from steps where state = 'running') = 1";
    let db = catalog(fleet);
    while db.query_row(sql, [claim], |row| row.get::<_, i64>(0)).unwrap() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn example_files() -> Vec<Value> {
    let file = |path: std::path::PathBuf| json!({"name": path.file_name().unwrap().to_str().unwrap(), "sql": std::fs::read_to_string(&path).unwrap()});
    std::fs::read_dir(example_migrations()).unwrap().map(|entry| file(entry.unwrap().path())).collect()
}

async fn migrate(api: &Api, files: Value) -> Value {
    api.post("/v1/migrations", &json!({"files": files, "selection": {"all": true}})).await.ok()
}

async fn rows(api: &Api, tenant: &str, sql: &str) -> Value {
    let body = json!({"sql": sql, "selection": {"names": [tenant]}});
    api.post("/v1/queries", &body).await.body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_ends_its_process_five_times_is_given_up_and_the_others_are_served() {
    let fleet = Fleet::with_tenants(&["acme", "globex", "victim"]);
    let marks = json!({"name": "0100_marks.sql", "sql": "create table marks (n integer);\n"});
    let endless = json!({"name": "0101_numbers.sql", "sql": ENDLESS});
    let mut files = example_files();
    let mut served = Served::start(fleet.dir());
    files.push(marks);
    let first = migrate(&served.admin(), Value::from(files.clone())).await;
    served.admin().finished(first["id"].as_str().unwrap()).await;
    let victim = invariants::tenants(fleet.dir()).into_iter().find(|tenant| tenant.name == "victim").unwrap();
    let file = victim.file.unwrap();
    invariants::open(&file).execute("insert into marks values (1)", []).unwrap();
    files.push(endless);
    let operation = migrate(&served.admin(), Value::from(files)).await["id"].as_str().unwrap().to_owned();
    for claim in 1..=ATTEMPTS {
        claimed(&fleet, claim).await;
        served.kill();
        drop(served);
        catalog(&fleet).execute("update steps set lease_until = 0 where state = 'running'", []).unwrap();
        served = Served::start(fleet.dir());
    }
    let ended = served.admin().finished(&operation).await;
    assert_eq!(
        (&ended["state"], &ended["progress"]["done"], &ended["progress"]["failed"]),
        (&json!("partial"), &json!(2), &json!(1)),
        "{ended}"
    );
    let steps = served.admin().get(&format!("/v1/operations/{operation}/steps?state=failed")).await.ok();
    assert_eq!(
        (&steps["items"][0]["tenant"], &steps["items"][0]["error"]["code"]),
        (&json!("victim"), &json!("process_died")),
        "{steps}"
    );
    for (tenant, version) in [("acme", 101), ("globex", 101), ("victim", 100)] {
        let found = served.admin().get(&format!("/v1/tenants/{tenant}")).await.ok();
        assert_eq!(found["schema_version"], version, "{found}");
        let answer = rows(&served.admin(), tenant, "select max(version) from _sqlx_migrations").await;
        assert!(answer.to_string().contains(&version.to_string()), "{answer}");
    }
    served.kill();
}
