//! `fleetctl webhook` as an operator types it, with a serving process that is stopped and killed, a real receiver, and
//! the reference implementation of Standard Webhooks as the judge of signatures.

use std::io::Write as _;
use std::process::{Command, Stdio};

use fleet_tests::{Fleet, Served, workspace_root};
use serde_json::{Value, json};

#[expect(dead_code, reason = "other tests use all of its replies")]
#[path = "../../../control-plane/tests/it/webhook_sink.rs"]
mod webhook_sink;

use webhook_sink::{Received, SinkReply, WebhookSink};

const VERIFY: &str = "import json, sys
from standardwebhooks import Webhook
got = json.load(sys.stdin)
Webhook(got['secret']).verify(got['text'], got['headers'])";

/// Whether the library of the format accepts a message.
fn is_authentic(secret: &str, received: &Received) -> bool {
    let mut python = Command::new(workspace_root().join("target/tools/s3/bin/python"));
    let started = python.args(["-c", VERIFY]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut python = started.expect("tests/tools/install comes first");
    let input = json!({ "secret": secret, "text": received.text, "headers": received.headers });
    python.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    python.wait().unwrap().success()
}

fn seqs(received: &[Received]) -> Vec<i64> {
    received.iter().map(Received::seq).collect()
}

/// The numbers of all events after this one.
fn events_after(fleet: &Fleet, after: i64) -> Vec<i64> {
    let listed = fleet.json(&["events", "--limit", "1000"]);
    let mut all: Vec<i64> = listed["items"].as_array().unwrap().iter().map(|e| e["seq"].as_i64().unwrap()).collect();
    all.sort_unstable();
    all.retain(|seq| *seq > after);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_repeats_nothing_and_a_killed_one_loses_nothing() {
    let fleet = Fleet::init();
    let mut sink = WebhookSink::start(&[]).await;
    let mut served = Served::start(fleet.dir());
    let added = fleet.json(&["webhook", "add", &sink.url(), "--allow-private"]);
    let secret = added["secret"].as_str().unwrap();
    let first = sink.next().await;
    assert_eq!(first.json()["type"], "webhook.added");
    assert!(is_authentic(secret, &first));
    let forged = Received { text: first.text.replace("webhook.added", "webhook.other"), ..first.clone() };
    assert!(!is_authentic(secret, &forged));
    assert!(!is_authentic("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &first));

    fleet.ok(&["tenant", "create", "acme", "globex", "initech"]);
    assert_eq!(served.terminate(), Some(0));
    let mut served = Served::start(fleet.dir());
    let expected = events_after(&fleet, first.seq());
    let mut received = Vec::new();
    while received.len() < expected.len() {
        received.push(sink.next().await);
    }
    assert_eq!(seqs(&received), expected);
    assert!(received.iter().all(|one| is_authentic(secret, one)));

    sink.reply(&[SinkReply::Never]);
    fleet.ok(&["tenant", "create", "umbrella"]);
    let unanswered = sink.next().await;
    served.kill();
    let _served = Served::start(fleet.dir());
    let expected = events_after(&fleet, *seqs(&received).last().unwrap());
    let mut again = Vec::new();
    while again.len() < expected.len() {
        again.push(sink.next().await);
    }
    assert_eq!((unanswered.seq(), seqs(&again)), (expected[0], expected));
    assert_eq!(unanswered.message_id(), again[0].message_id());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_adds_tests_reads_pauses_and_removes_a_webhook() {
    let fleet = Fleet::init();
    let mut sink = WebhookSink::start(&[SinkReply::Status(204), SinkReply::Status(500)]).await;
    let add = ["webhook", "add", &sink.url(), "--allow-private", "--kind", "tenant.created"];
    let added = fleet.ok(&add);
    assert!(added.contains("whsec_"), "{added}");
    let id = fleet.ok(&["webhook", "list", "-o", "name"]);
    assert!(!fleet.ok(&["webhook", "list", "-o", "json"]).contains("whsec_"));
    assert!(fleet.ok(&["webhook", "test", &id]).contains("delivered"));
    assert_eq!(sink.next().await.json()["type"], "webhook.test");
    let failed = fleet.run(&["webhook", "test", &id, "-o", "json"]);
    assert_eq!(failed.status.code(), Some(1));
    let printed: Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!((&printed["status"], &printed["result"]), (&json!(500), &json!("failed")));
    let log = fleet.json(&["webhook", "log", &id]);
    assert_eq!((log["items"].as_array().unwrap().len(), &log["items"][0]["status"]), (2, &json!(500)));
    fleet.ok(&["webhook", "pause", &id]);
    assert_eq!(fleet.json(&["webhook", "list"])["items"][0]["state"], "paused");
    fleet.ok(&["webhook", "resume", &id]);
    fleet.ok(&["webhook", "remove", &id]);
    assert_eq!(fleet.run(&["webhook", "log", &id]).status.code(), Some(5));
    for (args, code) in [
        (vec!["webhook", "add", "http://127.0.0.1:9000/"], 2),
        (vec!["webhook", "add", "https://169.254.169.254/", "--allow-private"], 2),
        (vec!["webhook", "add", "https://receiver.example/", "--kind", "tenant.exploded"], 2),
        (vec!["webhook", "add", "https://receiver.example/", "--tenant", "nobody"], 5),
    ] {
        assert_eq!(fleet.run(&args).status.code(), Some(code), "{args:?}");
    }
}
