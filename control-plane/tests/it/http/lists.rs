//! Pages, cursors, idempotency keys, ETags.

use catalog::idempotency::{ClaimedIdempotencyKey, IdempotencyClaimant};
use std::collections::BTreeSet;

use control_plane::operations::{OperationParams, create};
use control_plane::runner::submit::{AuditCaller, Submission, SubmitMode, SubmitOutcome};
use reqwest::Method;
use serde_json::{Value, json};

use crate::http::site::{Site, send};

#[tokio::test]
async fn pages_hold_everything_once_and_cursors_serve_one_caller_and_one_list() {
    let site = Site::start().await;
    let names: Vec<_> =
        (0..25).map(|n| json!({ "name": format!("t{n:02}"), "labels": { "half": (n % 2).to_string() } })).collect();
    let made = site.post("/v1/tenants/batch", &json!({ "tenants": names })).await;
    assert_eq!(made.status, 202, "{made:?}");
    site.done(made.json()["id"].as_str().unwrap()).await;
    let (mut seen, mut path) = (BTreeSet::new(), "/v1/tenants?limit=10".to_owned());
    let mut pages = 0;
    loop {
        let page = site.get(&path).await.ok();
        for item in page["items"].as_array().unwrap() {
            assert!(seen.insert(item["name"].as_str().unwrap().to_owned()), "{item} twice");
        }
        pages += 1;
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/tenants?limit=10&cursor={cursor}");
    }
    assert_eq!((seen.len(), pages), (25, 3));
    let cursor = site.get("/v1/tenants?limit=10").await.ok()["next_cursor"].as_str().unwrap().to_owned();
    assert!(!cursor.contains("tnt_"));
    let mut tampered = cursor.clone().into_bytes();
    let middle = tampered.len() / 2;
    tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).unwrap();
    for bad in [tampered.as_str(), &cursor[..cursor.len() - 2], "AAAA", "%00", &"x".repeat(5_000)] {
        site.get(&format!("/v1/tenants?limit=10&cursor={bad}")).await.problem(400, "invalid_cursor");
    }
    site.get(&format!("/v1/tenants?labels=half=1&cursor={cursor}")).await.problem(400, "invalid_cursor");
    site.get(&format!("/v1/operations?cursor={cursor}")).await.problem(400, "invalid_cursor");
    let (_, other) = site.operator("viewer").await;
    let foreign = site.client.get(format!("{}/v1/tenants?limit=10&cursor={cursor}", site.admin)).bearer_auth(other);
    send(foreign).await.problem(400, "invalid_cursor");
    let half = site.get("/v1/tenants?labels=half=1&limit=1000").await.ok();
    assert_eq!((half["items"].as_array().unwrap().len(), &half["next_cursor"]), (12, &Value::Null));
    site.stop().await;
}

#[tokio::test]
async fn a_key_is_done_once() {
    let site = Site::start().await;
    let post = |key: &str, label: &str| {
        let body = json!({ "operator": "viewer", "label": label });
        site.admin(Method::POST, "/v1/tokens").header("idempotency-key", key).json(&body)
    };
    let first = send(post("key-1", "a")).await;
    let again = send(post("key-1", "a")).await;
    assert_eq!((first.status, &first.text), (201, &again.text));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    send(post("key-1", "b")).await.problem(422, "idempotency_key_reused");
    send(post(&"x".repeat(300), "a")).await.problem(400, "invalid_header");
    assert_ne!(send(post("key-2", "a")).await.text, first.text);
    let refused = |name: &str| {
        site.admin(Method::POST, "/v1/tenants").header("idempotency-key", "key-3").json(&json!({ "name": name }))
    };
    send(refused("..")).await.problem(422, "invalid");
    let made = send(refused("acme")).await;
    assert_eq!(made.status, 202, "a refusal does not use up its key: {made:?}");
    let replayed = send(refused("acme")).await;
    assert_eq!((replayed.status, replayed.text), (202, made.text));
    assert_eq!(replayed.headers["location"], made.headers["location"]);
    let tokens = site.get("/v1/tokens").await.ok()["items"].as_array().unwrap().len();
    assert_eq!(tokens, 3, "the first operator's, key-1's, key-2's");
    // The answer with the secret rests sealed.
    let secret = first.json()["secret"].as_str().unwrap().to_owned();
    for file in ["catalog.db", "catalog.db-wal"] {
        let bytes = std::fs::read(site.app.config.data_dir.join(file)).unwrap_or_default();
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{file} holds the secret");
    }
    site.stop().await;
}

#[tokio::test]
async fn keys_sent_at_once_are_done_once() {
    let site = Site::start().await;
    let body = json!({ "operator": "viewer" });
    let post = || send(site.admin(Method::POST, "/v1/tokens").header("idempotency-key", "race").json(&body));
    let answers = futures_util::future::join_all((0..8).map(|_| post())).await;
    let made: BTreeSet<_> = answers.iter().filter(|a| a.status == 201).map(|a| a.text.clone()).collect();
    assert_eq!(made.len(), 1);
    for other in answers.iter().filter(|answer| answer.status != 201) {
        other.problem(409, "idempotency_in_progress");
    }
    assert_eq!(site.get("/v1/tokens").await.ok()["items"].as_array().unwrap().len(), 2);
    site.stop().await;
}

#[tokio::test]
async fn a_stale_change_is_refused() {
    let site = Site::with_tenants(&["acme"]).await;
    let read = site.get("/v1/tenants/acme").await;
    let tag = read.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(tag, format!("\"g{}\"", read.json()["generation"]));
    let patch = |tag: &str| {
        let body = json!({ "labels": { "plan": "pro" } });
        site.admin(Method::PATCH, "/v1/tenants/acme").header("if-match", tag).json(&body)
    };
    send(patch("\"g0\"")).await.problem(412, "precondition_failed");
    assert_eq!(send(patch(&tag)).await.ok()["labels"], json!({ "plan": "pro" }));
    let removed = site.admin(Method::PATCH, "/v1/tenants/acme").json(&json!({ "labels": { "plan": null } }));
    assert_eq!(send(removed).await.ok()["labels"], json!({}));
    site.stop().await;
}

#[tokio::test]
async fn a_key_whose_process_ended_before_it_answered_does_not_do_it_again() {
    let site = Site::start().await;
    let first = send(site.admin(Method::POST, "/v1/tenants").json(&json!({ "name": "first" }))).await.ok();
    let op = first["operation"]["id"].as_str().unwrap().parse().unwrap();
    let mut tx = site.app.catalog.write().await.unwrap();
    let actor = catalog::operations::get(&mut tx, op).await.unwrap().unwrap().requested_by;
    // What the dead process did: it took the key and wrote the operation.
    let body = json!({ "name": "acme" });
    let text = serde_json::to_vec(&body).unwrap();
    let hash = blake3::Hasher::new().update(b"/v1/tenants\0").update(&text).finalize().to_hex();
    let taker = IdempotencyClaimant { owner: "gone", is_running: true, until: i64::MAX };
    catalog::idempotency::begin_request(&mut tx, &actor, "key", &hash, taker).await.unwrap();
    tx.commit().await.unwrap();
    let tenants = vec![create::TenantSpec { name: "acme".to_owned(), labels: Default::default() }];
    let params = OperationParams::Create(create::CreateParams { tenants, ..Default::default() });
    let taken = ClaimedIdempotencyKey { key: "key".to_owned(), owner: "gone".to_owned() };
    let caller = AuditCaller { actor, request_id: None, once: Some(taken) };
    let submitted = site
        .app
        .runner
        .submit_operation(&caller, Submission::new(params, Default::default()), SubmitMode::Run)
        .await
        .unwrap();
    let SubmitOutcome::Started(record) = submitted else { panic!("only planned") };
    let again = send(site.admin(Method::POST, "/v1/tenants").header("idempotency-key", "key").json(&body)).await;
    assert_eq!((again.status, &again.headers["idempotency-replayed"]), (202, &"true".parse().unwrap()));
    assert_eq!(again.headers["location"], format!("/v1/operations/{}", record.id));
    let again = again.json();
    assert_eq!((&again["tenant"]["name"], &again["operation"]["id"]), (&json!("acme"), &json!(record.id)));
}
