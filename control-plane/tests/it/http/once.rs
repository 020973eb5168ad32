//! A change and the remembered answer of its Idempotency-Key are one transaction: of a process that ends in the middle,
//! both are there, or neither. A trigger that refuses to remember answers shows it for every route that changes at once.

use catalog::idempotency::{self, IdempotencyClaimant, IdempotencyLookup};
use reqwest::Method;
use serde_json::{Value, json};

use crate::http::site::{Answer, Site, send};

/// A route that changes at once, and the event that each change appends.
type Change = (String, Value, &'static str);

fn catalog(site: &Site) -> rusqlite::Connection {
    rusqlite::Connection::open(site.dir.path().join("data/catalog.db")).unwrap()
}

fn count(site: &Site, kind: &str) -> i64 {
    catalog(site).query_row("select count(*) from events where kind = ?1", [kind], |row| row.get(0)).unwrap()
}

async fn keyed(site: &Site, key: &str, path: &str, body: &Value) -> Answer {
    send(site.admin(Method::POST, path).header("idempotency-key", key).json(body)).await
}

fn refuse_answers(site: &Site) {
    let sql = "create trigger refuse_answers before update of status on idempotency when new.status is not null \
               begin select raise(abort, 'the process ends here'); end";
    catalog(site).execute_batch(sql).unwrap();
}

fn take_answers(site: &Site) {
    catalog(site).execute_batch("drop trigger refuse_answers").unwrap();
}

/// Asks while no answer can be remembered, then until it can, then once more.
async fn is_done_once(site: &Site, (path, body, kind): &Change) {
    let before = count(site, kind);
    refuse_answers(site);
    let cut_off = keyed(site, path, path, body).await;
    take_answers(site);
    assert!(cut_off.status >= 500, "{path}: {cut_off:?}");
    assert_eq!(count(site, kind), before, "{path}: it was done, and its answer was lost");
    let done = keyed(site, path, path, body).await;
    assert!(done.status < 300, "{path}: {done:?}");
    assert_eq!(count(site, kind), before + 1, "{path}");
    let again = keyed(site, path, path, body).await;
    assert_eq!((again.status, &again.text), (done.status, &done.text), "{path}");
    assert_eq!(again.headers["idempotency-replayed"], "true", "{path}");
    assert_eq!(count(site, kind), before + 1, "{path}");
}

fn changes(release: &str, base: &str) -> Vec<Change> {
    let files = json!({ "files": [{ "name": "0001_notes.sql", "sql": "create table notes (id integer primary key, body text) strict;" }, { "name": "0002_b.sql", "sql": "create table b (c);" }] });
    let change = |path: &str, body: Value, kind: &'static str| (path.to_owned(), body, kind);
    vec![
        change("/v1/tokens", json!({ "service": true, "role": "reader" }), "token.created"),
        change("/v1/tenants/acme/members", json!({ "principal": "ann", "role": "writer" }), "member.set"),
        change("/v1/servers", json!({ "name": "spare", "engine": "sqlite", "base": base }), "server.added"),
        change("/v1/servers/spare/cordon", json!({}), "server.state_changed"),
        change("/v1/servers/spare/uncordon", json!({}), "server.state_changed"),
        change("/v1/releases", files, "release.stored"),
        change(&format!("/v1/releases/{release}/activate"), json!({}), "release.activated"),
        change("/v1/backups", json!({ "selection": { "all": true } }), "operation.submitted"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_and_its_remembered_answer_are_one_transaction() {
    let site = Site::with_tenants(&["acme"]).await;
    let release = site.get("/v1/releases").await.ok()["items"][0]["id"].as_str().unwrap().to_owned();
    let base = site.dir.path().canonicalize().unwrap().join("spare");
    std::fs::create_dir(&base).unwrap();
    for change in changes(&release, base.to_str().unwrap()) {
        is_done_once(&site, &change).await;
    }
    let moved = base.with_file_name("moved");
    std::fs::rename(&base, &moved).unwrap();
    let entry = json!({ "base": moved });
    is_done_once(&site, &("/v1/servers/spare/entry".to_owned(), entry, "server.entry_changed")).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_on_an_operation_and_its_remembered_answer_are_one_transaction() {
    let site = Site::with_tenants(&["acme"]).await;
    site.app.context.halt_at("worker: phase");
    let op = site.post("/v1/backups", &json!({ "selection": { "all": true } })).await.ok();
    let op = op["id"].as_str().unwrap();
    site.app.context.wait_until_halted().await;
    // Its process ended after the change, and before the whole answer was kept.
    let sql = "create trigger keep_none before update of status on idempotency when old.status is not null \
               begin select raise(abort, 'the process ends here'); end";
    catalog(&site).execute_batch(sql).unwrap();
    let path = format!("/v1/operations/{op}/pause");
    let paused = keyed(&site, "early", &path, &json!({})).await;
    let again = keyed(&site, "early", &path, &json!({})).await;
    assert_eq!(
        (paused.status, again.status, &again.headers["idempotency-replayed"]),
        (200, 200, &"true".parse().unwrap())
    );
    assert_eq!((again.json()["state"].as_str(), count(&site, "operation.paused")), (Some("paused"), 1), "{again:?}");
    catalog(&site).execute_batch("drop trigger keep_none").unwrap();
    site.post(&format!("/v1/operations/{op}/resume"), &json!({})).await.ok();
    for (verb, kind) in [
        ("pause", "operation.paused"),
        ("resume", "operation.resumed"),
        ("retry", "operation.retried"),
        ("cancel", "operation.cancelled"),
        ("abandon", "operation.abandoned"),
    ] {
        is_done_once(&site, &(format!("/v1/operations/{op}/{verb}"), json!({}), kind)).await;
    }
    site.app.context.resume_halted();
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_whose_moves_were_not_submitted_closes_its_server_once() {
    let site = Site::start().await;
    let before = count(&site, "server.state_changed");
    refuse_answers(&site);
    let cut_off = keyed(&site, "drain", "/v1/servers/local/drain", &json!({})).await;
    take_answers(&site);
    assert!(cut_off.status >= 500, "{cut_off:?}");
    assert_eq!(count(&site, "server.state_changed"), before + 1, "no tenant is made there meanwhile");
    let done = keyed(&site, "drain", "/v1/servers/local/drain", &json!({})).await;
    assert_eq!((done.status, count(&site, "server.state_changed")), (202, before + 1), "{done:?}");
    site.stop().await;
}

/// A process that slept past the lease of its key: another one has taken the key over, and only that one's change counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_taken_over_makes_no_change_here() {
    let site = Site::start().await;
    let actor = format!("token:{}", site.get("/v1/tokens").await.ok()["items"][0]["id"].as_str().unwrap());
    // What the other process does between this one's taking of the key and its change.
    let sql = "create trigger taken_over after insert on idempotency when new.owner <> 'other' \
               begin update idempotency set owner = 'other' where actor = new.actor and key = new.key; end";
    catalog(&site).execute_batch(sql).unwrap();
    let body = json!({ "operator": "viewer" });
    keyed(&site, "key", "/v1/tokens", &body).await.problem(409, "idempotency_in_progress");
    assert_eq!(count(&site, "token.created"), 0);
    catalog(&site).execute_batch("drop trigger taken_over").unwrap();
    keyed(&site, "key", "/v1/tokens", &body).await.problem(409, "idempotency_in_progress");
    let mut tx = site.app.catalog.write().await.unwrap();
    let other = IdempotencyClaimant { owner: "other", is_running: true, until: i64::MAX };
    let text = serde_json::to_vec(&body).unwrap();
    let hash = blake3::Hasher::new().update(b"/v1/tokens\0").update(&text).finalize().to_hex();
    let found = idempotency::begin_request(&mut tx, &actor, "key", &hash, other).await.unwrap();
    assert_eq!(found, IdempotencyLookup::Running, "the other one's request goes on");
    drop(tx);
    site.stop().await;
}
