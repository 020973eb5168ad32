//! A real process under a small limit of open files: it serves, works and answers within it.

use std::net::TcpStream;

use fleet_tests::{Fleet, Served};
use serde_json::json;

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
