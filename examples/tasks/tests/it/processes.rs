//! The binary itself.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use postgres_fixture::Cluster;
use serde_json::json;

use crate::running::{Browser, new_browser, sign_up_form};

/// A running binary, which is killed when dropped.
pub(crate) struct TasksProcess {
    pub(crate) child: Child,
    pub(crate) url: String,
}

impl TasksProcess {
    /// Starts the binary on a free port, and waits for its address.
    pub(crate) fn start(data_dir: &Path, cluster: Option<&Cluster>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tasks"));
        command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
        if let Some(cluster) = cluster {
            command.env("TASKS_POSTGRES", cluster.dsn("postgres"));
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("Tasks is at ").expect("the address is printed").to_owned();
        Self { child, url }
    }
}

impl Drop for TasksProcess {
    fn drop(&mut self) {
        // SIGKILL: nothing is finished or closed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn survives_a_kill(cluster: Option<&Cluster>) {
    let dir = tempfile::tempdir().unwrap();
    let first = TasksProcess::start(dir.path(), cluster);
    let mut alice: Browser = new_browser(&first.url);
    let form = sign_up_form("acme", uuid::Uuid::now_v7());
    let answer = alice.post("/api/organisations", &form).await;
    alice.keep_cookie(&answer);
    let added = alice.post("/orgs/acme/api/tasks", &json!({ "title": "remembered" })).await;
    drop(first);
    let second = TasksProcess::start(dir.path(), cluster);
    alice.url.clone_from(&second.url);
    assert_eq!(alice.get("/orgs/acme/api/tasks/1").await.body, added.body);
    let again = alice.post("/api/organisations", &form).await;
    assert_eq!(again.status, 201, "a sign-up goes on after a crash: {}", again.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_serves_the_same_data_again_on_sqlite() {
    survives_a_kill(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_serves_the_same_data_again_on_postgres() {
    survives_a_kill(Some(&Cluster::start())).await;
}

/// A browser keeps its connection open, which must not keep the process.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_stops_the_process_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = TasksProcess::start(dir.path(), None);
    let browser = new_browser(&process.url);
    assert_eq!(browser.get("/").await.status, 200);
    let pid = process.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(process.child.wait().unwrap().success());
    assert!(!dir.path().join("endpoint.json").exists(), "the control plane has withdrawn its address");
}

#[test]
fn what_is_wrong_is_said_before_anything_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let first = TasksProcess::start(dir.path(), None);
    let none = dir.path().join("none").to_string_lossy().into_owned();
    let own = dir.path().to_string_lossy().into_owned();
    let dsn = "postgres://role:hunter2@127.0.0.1:1/db";
    for (flags, said) in [
        (vec!["--data-dir", &own, "--listen", "127.0.0.1:0"], "serves it already"),
        (vec!["--data-dir", &none, "--listen", first.url.trim_start_matches("http://")], "cannot listen"),
        (vec!["--data-dir", &none, "--listen", "127.0.0.1:0", "--postgres", dsn], "PostgreSQL"),
        (vec!["--fleet", "https://localhost:1", "--fleet-token-file", &none], "cannot read the token"),
        (vec!["--fleet", "https://localhost:1", "--postgres", dsn], "cannot be used with"),
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tasks"));
        let mut child = child.args(&flags).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        assert!(!child.wait().unwrap().success(), "{flags:?}");
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(text.contains("error: ") && text.contains(said) && !text.contains("hunter2"), "{flags:?}: {text}");
    }
}
