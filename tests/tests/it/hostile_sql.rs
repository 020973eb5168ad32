//! SQL of a tenant that would take the whole process with it: the answer is an error, and the process goes on.

use fleet_tests::{Api, Fleet, Served};
use serde_json::{Value, json};

/// `open` again and again, then `core`, then as many `close`.
fn nest(open: &str, core: &str, close: &str, levels: usize) -> String {
    format!("{}{core}{}", open.repeat(levels), close.repeat(levels))
}

/// Texts of some 50 KB that nest.
fn nested() -> Vec<String> {
    let chain: String = (1..1_500).map(|i| format!(",a{i}(x) as (select * from a{})", i - 1)).collect();
    vec![
        nest("select 1 union all select * from (", "select 1", ")", 1_500),
        nest("select * from (", "select 1", ")", 3_000),
        nest("select '(' || /* ) */ (", "select 1", ")", 2_000),
        format!("select {}", nest("case when 1 then ", "1", " end", 2_300)),
        format!("select {}", nest("1 in (select ", "1", ")", 3_500)),
        format!("select {}", nest("abs(", "1", ")", 10_000)),
        nest("with a as (", "select 1", ") select * from a", 1_800),
        format!("with a0(x) as (select 1){chain} select * from a1499"),
        format!("select {}1", "not ".repeat(12_000)),
    ]
}

/// A code that says that the SQL is at fault.
fn refused(problem: &Value) {
    let code = problem["code"].as_str().unwrap_or_default();
    assert!(["sql_too_complex", "sql_invalid"].contains(&code), "{problem}");
}

#[tokio::test]
async fn nested_sql_is_refused_on_every_way_in_and_the_process_lives() {
    let fleet = Fleet::with_tenants(&["acme"]);
    let token = fleet.token("acme", "reader");
    let mut served = Served::start(fleet.dir());
    let (data, admin) = (Api::new(&served.data_url, &token), served.admin());
    for sql in nested() {
        let statement = json!({ "sql": sql });
        for (path, body) in [("query", statement.clone()), ("batch", json!({ "statements": [statement] }))] {
            let answer = data.post(&format!("/t/acme/{path}"), &body).await;
            assert_eq!(answer.status, 400, "{path}: {}", answer.body);
            refused(&answer.json());
        }
        let body = json!({ "sql": sql, "selection": { "all": true }, "reason": "a test" });
        let answer = admin.post("/v1/queries", &body).await;
        let line: Value = serde_json::from_str(answer.body.lines().next().unwrap()).unwrap();
        refused(&line["error"]);
    }
    assert_eq!(data.post("/t/acme/query", &json!({ "sql": "select 1" })).await.status, 200);
    assert_eq!(served.terminate(), Some(0));
}

#[tokio::test]
async fn a_migration_that_nests_fails_and_the_process_lives() {
    let fleet = Fleet::with_tenants(&["acme"]);
    let served = Served::start(fleet.dir());
    let views: String = (1..1_500).map(|i| format!("create view v{i} as select * from v{};\n", i - 1)).collect();
    let views = format!("create view v0 as select 1 as x;\n{views}");
    for (number, sql) in nested().into_iter().chain([views]).enumerate() {
        let folder = fleet.dir().join(format!("m{number}"));
        std::fs::create_dir(&folder).unwrap();
        for entry in std::fs::read_dir(fleet_tests::example_migrations()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        std::fs::write(folder.join("9000_deep.sql"), sql).unwrap();
        let ran = fleet.run(&["migrate", "run", &folder.to_string_lossy(), "--all"]);
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(!ran.status.success() && said.contains("9000"), "{number}: {said}");
        assert_eq!(served.admin().get("/v1/tenants").await.status, 200);
    }
}

/// Steps of SQLite that take about a second of a core or more together, with no look at the clock between them.
fn stuck() -> Value {
    let pattern = format!("%{}{}b", "a".repeat(100), "_".repeat(90));
    json!({ "sql": format!("select {}", ["(?1 like ?2)"; 4].join(" + ")), "params": ["a".repeat(650_000), pattern] })
}

/// Time of a core that each worker of SQLite has used, in clock ticks.
fn worker_ticks(pid: u32) -> Vec<u64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|thread| thread.unwrap().path());
    let stats = threads.map(|thread| std::fs::read_to_string(thread.join("stat")).unwrap_or_default());
    let ticks = |stat: String| stat.rsplit_once(") ").unwrap().1.split(' ').nth(11).unwrap().parse().unwrap();
    stats.filter(|stat| stat.contains("(sqlite-")).map(ticks).collect()
}

fn signal(process: u32, name: &str) {
    assert!(std::process::Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
}

/// Stops the process while as many workers are in their statements, until the deadline of the statements has passed. So
/// the workers are late on a fast machine too.
async fn stop_until_deadline(pid: u32, workers: usize) {
    let started = std::time::Instant::now();
    // Nothing before the statements takes a tenth of a second.
    while worker_ticks(pid).into_iter().filter(|ticks| *ticks >= 10).count() < workers {
        assert!(started.elapsed().as_secs() < 60, "the workers have not begun");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    signal(pid, "-STOP");
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    signal(pid, "-CONT");
}

#[tokio::test(flavor = "multi_thread")]
async fn stuck_workers_are_named_and_do_not_hold_up_the_end() {
    // As many as there are workers, so that each gets stuck.
    let workers = 8.max(4 * std::thread::available_parallelism().unwrap().get());
    let names: Vec<String> = (0..workers).map(|number| format!("t{number}")).collect();
    let fleet = Fleet::with_tenants(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut served = Served::start(fleet.dir());
    let (url, body) = (served.data_url.clone(), stuck());
    // The tokens come first: while the workers are busy, a new token takes long.
    let callers: Vec<_> = names.iter().map(|name| (name, Api::new(&url, &fleet.token(name, "reader")))).collect();
    let asked = |(name, api): &(&String, Api)| {
        let (api, path, body) = (api.clone(), format!("/t/{name}/query"), body.clone());
        tokio::spawn(async move { api.post(&path, &body).await })
    };
    let requests: Vec<_> = callers.iter().flat_map(|caller| [asked(caller), asked(caller)]).collect();
    stop_until_deadline(served.pid(), workers).await;
    for request in requests {
        let answer = request.await.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert_eq!(answer.json()["code"], "deadline_exceeded");
    }
    let ready = served.admin().get("/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.body);
    let checks = ready.json()["checks"].clone();
    let workers = checks.as_array().unwrap().iter().find(|check| check["name"] == "workers").unwrap().clone();
    assert_eq!(workers["ok"], false, "{workers}");
    assert_eq!(served.terminate(), Some(0));
}

#[tokio::test]
async fn the_operator_sets_how_large_values_may_be() {
    let fleet = Fleet::with_tenants(&["acme"]);
    let settings = fleet.dir().join("fleet.toml");
    let large = json!({ "sql": "select length(?1)", "params": ["x".repeat(700_000)] });
    let larger = json!({ "sql": "select length(replace(?1, 'x', 'xyz'))", "params": ["x".repeat(700_000)] });
    for (text, status) in [("", 422), ("value_bytes_max = 3000000", 200)] {
        std::fs::write(&settings, text).unwrap();
        let mut served = Served::start(fleet.dir());
        let data = Api::new(&served.data_url, &fleet.token("acme", "reader"));
        assert_eq!(data.post("/t/acme/query", &large).await.status, 200);
        let answer = data.post("/t/acme/query", &larger).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        served.terminate();
    }
    for text in ["value_bytes_max = 1", "sql_bytes_max = 1000001", "temp_bytes_max = 1", "sqlite_memory_bytes_max = 1"]
    {
        std::fs::write(&settings, text).unwrap();
        let refused = fleet.run(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains("expected a number of bytes from"), "{said}");
    }
}
