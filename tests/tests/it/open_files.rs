//! A real process under a small limit of open files: it serves, works and answers within it.

use std::net::TcpStream;
use std::process::Command;

use fleet_tests::{Fleet, Served};
use serde_json::json;

/// Sets the soft limit of open files of a running process.
fn limit_files(of: &Served, limit: u32) {
    let pid = of.pid().to_string();
    let done = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}:")]).status();
    assert!(done.unwrap().success());
}

/// The file descriptors that a process holds.
fn held(of: &Served) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", of.pid())).unwrap().count()
}

fn fleet_of(tenants: usize) -> (Fleet, Vec<String>) {
    let fleet = Fleet::init();
    let names: Vec<String> = (0..tenants).map(|n| format!("t{n:03}")).collect();
    std::fs::write(fleet.dir().join("names.txt"), names.join("\n")).unwrap();
    fleet.ok(&["tenant", "create", "--from-file", "names.txt"]);
    (fleet, names)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_limit_of_open_files_stops_neither_reads_nor_backups_nor_new_connections() {
    let (fleet, names) = fleet_of(150);
    let served = Served::start_under(fleet.dir(), 400);
    let admin = served.admin();
    let everyone = json!({"sql": "select 1", "selection": {"all": true}, "concurrency": 64});
    for _ in 0..2 {
        let answer = admin.post("/v1/queries", &everyone).await.body;
        assert!(
            answer.contains(&format!(r#""tenants":{}"#, names.len())) && answer.contains(r#""failed":0"#),
            "{answer}"
        );
        fleet.ok(&["backup", "run", "--all"]);
        assert!(held(&served) < 400, "{} descriptors are held", held(&served));
    }
    // More idle connections than the data listener may hold: the admin listener has its own part.
    let data = served.data_url.trim_start_matches("http://").to_owned();
    let idle: Vec<_> = (0..200).filter_map(|_| TcpStream::connect(&data).ok()).collect();
    assert_eq!(admin.get("/readyz").await.status, 200);
    assert!(fleet.run(&["scrub"]).status.success());
    drop(idle);
    let answer = admin.post("/v1/queries", &everyone).await.body;
    assert!(answer.contains(r#""failed":0"#), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_free_descriptors_says_so_and_recovers() {
    let (fleet, _) = fleet_of(1);
    let served = Served::start(fleet.dir());
    let admin = served.admin();
    assert_eq!(admin.get("/readyz").await.status, 200);
    let before = u32::try_from(held(&served)).unwrap();
    limit_files(&served, before + 4);
    let refused = admin.get("/readyz").await;
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("open_files"), "{}", refused.body);
    limit_files(&served, before + 400);
    assert_eq!(admin.get("/readyz").await.status, 200);
}
