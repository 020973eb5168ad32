//! The nouns of the admin API end to end: releases, migrations, queries, members, status, doctor.

use reqwest::Method;
use serde_json::{Value, json};

use crate::http::site::{Site, send};

#[tokio::test]
async fn a_release_is_stored_planned_and_run() {
    let site = Site::with_tenants(&["acme", "globex"]).await;
    let first =
        json!({ "name": "0001_notes.sql", "sql": "create table notes (id integer primary key, body text) strict;" });
    let second =
        json!({ "name": "0002_done.sql", "sql": "alter table notes add column done integer not null default 0;" });
    let files = json!([first, second]);
    let stored = site.post("/v1/releases", &json!({ "files": files })).await;
    assert_eq!(stored.status, 201, "{stored:?}");
    let release = stored.json();
    assert_eq!((release["head_version"].as_i64(), release["current"].as_bool()), (Some(2), Some(false)));
    let again = site.post("/v1/releases", &json!({ "files": files })).await.ok();
    assert_eq!(again["id"], release["id"], "the same set is the same release");
    let body = json!({ "release": release["id"], "selection": { "all": true } });
    let plan = site.post("/v1/migrations/plan", &body).await.ok();
    assert_eq!((plan["pending"].as_u64(), plan["up_to_date"].as_u64()), (Some(2), Some(0)), "{plan}");
    assert_eq!(plan["by_version"][0]["pending"], json!([2]));
    let started = site.post("/v1/migrations", &body).await;
    assert_eq!(started.status, 202, "{started:?}");
    let done = site.done(started.json()["id"].as_str().unwrap()).await;
    assert_eq!((done["progress"]["total"].as_u64(), done["progress"]["done"].as_u64()), (Some(2), Some(2)), "{done}");
    let status = site.get("/v1/migrations/status").await.ok();
    assert_eq!((status["up_to_date"].as_u64(), status["pending"].as_u64()), (Some(2), Some(0)), "{status}");
    assert_eq!(status["head"]["id"], release["id"], "with all it became the current one");
    let got = site.get(&format!("/v1/releases/{}", release["id"].as_str().unwrap())).await.ok();
    assert_eq!(got["files"], json!(["0001_notes.sql", "0002_done.sql"]));
    for bad in [json!([]), json!([{ "name": "notes.sql", "sql": "x" }]), json!([first, first])] {
        site.post("/v1/releases", &json!({ "files": bad })).await.problem(422, "migration_invalid");
    }
    site.post("/v1/migrations", &json!({ "selection": { "all": true } })).await.problem(422, "invalid");
    site.post("/v1/migrations", &json!({ "release": release["id"], "selection": {} }))
        .await
        .problem(422, "selection_empty");
    site.stop().await;
}

#[tokio::test]
async fn a_release_that_no_database_can_run_is_refused_when_it_is_added() {
    let site = Site::with_tenants(&["acme"]).await;
    let file = |name: &str, sql: &str| json!({ "name": name, "sql": sql });
    let first = file("0001_notes.sql", "create table notes (id integer primary key, body text) strict;");
    let shared = json!([first, file("0002_a.sql", "select 1;\nrollback;"), file("0003_b.sql", "attach 'x' as y;")]);
    let folders = json!([file("sqlite/0002_a.sql", "select 1;"), file("postgres/0002_a.sql", "\\connect x")]);
    for (files, named) in [(&shared, vec!["0002_a.sql", "0003_b.sql"]), (&folders, vec!["postgres/0002_a.sql"])] {
        for dry_run in [true, false] {
            let answer = site.post("/v1/releases", &json!({ "files": files, "dry_run": dry_run })).await;
            let problem = answer.json();
            answer.problem(422, "migration_refused");
            let told: Vec<&str> =
                problem["errors"].as_array().unwrap().iter().filter_map(|error| error["name"].as_str()).collect();
            assert_eq!(told, named, "{problem}");
        }
        let plan = json!({ "files": files, "selection": { "all": true } });
        let has_sqlite = named.len() > 1;
        if has_sqlite {
            site.post("/v1/migrations/plan", &plan).await.problem(422, "migration_refused");
        }
    }
    let odd = json!([file("0002_a.sql", "select 1;"), file("0003.sql", "select 1;"), file("notes.sql", "")]);
    let stored = site.post("/v1/releases", &json!({ "files": odd })).await.json();
    let ignored = [&stored["ignored"][0]["name"], &stored["ignored"][1]["name"], &stored["ignored"][2]];
    assert_eq!(ignored, [&json!("0003.sql"), &json!("notes.sql"), &json!(null)], "{stored}");
    site.stop().await;
}

#[tokio::test]
async fn a_query_asks_every_tenant_and_names_the_ones_that_fail() {
    let site = Site::with_tenants(&["acme", "globex", "initech"]).await;
    let writer = site.tenant_token("globex", "writer").await;
    site.ask("globex", &writer, &json!({ "sql": "update notes set body = '{'" })).await.ok();
    let ask = |sql: &str| {
        let body = json!({ "sql": sql, "selection": { "all": true }, "concurrency": 2, "reason": "a test" });
        send(site.admin(Method::POST, "/v1/queries").json(&body))
    };
    let lines = |text: &str| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    // Only globex's row is no JSON once quoted by the others' canaries.
    let answer = ask("select case when body = '{' then json(body) else body end as b from notes").await;
    assert_eq!((answer.status, answer.headers["content-type"].to_str().unwrap()), (200, "application/x-ndjson"));
    let found = lines(&answer.text);
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!(found[0], json!({ "tenant": "acme", "columns": ["b"], "rows": [["canary of acme"]] }));
    assert_eq!(found[1]["tenant"], "globex");
    assert!(found[1]["error"]["code"].is_string(), "{}", found[1]);
    assert_eq!(found[3], json!({ "summary": { "tenants": 3, "failed": 1, "rows": 2 } }));
    let write = lines(&ask("delete from notes").await.text);
    assert_eq!(write[3]["summary"]["failed"], 3, "{write:?}");
    let events = site.get("/v1/events?limit=1000").await.ok();
    let audited = events["items"].as_array().unwrap().iter().filter(|event| event["kind"] == "query.run").count();
    assert_eq!(audited, 2);
    let empty = json!({ "sql": "select 1", "selection": {} });
    site.post("/v1/queries", &empty).await.problem(422, "selection_empty");
    site.stop().await;
}

#[tokio::test]
async fn members_are_added_changed_and_removed_with_events() {
    let site = Site::with_tenants(&["acme"]).await;
    let path = "/v1/tenants/acme/members";
    let added = site.post(path, &json!({ "principal": "alice@example.com", "role": "reader" })).await;
    assert_eq!(added.status, 201);
    site.post(path, &json!({ "principal": "alice@example.com", "role": "writer", "reason": "promoted" })).await.ok();
    let members = site.get(path).await.ok();
    assert_eq!(members["items"].as_array().unwrap().len(), 1);
    assert_eq!(members["items"][0]["role"], "writer");
    let secret = site.post("/v1/tokens", &json!({ "member": "alice@example.com" })).await.ok()["secret"].clone();
    let rows = site.ask("acme", secret.as_str().unwrap(), &json!({ "sql": "select body from notes" })).await.ok();
    assert_eq!(rows["rows"], json!([["canary of acme"]]));
    let gone = send(site.admin(Method::DELETE, "/v1/tenants/acme/members/alice%40example.com")).await;
    assert_eq!((gone.status, gone.text.as_str()), (204, ""));
    let again = send(site.admin(Method::DELETE, "/v1/tenants/acme/members/alice%40example.com")).await;
    again.problem(404, "not_found");
    for bad in ["", "a\nb", &"x".repeat(257)] {
        site.post(path, &json!({ "principal": bad, "role": "reader" })).await.problem(422, "invalid");
    }
    let events = site.get("/v1/events?tenant=acme&limit=1000").await.ok();
    let kinds: Vec<_> = events["items"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "member.set").count(), 2, "{kinds:?}");
    assert!(kinds.contains(&"member.removed"));
    let reasons: Vec<_> =
        events["items"].as_array().unwrap().iter().filter_map(|e| e["data"]["reason"].as_str()).collect();
    assert_eq!(reasons, ["promoted"]);
    site.stop().await;
}

#[tokio::test]
async fn status_doctor_health_and_metrics_answer() {
    let site = Site::with_tenants(&["acme"]).await;
    let status = site.get("/v1/status").await.ok();
    assert_eq!(status["tenants"]["active"], 1, "{status}");
    assert_eq!(status["schema_versions"], json!([{ "version": 1, "tenants": 1 }]));
    assert_eq!(status["servers"][0]["name"], "local");
    let doctor = site.get("/v1/doctor").await.ok();
    for check in doctor["checks"].as_array().unwrap() {
        assert_ne!(check["status"], "fail", "{check}");
        assert_eq!(check["status"] == "ok", check["next_step"] == "", "{check}");
    }
    let open = |path: &str| send(site.client.get(format!("{}{path}", site.admin)));
    assert_eq!(open("/livez").await.text, "ok");
    assert_eq!(open("/readyz").await.ok()["ready"], true);
    assert_eq!(open("/openapi.json").await.ok()["openapi"], "3.1.0");
    let metrics = open("/metrics").await.text;
    assert!(
        metrics.contains("fleet_http_requests_total{listener=\"data\",method=\"POST\",status=\"200\"}"),
        "{metrics}"
    );
    assert!(!metrics.contains("acme"));
    site.stop().await;
}

#[tokio::test]
async fn servers_are_added_only_where_databases_can_live() {
    let site = Site::start().await;
    let base = site.dir.path().canonicalize().unwrap().join("more");
    let add = |base: &str| json!({ "name": "second", "engine": "sqlite", "base": base });
    site.post("/v1/servers", &add(base.to_str().unwrap())).await.problem(422, "invalid");
    std::fs::create_dir(&base).unwrap();
    for bad in ["relative", "/tmp/../etc", ""] {
        site.post("/v1/servers", &add(bad)).await.problem(422, "invalid");
    }
    let inside = site.app.config.data_dir.join("tenants");
    site.post("/v1/servers", &add(inside.to_str().unwrap())).await.problem(409, "already_exists");
    assert_eq!(site.post("/v1/servers", &add(base.to_str().unwrap())).await.status, 201);
    assert_eq!(site.post("/v1/servers/second/cordon", &json!({})).await.ok()["state"], "cordoned");
    assert_eq!(site.post("/v1/servers/second/uncordon", &json!({})).await.ok()["state"], "active");
    assert_eq!(send(site.admin(Method::DELETE, "/v1/servers/second")).await.status, 200);
    site.get("/v1/servers/second").await.problem(404, "not_found");
    site.stop().await;
}
