//! Full disks under a real process: it says so, serves reads, refuses writes in time, and can be freed by its own
//! commands. Nothing that was acknowledged is lost.

use std::path::Path;

use fleet_tests::{Api, Fleet, Served, SmallDisk, invariants};
use serde_json::{Value, json};

/// 96 MiB: writes are refused below 6, a reserve has 1.5, and it is given up below 0.75.
const DISK: &str = "size=96m";

/// A fleet with a process, and one tenant whose writes are counted.
struct Site {
    fleet: Fleet,
    served: Served,
    token: String,
    acknowledged: u64,
}

impl Site {
    fn start(fleet: Fleet) -> Self {
        let token = fleet.token("culprit", "writer");
        let served = Served::start(fleet.dir());
        Self { fleet, served, token, acknowledged: 0 }
    }

    fn data(&self) -> Api {
        Api::new(&self.served.data_url, &self.token)
    }

    /// Writes until it is refused; the refusal.
    async fn write_until_refused(&mut self) -> (u16, Value, bool) {
        let text = "x".repeat(600_000);
        let sql = json!({"sql": "insert into notes (text) values (?1)", "params": [text]});
        let data = self.data();
        loop {
            let answer = data.post("/t/culprit/query", &sql).await;
            if answer.status != 200 {
                return (answer.status, answer.json(), answer.headers.contains_key("retry-after"));
            }
            self.acknowledged += 1;
            assert!(self.acknowledged < 5_000, "nothing refuses");
        }
    }

    async fn write(&mut self) -> u16 {
        let sql = json!({"sql": "insert into notes (text) values ('small')"});
        let status = self.data().post("/t/culprit/query", &sql).await.status;
        self.acknowledged += u64::from(status == 200);
        status
    }

    async fn count(&self) -> Value {
        let answer = self.data().post("/t/culprit/query", &json!({"sql": "select count(*) from notes"})).await.ok();
        answer["rows"][0][0].clone()
    }

    /// The check `disk_space` of `/readyz`, and whether the process is ready.
    async fn room(&self) -> (bool, String) {
        let answer = Api::anonymous(&self.served.admin_url).get("/readyz").await.json();
        let checks = answer["checks"].as_array().unwrap();
        let room = checks.iter().find(|check| check["name"] == "disk_space").unwrap();
        (answer["ready"].as_bool().unwrap(), room["detail"].as_str().unwrap().to_owned())
    }

    /// Waits for the moment at which the process has seen the disk as it is.
    async fn until_ready(&mut self) {
        for _ in 0..100 {
            if self.write().await == 200 && self.room().await.0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("{:?}", self.room().await);
    }

    fn code(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.fleet.run(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    }

    fn doctor(&self, check: &str) -> (Option<i32>, String) {
        let (code, text) = self.code(&["doctor", "-o", "jsonl"]);
        let line = text.lines().find(|line| line.contains(&format!("\"name\":\"{check}\"")));
        (code, line.unwrap_or_else(|| panic!("{text}")).to_owned())
    }
}

fn fleet_of(names: &[&str]) -> Fleet {
    let fleet = Fleet::init();
    fill(&fleet, names);
    fleet
}

/// A schema with large rows, and these tenants.
fn fill(fleet: &Fleet, names: &[&str]) {
    let set = fleet.dir().join("set");
    std::fs::create_dir(&set).unwrap();
    let sql = "create table notes (id integer primary key, text text not null);";
    std::fs::write(set.join("0001_notes.sql"), sql).unwrap();
    fleet.ok(&["migrate", "run", "set", "--all"]);
    fleet.ok(&[&["tenant", "create"], names].concat());
}

/// What frees room, on a disk without any.
async fn free_through_the_product(site: &mut Site) {
    site.fleet.ok(&["tenant", "read-only", "acme"]);
    site.fleet.ok(&["tenant", "suspend", "culprit"]);
    site.fleet.ok(&["tenant", "resume", "culprit"]);
    assert_eq!(site.count().await, json!(site.acknowledged));
    let (code, text) = site.code(&["tenant", "create", "another"]);
    assert!(code == Some(1) && text.contains("disk_full"), "{code:?} {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_of_everything_is_freed_by_the_product() {
    const NAME: &str = "full_disk::a_disk_that_is_full_of_everything_is_freed_by_the_product";
    let Some(disk) = SmallDisk::mounted(DISK, true, NAME) else { return };
    let mut site = Site::start(fleet_of(&["acme", "culprit"]));
    assert_eq!(site.room().await, (true, String::new()));
    assert!(site.doctor("disk_reserves").1.contains("2 of 2"));

    let (status, problem, retry) = site.write_until_refused().await;
    assert_eq!((status, &problem["code"], retry), (507, &json!("disk_low"), true), "{problem}");
    assert!(problem["next_steps"].as_array().is_some_and(|steps| !steps.is_empty()), "{problem}");
    let (ready, detail) = site.room().await;
    assert!(!ready && detail.contains("local: writes are refused"), "{detail}");
    disk.fill();
    assert_eq!(site.count().await, json!(site.acknowledged));
    assert_eq!(site.write().await, 507);
    free_through_the_product(&mut site).await;
    let (code, line) = site.doctor("disk_reserves");
    assert!(code == Some(4) && line.contains("missing"), "{line}");
    assert!(site.doctor("server local").1.contains("refused"));

    // The final backup has no room. Without it the culprit goes, and with it what filled the disk.
    let (code, text) = site.code(&["tenant", "delete", "culprit", "--yes"]);
    assert!(code == Some(1) && text.contains("disk_full") && text.contains("--no-backup"), "{text}");
    site.fleet.ok(&["tenant", "delete", "culprit", "--no-backup", "--yes"]);
    site.fleet.ok(&["tenant", "undelete", "culprit"]);
    assert_eq!(site.count().await, json!(site.acknowledged));
    site.fleet.ok(&["tenant", "delete", "culprit", "--no-backup", "--yes"]);
    site.fleet.ok(&["tenant", "purge", "culprit", "--yes"]);
    site.fleet.ok(&["tenant", "read-only", "acme", "--off"]);
    until_there_is_room(&site).await;
    site.fleet.ok(&["tenant", "create", "later"]);
    site.fleet.ok(&["backup", "run", "--all"]);
    disk.free();
    let scrubbed = site.code(&["scrub"]);
    assert!(scrubbed.0 == Some(0), "{scrubbed:?}");
}

/// The process lets go of a database a moment after it was purged.
async fn until_there_is_room(site: &Site) {
    for _ in 0..100 {
        if site.room().await.0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the room of a purged database is not free: {:?}", site.room().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_starts_on_a_full_disk_with_the_reserve_and_says_why_not_without() {
    const NAME: &str = "full_disk::a_process_starts_on_a_full_disk_with_the_reserve_and_says_why_not_without";
    let Some(disk) = SmallDisk::mounted(DISK, true, NAME) else { return };
    let mut site = Site::start(fleet_of(&["acme", "culprit"]));
    site.write().await;
    site.served.kill();
    disk.fill();
    site.served = Served::start(site.fleet.dir());
    assert!(!site.room().await.0);
    assert_eq!(site.count().await, json!(site.acknowledged));
    assert_eq!(site.write().await, 507);
    free_through_the_product(&mut site).await;

    site.served.terminate();
    disk.fill();
    for reserve in ["catalog.reserve", "tenants/.fleet-reserve"] {
        let _ = std::fs::remove_dir_all(site.fleet.dir().join("fleet-data").join(reserve));
    }
    disk.fill();
    assert_full_at_start(&site);

    // A reader keeps the catalog's log. The process then fails later, at a file of its own.
    disk.free();
    let reader = invariants::open(&site.fleet.dir().join("fleet-data/catalog.db"));
    reader.query_row("select count(*) from tenants", [], |row| row.get::<_, i64>(0)).unwrap();
    disk.fill();
    assert_full_at_start(&site);
    drop(reader);

    disk.free();
    site.served = Served::start(site.fleet.dir());
    site.until_ready().await;
    assert_eq!(site.count().await, json!(site.acknowledged));
    assert!(site.doctor("disk_reserves").1.contains("2 of 2"));
}

/// A process without a reserve does not start, and says that the disk is full.
fn assert_full_at_start(site: &Site) {
    let (code, text) = site.code(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    assert!(code == Some(1) && text.contains("disk_full") && text.contains("free some space"), "{code:?} {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_tenants_alone_is_freed_and_the_others_go_on() {
    const NAME: &str = "full_disk::a_full_disk_of_tenants_alone_is_freed_and_the_others_go_on";
    let Some(disk) = SmallDisk::mounted(DISK, false, NAME) else { return };
    let mut site = Site::start(on_a_server_of_its_own(disk.path()));
    let (status, problem, _) = site.write_until_refused().await;
    assert_eq!((status, &problem["code"]), (507, &json!("disk_low")), "{problem}");
    disk.fill();
    let (ready, detail) = site.room().await;
    assert!(ready && detail.contains("small: "), "the other server takes writes: {detail}");
    let write = json!({"sql": "insert into notes (text) values ('goes on')"});
    let other = Api::new(&site.served.data_url, &site.fleet.token("acme", "writer"));
    assert_eq!(other.post("/t/acme/query", &write).await.status, 200);
    site.fleet.ok(&["tenant", "suspend", "culprit"]);
    site.fleet.ok(&["tenant", "resume", "culprit"]);
    site.fleet.ok(&["tenant", "read-only", "culprit"]);
    site.fleet.ok(&["tenant", "read-only", "culprit", "--off"]);
    assert_eq!(site.count().await, json!(site.acknowledged));
    let (code, text) = site.code(&["tenant", "create", "another", "--server", "small"]);
    assert!(code == Some(1) && text.contains("disk_full"), "{code:?} {text}");
    site.fleet.ok(&["backup", "run", "culprit"]);
    // Its own database is what fills the disk: it goes where there is room.
    site.fleet.ok(&["tenant", "move", "culprit", "--to", "local"]);
    assert_eq!(site.count().await, json!(site.acknowledged));
    assert_eq!(site.write().await, 200);
    disk.free();
    let scrubbed = site.code(&["scrub"]);
    assert!(scrubbed.0 == Some(0), "{scrubbed:?}");
}

/// A fleet with `acme` on an ordinary disk and `culprit` on the small one.
fn on_a_server_of_its_own(disk: &Path) -> Fleet {
    let fleet = fleet_of(&["acme"]);
    let base = disk.join("base");
    std::fs::create_dir(&base).unwrap();
    fleet.ok(&["server", "add", "small", "--base", &base.to_string_lossy()]);
    fleet.ok(&["tenant", "create", "culprit", "--server", "small"]);
    fleet
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_backups_fails_backups_and_nothing_else() {
    const NAME: &str = "full_disk::a_full_disk_of_backups_fails_backups_and_nothing_else";
    let Some(disk) = SmallDisk::mounted(DISK, false, NAME) else { return };
    let fleet = Fleet::init();
    let url = format!("backup_url = 'file://{}/backups'\n", disk.path().display());
    std::fs::write(fleet.dir().join("fleet.toml"), url).unwrap();
    fill(&fleet, &["acme", "culprit"]);
    let mut site = Site::start(fleet);
    disk.fill();
    let (code, text) = site.code(&["backup", "run", "culprit"]);
    assert!(code == Some(1) && text.contains("disk_full"), "{code:?} {text}");
    assert_eq!(site.fleet.json(&["backup", "list", "culprit"])["items"], json!([]));
    let (code, line) = site.doctor("backup_store");
    assert!(code == Some(4) && line.contains("disk_full"), "{line}");
    assert_eq!(site.write().await, 200);
    assert!(site.room().await.0);
    let (code, text) = site.code(&["tenant", "delete", "acme", "--yes"]);
    assert!(code == Some(1) && text.contains("--no-backup"), "{text}");
    site.fleet.ok(&["tenant", "delete", "acme", "--no-backup", "--yes"]);
    disk.free();
    site.fleet.ok(&["backup", "run", "culprit"]);
    site.fleet.ok(&["restore", "run", "culprit", "--to", "latest", "--yes"]);
    assert_eq!(site.count().await, json!(site.acknowledged));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_inodes_is_full() {
    const NAME: &str = "full_disk::a_disk_without_inodes_is_full";
    let Some(disk) = SmallDisk::mounted("size=96m,nr_inodes=4000", true, NAME) else { return };
    let mut site = Site::start(fleet_of(&["acme", "culprit"]));
    site.write().await;
    disk.fill_inodes();
    let (ready, detail) = site.room().await;
    assert!(!ready && detail.contains("inodes"), "{detail}");
    assert_eq!(site.count().await, json!(site.acknowledged));
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(site.write().await, 507);
    free_through_the_product(&mut site).await;
    site.fleet.ok(&["tenant", "delete", "acme", "--no-backup", "--yes"]);
    site.fleet.ok(&["tenant", "purge", "acme", "--yes"]);
    disk.free();
    site.until_ready().await;
    assert_eq!(site.count().await, json!(site.acknowledged));
}

/// A request of an operator with a key, and its answer.
async fn keyed(served: &Served, path: &str, body: &Value) -> (u16, Value, Option<String>) {
    let request = reqwest::Client::new().post(format!("{}{path}", served.admin_url)).json(body);
    let answer = request.bearer_auth(served.operator_token()).header("idempotency-key", path).send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let retry = headers.get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    (status, answer.json().await.unwrap(), retry)
}

/// Takes what is free, and what the product has set apart.
fn fill_everything(disk: &SmallDisk, fleet: &Fleet) {
    disk.fill();
    for reserve in ["catalog.reserve", "tenants/.fleet-reserve"] {
        let _ = std::fs::remove_dir_all(fleet.dir().join("fleet-data").join(reserve));
        disk.fill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_room_every_answer_says_so_and_a_key_is_free_again() {
    const NAME: &str = "full_disk::without_any_room_every_answer_says_so_and_a_key_is_free_again";
    let Some(disk) = SmallDisk::mounted(DISK, true, NAME) else { return };
    let mut site = Site::start(fleet_of(&["acme", "culprit"]));
    site.write().await;
    // Its log is gone with the process: the next one must make it anew to read at all.
    assert_eq!(site.served.terminate(), Some(0));
    site.served = Served::start(site.fleet.dir());
    fill_everything(&disk, &site.fleet);

    for sql in ["select count(*) from notes", "insert into notes (text) values ('x')"] {
        let answer = site.data().post("/t/culprit/query", &json!({ "sql": sql })).await;
        let code = answer.json()["code"].as_str().unwrap().to_owned();
        assert!(answer.status == 507 && ["disk_full", "disk_low"].contains(&code.as_str()), "{sql}: {answer:?}");
        assert_eq!(answer.headers["retry-after"], "10", "{sql}");
    }
    let posts = [
        ("/v1/tokens", json!({"tenant": "acme", "role": "writer"})),
        ("/v1/tenants", json!({"name": "another"})),
        ("/v1/lifecycle/suspend", json!({"selection": {"names": ["acme"]}})),
        ("/v1/backups", json!({"selection": {"all": true}})),
    ];
    for (path, body) in &posts {
        for _ in 0..2 {
            let (status, problem, retry) = keyed(&site.served, path, body).await;
            assert_eq!((status, &problem["code"]), (507, &json!("disk_full")), "{path}: {problem}");
            assert_eq!(retry.as_deref(), Some("10"), "{path}");
        }
    }
    let admin = site.served.admin();
    for path in ["/v1/tenants", "/v1/status", "/v1/doctor", "/v1/operations"] {
        assert_eq!(admin.get(path).await.status, 200, "{path}");
    }
    for url in [&site.served.admin_url, &site.served.data_url] {
        let answer = Api::anonymous(url).get("/readyz").await;
        let checks = answer.json()["checks"].as_array().cloned().unwrap_or_default();
        let room = checks.iter().find(|check| check["name"] == "disk_space").cloned().unwrap_or_default();
        assert!(answer.status == 503 && checks.len() >= 7 && room["ok"] == false, "{answer:?}");
        assert!(room["detail"].as_str().is_some_and(|text| text.contains("local: ")), "{room}");
    }

    disk.free();
    site.until_ready().await;
    for (path, body) in &posts {
        let (status, answer, _) = keyed(&site.served, path, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
    }
}

/// What a killed process was doing is known from its key only; its successor on the directory frees it.
#[tokio::test]
async fn a_key_of_a_killed_process_is_free_for_its_successor() {
    let fleet = Fleet::init();
    let mut served = Served::start(fleet.dir());
    let body = json!({"name": "acme"});
    let data_dir = fleet.dir().join("fleet-data");
    let endpoint: Value = serde_json::from_slice(&std::fs::read(data_dir.join("endpoint.json")).unwrap()).unwrap();
    let actor = served.admin().get("/v1/tokens").await.ok()["items"][0]["id"].as_str().unwrap().to_owned();
    served.kill();
    let catalog = rusqlite::Connection::open(data_dir.join("catalog.db")).unwrap();
    let sql =
        "insert into idempotency (actor, key, request_hash, created_at, owner, until) values (?1, ?2, 'x', ?3, ?4, ?3)";
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let far = i64::try_from(now).unwrap() + 60_000;
    for owner in [endpoint["owner"].as_str().unwrap(), "another process"] {
        let key = if owner == "another process" { "/v1/releases" } else { "/v1/tenants" };
        catalog.execute(sql, (format!("token:{actor}"), key, far, owner)).unwrap();
    }
    drop(catalog);
    served = Served::start(fleet.dir());
    let (status, answer, _) = keyed(&served, "/v1/tenants", &body).await;
    assert_eq!(status, 202, "{answer}");
    let (status, answer, _) = keyed(&served, "/v1/releases", &json!({})).await;
    assert_eq!((status, &answer["code"]), (422, &json!("idempotency_key_reused")), "another one's stays");
}
