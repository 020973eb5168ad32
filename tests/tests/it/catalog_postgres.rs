//! A fleet whose catalog is on Postgres: several control planes, killed and cut off; the way there from one machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use fleet_tests::{Api, Fleet, Served, fleetctl, set_catalog};
use postgres_fixture::{Cluster, PASSWORD, ROLE, Settings};
use serde_json::{Value, json};
use tempfile::TempDir;

/// One machine: a working directory with its own data directory, told by `fleet.toml` where the catalog is.
struct Machine {
    dir: TempDir,
}

impl Machine {
    fn new(dsn: &str) -> Self {
        let machine = Self { dir: TempDir::new().unwrap() };
        machine.set_catalog(dsn);
        machine
    }

    fn set_catalog(&self, dsn: &str) {
        set_catalog(self.dir.path(), dsn);
    }

    fn run(&self, arguments: &str) -> Output {
        fleetctl(self.dir.path()).args(arguments.split_whitespace()).output().unwrap()
    }

    /// stdout of a command that must succeed.
    fn ok(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What a command said that must end with this exit code, without the password in it.
    fn refused(&self, arguments: &str, exit: i32) -> String {
        let output = self.run(arguments);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(exit), "{arguments}: {said}");
        assert!(!said.contains(PASSWORD), "{said}");
        said
    }

    fn key(&self) -> PathBuf {
        self.dir.path().join("fleet-data/fleet.key")
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A server with an empty database for a catalog.
fn database() -> (Cluster, String) {
    let cluster = Cluster::start();
    cluster.psql("postgres", &format!("create database catalog owner {ROLE}"));
    let dsn = cluster.dsn("catalog");
    (cluster, dsn)
}

/// Two machines of one fleet that share a directory for tenants.
fn two_machines(dsn: &str) -> (Machine, Machine, TempDir) {
    let shared = TempDir::new().unwrap();
    let (one, two) = (Machine::new(dsn), Machine::new(dsn));
    one.ok("init");
    one.ok(&format!("server add shared --base {}", shared.path().display()));
    std::fs::create_dir_all(two.key().parent().unwrap()).unwrap();
    std::fs::copy(one.key(), two.key()).unwrap();
    two.ok("init");
    (one, two, shared)
}

fn names(count: usize) -> Vec<Value> {
    (0..count).map(|n| json!({"name": format!("tenant-{n:04}")})).collect()
}

/// Every tenant of the shared directory has exactly one database, and its own: told by the files themselves.
fn databases(shared: &Path) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    // The directory also holds the file that marks it as this fleet's.
    let folders = std::fs::read_dir(shared).unwrap().map(|entry| entry.unwrap().path());
    for folder in folders.filter(|path| path.is_dir()) {
        for file in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == "db") {
                let database = fleet_tests::invariants::open(&file);
                let sql = "select tenant_id || ' ' || state from _fleet_identity";
                *found.entry(database.query_row(sql, [], |row| row.get(0)).unwrap()).or_default() += 1;
            }
        }
    }
    found
}

#[test]
fn a_second_data_directory_joins_with_the_same_key_only() {
    let (_cluster, dsn) = database();
    let (one, two) = (Machine::new(&dsn), Machine::new(&dsn));
    let said = one.refused("tenant list", 5);
    assert!(said.contains("fleetctl init"), "{said}");
    let said = one.run("init");
    assert!(self::said(&said).contains("fleetctl server add"), "{}", self::said(&said));
    assert!(!one.dir.path().join("fleet-data/catalog.db").exists());
    assert_eq!(one.ok("server list -o name"), "", "no server that another machine could not reach");

    let said = two.refused("init", 1);
    assert!(said.contains("wrong_key") && said.contains("copy fleet.key"), "{said}");
    assert!(!two.key().exists(), "no key is made for a catalog that has one");
    std::fs::write(two.key(), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    assert!(two.refused("init", 1).contains("wrong_key"));
    std::fs::copy(one.key(), two.key()).unwrap();
    two.ok("init");
    let base = two.dir.path().join("tenants");
    std::fs::create_dir(&base).unwrap();
    two.ok(&format!("server add disk --base {}", base.display()));
    one.ok("tenant create acme");
    assert_eq!(two.ok("tenant list -o name"), "acme");
    assert!(two.ok("catalog check -o json").contains("\"fleet_id\""));
    let shown = two.ok("config show --origin");
    assert!(shown.contains("catalog.url") && !shown.contains(PASSWORD), "{shown}");
    one.ok("backup run --all");
}

/// A client that reads from one tenant after the other until told to stop; every answer must be a success.
async fn read_until(api: Api, tenants: usize, stopped: tokio::sync::watch::Receiver<bool>) -> usize {
    let mut answered = 0;
    while !*stopped.borrow() {
        let tenant = format!("tenant-{:04}", answered % tenants);
        let answer = api.post(&format!("/t/{tenant}/query"), &json!({"sql": "select 1 as one"})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answered += 1;
    }
    answered
}

/// Live shares of a server's connections, smallest first.
fn shares(catalog: &Cluster) -> Vec<i64> {
    let now = "(extract(epoch from clock_timestamp()) * 1000)::bigint";
    let sql = format!("select amount from leases where kind = 'connections' and until > {now} order by amount");
    catalog.psql("catalog", &sql).lines().map(|amount| amount.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_control_planes_share_a_servers_connections() {
    const TENANTS: usize = 10;
    let (catalog, dsn) = database();
    // 17 for roles like ours; of them 13 for requests, 6 for each process.
    let server = Cluster::with(&Settings { connections_max: 20, ..Settings::default() });
    let (one, two, _shared) = two_machines(&dsn);
    std::fs::write(one.dir.path().join("pg1.dsn"), server.dsn("postgres")).unwrap();
    one.ok("server add pg1 --engine postgres --dsn-file pg1.dsn");
    std::fs::write(one.dir.path().join("names"), (0..TENANTS).map(|n| format!("tenant-{n:04}\n")).collect::<String>())
        .unwrap();
    one.ok("tenant create --from-file names --server pg1");
    let token = one.ok("token create --service --role reader -o name");
    let served = [Served::start(one.dir.path()), Served::start(two.dir.path())];
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let clients: Vec<_> = (0..24)
        .map(|n| Api::new(&served[n % 2].data_url, &token))
        .map(|api| tokio::spawn(read_until(api, TENANTS, stopped.clone())))
        .collect();
    let sessions = "select count(*) from pg_stat_activity where usename like 't\\_%'";
    let mut most = 0_i64;
    loop {
        most = most.max(server.psql("postgres", sessions).parse().unwrap());
        match shares(&catalog).as_slice() {
            [6, 6] => break,
            _ if clients.iter().any(tokio::task::JoinHandle::is_finished) => break,
            _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
    stop.send(true).unwrap();
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    assert_eq!(shares(&catalog), [6, 6]);
    assert!(most <= 17, "{most} sessions of requests at once");
    drop(served);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_of_two_control_planes_leaves_the_other_finishes() {
    let (cluster, dsn) = database();
    let (one, two, shared) = two_machines(&dsn);
    let mut first = Served::start(one.dir.path());
    let second = Served::start(two.dir.path());
    let api = first.admin();
    let submitted = api.post("/v1/tenants/batch", &json!({"tenants": names(200)})).await.ok();
    let operation = submitted["id"].as_str().unwrap().to_owned();
    loop {
        let found = api.get(&format!("/v1/operations/{operation}")).await.ok();
        if found["progress"]["done"].as_i64().unwrap() >= 20 {
            break;
        }
        tokio::task::yield_now().await;
    }
    first.kill();
    let api = second.admin();
    let finished = api.finished(&operation).await;
    assert_eq!(finished["state"], "succeeded", "{finished}");
    assert_eq!(finished["progress"]["done"], 200, "{finished}");
    let found = databases(shared.path());
    assert_eq!(found.len(), 200);
    assert!(found.iter().all(|(identity, files)| identity.ends_with(" active") && *files == 1), "{found:?}");
    assert_eq!(cluster.psql("catalog", "select count(*) from tenants where state = 'active' and op_id is null"), "200");
    let twice = "select count(*) from (select 1 from events where kind = 'tenant.created' group by tenant_id having count(*) > 1) t";
    assert_eq!(cluster.psql("catalog", twice), "0");
    // What one wrote, the other serves: a token, and the tenant's own data.
    let token = api.post("/v1/tokens", &json!({"tenant": "tenant-0007", "role": "writer"})).await.ok();
    let first = Served::start(one.dir.path());
    let data = Api::new(&first.data_url, token["secret"].as_str().unwrap());
    let answer = data.post("/t/tenant-0007/query", &json!({"sql": "select 7 as n"})).await.ok();
    assert_eq!(answer["rows"], json!([[7]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_catalogs_server_stops_nothing_for_long() {
    let (cluster, dsn) = database();
    let (one, _two, shared) = two_machines(&dsn);
    let served = Served::start(one.dir.path());
    let api = served.admin();
    let submitted = api.post("/v1/tenants/batch", &json!({"tenants": names(150)})).await.ok();
    let operation = submitted["id"].as_str().unwrap().to_owned();
    for share in [10, 80] {
        while done(&cluster) < share {
            tokio::task::yield_now().await;
        }
        cluster.stop();
        let answer = api.get("/v1/tenants?limit=1").await;
        assert_eq!(
            (answer.status, answer.json()["code"].clone()),
            (503, json!("catalog_unavailable")),
            "{}",
            answer.body
        );
        assert!(!answer.body.contains(PASSWORD));
        cluster.start_again();
    }
    let finished = api.finished(&operation).await;
    assert_eq!(finished["state"], "succeeded", "{finished}");
    let found = databases(shared.path());
    assert_eq!(found.len(), 150);
    assert!(found.iter().all(|(identity, files)| identity.ends_with(" active") && *files == 1), "{found:?}");
    assert_eq!(api.get("/readyz").await.status, 200);
}

fn done(cluster: &Cluster) -> i64 {
    cluster.psql("catalog", "select count(*) from steps where state = 'succeeded'").parse().unwrap()
}

#[test]
fn each_refusal_of_the_catalogs_server_has_a_code_and_a_way_on() {
    let (cluster, dsn) = database();
    let machine = Machine::new(&dsn);
    machine.ok("init");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (wrong, code, says) in [
        (dsn.replace(PASSWORD, "other"), "catalog_refused", "password"),
        (dsn.replace("/catalog", "/nowhere"), "catalog_refused", "does not exist"),
        (format!("{dsn}?sslmode=require"), "catalog_refused", "TLS"),
        (
            dsn.replace(&format!(":{}/", cluster.port()), &format!(":{closed}/")),
            "catalog_unavailable",
            "cannot be reached",
        ),
    ] {
        machine.set_catalog(&wrong);
        let said = machine.refused("tenant list", 15);
        assert!(said.contains(code) && said.contains(says), "{said}");
        let said = machine.refused("catalog check", 4);
        assert!(said.contains("fail") && said.contains(says), "{said}");
    }
    machine.set_catalog("mysql://somewhere/else");
    assert!(machine.refused("tenant list", 2).contains("postgres://user:password@host"));
    machine.set_catalog(&cluster.dsn("postgres"));
    assert!(machine.refused("init", 1).contains("catalog_missing"), "an empty database is not taken for the fleet's");
}

#[test]
fn too_many_connections_and_tls_that_is_demanded_are_said() {
    let settings = Settings { connections_max: 5, ..Settings::default() };
    let cluster = Cluster::with(&settings);
    cluster.psql("postgres", &format!("create database catalog owner {ROLE} connection limit 0"));
    let machine = Machine::new(&cluster.dsn("catalog"));
    let said = machine.refused("init", 15);
    assert!(said.contains("catalog_unavailable") && said.contains("max_connections"), "{said}");
    let settings = Settings { hba: vec!["hostnossl all all 127.0.0.1/32 reject".to_owned()], ..Settings::default() };
    let cluster = Cluster::with(&settings);
    let machine = Machine::new(&cluster.dsn("postgres"));
    let said = machine.refused("init", 15);
    assert!(said.contains("catalog_refused") && said.contains("sslmode=require"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_moves_from_its_file_to_postgres_and_its_tokens_go_on() {
    let fleet = Fleet::with_tenants(&["acme", "globex"]);
    let token = fleet.token("acme", "writer");
    let (_cluster, dsn) = database();
    std::fs::write(fleet.dir().join("target.url"), &dsn).unwrap();
    let copy = ["catalog", "copy", "--to-url-file", "target.url"];
    let served = Served::start(fleet.dir());
    let output = fleet.run(&copy);
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    drop(served);
    let copied = fleet.json(&copy);
    assert_eq!(copied["rows"]["tenants"], 2);
    let output = fleet.run(&["tenant", "list"]);
    assert!(
        said(&output).contains("catalog_moved") && said(&output).contains("FLEET_CATALOG_URL"),
        "{}",
        said(&output)
    );
    assert!(!output.status.success());
    set_catalog(fleet.dir(), &dsn);
    let served = Served::start(fleet.dir());
    let data = Api::new(&served.data_url, &token);
    let written = data.post("/t/acme/query", &json!({"sql": "insert into tasks (title) values ('moved')"})).await.ok();
    assert_eq!(written["rows_affected"], 1);
    assert_eq!(data.post("/t/globex/query", &json!({"sql": "select 1"})).await.status, 404);
    assert_eq!(fleet.ok(&["tenant", "list", "-o", "name"]), "acme\nglobex");
    fleet.ok(&["tenant", "create", "initech"]);
    drop(served);
    // Undone as catalog.moved says: the file is as it was.
    std::fs::remove_file(fleet.dir().join("fleet.toml")).unwrap();
    std::fs::remove_file(fleet.dir().join("fleet-data/catalog.moved")).unwrap();
    assert_eq!(fleet.ok(&["tenant", "list", "-o", "name"]), "acme\nglobex");
}

/// Both begin on an empty database: one makes the fleet, the other joins it or is told that its key is another one.
#[test]
fn of_two_that_begin_at_once_one_makes_the_fleet() {
    let (_cluster, dsn) = database();
    let machines: Arc<Vec<Machine>> = Arc::new((0..4).map(|_| Machine::new(&dsn)).collect());
    let threads: Vec<_> = (0..machines.len())
        .map(|number| {
            let machines = machines.clone();
            std::thread::spawn(move || machines[number].run("init"))
        })
        .collect();
    let outputs: Vec<Output> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(outputs.iter().filter(|output| output.status.success()).count(), 1);
    for (machine, output) in machines.iter().zip(&outputs) {
        assert_eq!(machine.key().exists(), output.status.success(), "{}", said(output));
        assert!(output.status.success() || said(output).contains("wrong_key"), "{}", said(output));
    }
}

/// Databases of at least some megabytes, so that a move takes a moment.
fn fill(shared: &Path) {
    // The directory also holds the file that marks it as this fleet's.
    let folders = std::fs::read_dir(shared).unwrap().map(|entry| entry.unwrap().path());
    for folder in folders.filter(|path| path.is_dir()) {
        for file in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == "db") {
                let database = fleet_tests::invariants::open(&file);
                let rows = "insert into filling (what) with recursive n(i) as (values (1) union all select i + 1 from n \
                            where i < 4000) select hex(randomblob(500)) from n";
                database.execute(rows, []).unwrap();
            }
        }
    }
}

fn signal(served: &Served, name: &str) {
    let sent = std::process::Command::new("kill").args([name, &served.pid().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Stops the process where it holds no database's write lock: with one, the kernel keeps everybody else out until it goes
/// on, and its step's next worker is told that the database is busy.
fn stop_between_writes(served: &Served) {
    let holds = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(words[..], [_, "POSIX", _, "WRITE", pid, ..] if pid == served.pid().to_string())
    };
    let stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", served.pid())).unwrap();
        stat.rsplit_once(')').unwrap().1.trim_start().starts_with('T')
    };
    loop {
        signal(served, "-STOP");
        while !stopped() {
            std::thread::yield_now();
        }
        if !std::fs::read_to_string("/proc/locks").unwrap().lines().any(holds) {
            return;
        }
        signal(served, "-CONT");
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_slept_past_its_lease_changes_nothing_when_it_wakes() {
    let (_cluster, dsn) = database();
    let (one, two, shared) = two_machines(&dsn);
    let other = TempDir::new().unwrap();
    one.ok(&format!("server add other --base {}", other.path().display()));
    let set = one.dir.path().join("set");
    std::fs::create_dir(&set).unwrap();
    std::fs::write(set.join("0001_filling.sql"), "create table filling (what text not null);").unwrap();
    one.ok("migrate run set --all");
    one.ok("tenant create a b c d e f g h --server shared");
    fill(shared.path());
    let first = Served::start(one.dir.path());
    let body = json!({"selection": {"all": true}, "to": "other", "concurrency": 2});
    let submitted = first.admin().post("/v1/lifecycle/move", &body).await.ok();
    let operation = submitted["id"].as_str().unwrap().to_owned();
    let api = first.admin();
    while api.get(&format!("/v1/operations/{operation}")).await.ok()["progress"]["done"] == json!(0) {
        tokio::task::yield_now().await;
    }
    stop_between_writes(&first);
    let second = Served::start(two.dir.path());
    let ended = second.admin().finished(&operation).await;
    assert_eq!((&ended["state"], &ended["progress"]["done"]), (&json!("succeeded"), &json!(8)), "{ended}");
    signal(&first, "-CONT");
    // It goes on where it was: what it holds is another's by now, and what it reports is not taken.
    let token = second.admin().post("/v1/tokens", &json!({"tenant": "a", "role": "writer"})).await.ok();
    for served in [&first, &second] {
        let data = Api::new(&served.data_url, token["secret"].as_str().unwrap());
        let insert = json!({"sql": "insert into filling (what) values ('after')"});
        assert_eq!(data.post("/t/a/query", &insert).await.status, 200);
    }
    let count = json!({"sql": "select count(*) from filling where what = 'after'"});
    let data = Api::new(&second.data_url, token["secret"].as_str().unwrap());
    assert_eq!(data.post("/t/a/query", &count).await.ok()["rows"], json!([[2]]));
    assert_eq!(first.admin().get(&format!("/v1/operations/{operation}")).await.ok()["state"], "succeeded");
    drop((first, second));
    let active = |root: &Path| databases(root).keys().filter(|identity| identity.ends_with(" active")).count();
    let all = [databases(shared.path()), databases(other.path())];
    assert_eq!((active(shared.path()), active(other.path())), (0, 8), "each is active in one place: {all:#?}");
}

/// The change and its remembered answer are one transaction here as well; the answer outlasts a kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_and_its_remembered_answer_are_there_together_or_not_at_all() {
    let (cluster, dsn) = database();
    let machine = Machine::new(&dsn);
    machine.ok("init");
    let mut served = Served::start(machine.dir.path());
    let mint = async |served: &Served| {
        let request = reqwest::Client::new().post(format!("{}/v1/tokens", served.admin_url));
        let request = request.bearer_auth(served.operator_token()).header("idempotency-key", "key");
        let answer = request.json(&json!({"operator": "viewer"})).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let tokens = || cluster.psql("catalog", "select count(*) from tokens").parse::<i64>().unwrap();
    let before = tokens();
    cluster.psql("catalog", "alter table idempotency add constraint no_answers check (status is null) not valid");
    let (status, answer) = mint(&served).await;
    assert!(status >= 400 && tokens() == before, "{status} {answer}");
    cluster.psql("catalog", "alter table idempotency drop constraint no_answers");
    let made = mint(&served).await;
    assert_eq!((made.0, tokens()), (201, before + 1), "{made:?}");
    served.kill();
    let served = Served::start(machine.dir.path());
    assert_eq!((mint(&served).await, tokens()), (made, before + 1));
}
