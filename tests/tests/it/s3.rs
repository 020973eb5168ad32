//! Backups over the real S3 protocol, against a real server on loopback.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use fleet_tests::{Fleet, workspace_root};
use serde_json::json;

/// An S3 server on a free port; ended by its process id when dropped.
struct S3 {
    child: Child,
    endpoint: String,
}

impl S3 {
    fn start() -> Self {
        let server = workspace_root().join("target/tools/s3/bin/moto_server");
        assert!(server.exists(), "{} is not there: run tests/tools/install", server.display());
        let mut child = Command::new(server)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = log.find(|line| line.contains("Running on http://")).expect("the S3 server says where it listens");
        std::thread::spawn(move || log.for_each(drop));
        let endpoint = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        Self { child, endpoint }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn backs_up_to_s3_and_restores_from_it() {
    let s3 = S3::start();
    let created = reqwest::Client::new().put(format!("{}/fleet", s3.endpoint)).send().await.unwrap();
    assert!(created.status().is_success(), "{}", created.status());

    let fleet = Fleet::with_tenants(&["acme"]);
    let config = format!(
        "backup_url = \"s3://fleet/backups\"\n\n[backup_options]\naws_endpoint = \"{}\"\naws_region = \"us-east-1\"\n\
         aws_access_key_id = \"test\"\naws_secret_access_key = \"test\"\naws_allow_http = \"true\"\n",
        s3.endpoint
    );
    std::fs::write(fleet.dir().join("fleet.toml"), config).unwrap();

    fleet.ok(&["backup", "run", "--all"]);
    let listed = fleet.json(&["backup", "list", "acme"]);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    let local = fleet.dir().join("fleet-data/backups");
    assert!(std::fs::read_dir(local).map_or(true, |mut entries| entries.next().is_none()), "nothing is stored locally");
    fleet.ok(&["backup", "verify", "acme"]);
    fleet.ok(&["restore", "run", "acme", "--to", "latest", "--yes"]);
    let tenant = fleet.json(&["tenant", "get", "acme"]);
    assert_eq!(tenant["state"], json!("active"));
}

#[tokio::test]
async fn a_store_that_is_gone_is_named_and_nothing_is_recorded() {
    let s3 = S3::start();
    let endpoint = s3.endpoint.clone();
    drop(s3);
    let fleet = Fleet::with_tenants(&["acme"]);
    let config = format!(
        "backup_url = \"s3://fleet/backups\"\n\n[backup_options]\naws_endpoint = \"{endpoint}\"\naws_region = \"us-east-1\"\n\
         aws_access_key_id = \"test\"\naws_secret_access_key = \"test\"\naws_allow_http = \"true\"\n",
    );
    std::fs::write(fleet.dir().join("fleet.toml"), config).unwrap();
    let output = fleet.run(&["backup", "run", "--all"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("backup_store_unavailable"), "{stderr}");
    assert_eq!(fleet.json(&["backup", "list", "acme"])["items"], json!([]));
}
