//! No route takes an input that cannot be meant for one that was not given. The inventory is the document: a new route, a
//! new parameter or a new field of a body fails here until the tables below know it.
//!
//! First each route is asked well, which must succeed; then every input is spoilt in every way, one at a time, and must be
//! refused with a code and what helps; then the fleet must be as it was.

use std::collections::BTreeMap;

use catalog::{TenantName, domains};
use reqwest::Method;
use serde_json::{Value, json};

use crate::http::site::{Answer, Site, send};
use crate::http::spoilt::spoilt;

/// A request that is asked well.
#[derive(Debug, Clone)]
pub(crate) struct Good {
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
    /// Whether it succeeds here, changing nothing; else it lacks a Postgres or DNS server, and is only spoilt.
    pub(crate) succeeds: bool,
}

type Routes = BTreeMap<(&'static str, &'static str), Good>;

#[tokio::test]
async fn every_spoilt_input_of_every_route_is_refused() {
    let site = Site::with_tenants(&["acme", "globex", "suspended", "archived", "deleted"]).await;
    let routes = good_requests(&site).await;
    let document: Value = serde_json::from_str(&control_plane::http::openapi::document_json()).unwrap();
    ask_well(&site, &document, &routes).await;
    let before = state(&site).await;
    let (mut tried, mut taken) = (0, Vec::new());
    for ((method, path), good) in &routes {
        let operation = &document["paths"][*path][method.to_lowercase()];
        for (what, bad) in spoilt(&document, operation, good) {
            let answer = ask(&site, method, &bad).await;
            if !is_refused(&answer) || !is_declared(operation, answer.status) {
                taken.push(format!("{method} {path}: {what}: {bad:?}: {answer:?}"));
            }
            tried += 1;
        }
    }
    assert!(taken.is_empty(), "{} of {tried}:\n{}", taken.len(), taken.join("\n"));
    assert!(tried > 1_000, "only {tried} inputs were tried");
    assert_eq!(before, state(&site).await, "a refused request changed something");
    site.stop().await;
}

/// Every route of the document as it is meant.
async fn ask_well(site: &Site, document: &Value, routes: &Routes) {
    let mut documented = 0;
    for (path, item) in document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with("/v1/")) {
        for method in item.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            let good = routes.get(&(method.as_str(), path.as_str()));
            let good = good.unwrap_or_else(|| panic!("{method} {path} is new: say in good_requests how it is asked"));
            if good.succeeds {
                let answer = ask(site, &method, good).await;
                assert!(answer.status < 300, "{method} {path}: {answer:?}");
                let operation = &item[method.to_lowercase()];
                assert!(
                    is_declared(operation, answer.status),
                    "{method} {path}: {} is not in the document",
                    answer.status
                );
            }
            documented += 1;
        }
    }
    assert_eq!(documented, routes.len(), "good_requests knows a route that is gone");
}

/// Whether the document says that this status may come, by itself or by its class.
fn is_declared(operation: &Value, status: u16) -> bool {
    let responses = operation["responses"].as_object().unwrap();
    responses.contains_key(&status.to_string()) || responses.contains_key(&format!("{}XX", status / 100))
}

/// As the caller's slip, with what helps.
fn is_refused(answer: &Answer) -> bool {
    if !(400..500).contains(&answer.status) {
        return false;
    }
    let body = answer.json();
    body["code"].is_string() && !body["next_steps"].as_array().unwrap().is_empty()
}

async fn ask(site: &Site, method: &str, asked: &Good) -> Answer {
    let request = site.admin(Method::from_bytes(method.as_bytes()).unwrap(), &asked.path);
    let request = request.header("accept", "application/json");
    match &asked.body {
        Some(body) => send(request.json(body)).await,
        None => send(request).await,
    }
}

/// What a change would show in.
async fn state(site: &Site) -> Vec<Value> {
    let mut state = Vec::new();
    for list in ["tenants", "servers", "tokens", "operations", "backups", "releases", "events"] {
        state.push(site.get(&format!("/v1/{list}?limit=1000")).await.ok());
    }
    // What a server says of itself changes by itself.
    for server in state[1]["items"].as_array_mut().unwrap() {
        server.as_object_mut().unwrap().retain(|name, _| !name.ends_with("_bytes"));
    }
    state
}

/// How each route is asked so that it succeeds and changes nothing.
async fn good_requests(site: &Site) -> Routes {
    let ids = Ids::of(site).await;
    let mut routes = Routes::new();
    for (template, path) in reads(&ids) {
        routes.insert(("GET", template), Good { path, body: None, succeeds: true });
    }
    for (template, path) in deletions(&ids) {
        routes.insert(("DELETE", template), Good { path: format!("{path}?dry_run=true"), body: None, succeeds: true });
    }
    let plan = Good {
        path: "/v1/plans/free".to_owned(),
        body: Some(planned(json!({ "limits": every_limit() }))),
        succeeds: true,
    };
    routes.insert(("PATCH", "/v1/plans/{plan}"), plan);
    let patch = planned(json!({ "labels": { "plan": "pro" }, "plan": "free" }));
    let patch = Good { path: "/v1/tenants/acme".to_owned(), body: Some(patch), succeeds: true };
    routes.insert(("PATCH", "/v1/tenants/{tenant}"), patch);
    let keep = Good {
        path: "/v1/history".to_owned(),
        body: Some(planned(json!({ "operations_seconds": 864_000, "events_seconds": 864_000 }))),
        succeeds: true,
    };
    routes.insert(("PATCH", "/v1/history"), keep);
    let scrub = Good { path: "/v1/scrub".to_owned(), body: None, succeeds: true };
    routes.insert(("POST", "/v1/scrub"), scrub);
    let test = Good { path: ids.filled("/v1/webhooks/{webhook}/test"), body: None, succeeds: true };
    routes.insert(("POST", "/v1/webhooks/{webhook}/test"), test);
    for (template, body) in [tenants(&ids), fleet(&ids), copies(), verbs()].concat() {
        let verify = "/v1/tenants/{tenant}/domains/{host}/verify";
        // The fleet of this test has no job.
        let jobs = template.contains("/jobs/");
        let succeeds = !jobs && !["/v1/tenants/adopt", "/v1/servers/{server}/entry", verify].contains(&template);
        routes.insert(("POST", template), Good { path: ids.filled(template), body: Some(body), succeeds });
    }
    routes
}

/// What is in the fleet of the test.
struct Ids {
    operation: String,
    release: String,
    backup: String,
    token: String,
    webhook: String,
    paused_webhook: String,
    fleet: String,
    base: String,
}

impl Ids {
    async fn of(site: &Site) -> Self {
        let begun = |answer: Answer| answer.ok()["id"].as_str().unwrap().to_owned();
        let operation = begun(site.post("/v1/backups", &json!({ "selection": { "all": true } })).await);
        site.done(&operation).await;
        // So that there is something to undo.
        let restored = site.post("/v1/restores", &json!({ "tenant": "globex", "to": "latest" })).await;
        site.done(&begun(restored)).await;
        for (verb, tenant) in [("suspend", "suspended"), ("archive", "archived")] {
            let body = json!({ "selection": { "names": [tenant] } });
            site.done(&begun(site.post(&format!("/v1/lifecycle/{verb}"), &body).await)).await;
        }
        let deleted = send(site.admin(Method::DELETE, "/v1/tenants/deleted?no_backup=true")).await;
        site.done(&begun(deleted)).await;
        site.post("/v1/tenants/acme/members", &json!({ "principal": "user-1", "role": "reader" })).await.ok();
        site.post("/v1/tenants/acme/accounts", &json!({ "provider": "crm", "account": "4711" })).await.ok();
        make_domain(site).await;
        site.post("/v1/plans", &json!({ "name": "free", "limits": { "burst": 9, "requests_per_second": 3 } }))
            .await
            .ok();
        let directory = |name: &str| {
            let path = site.dir.path().canonicalize().unwrap().join(name);
            std::fs::create_dir(&path).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let spare = json!({ "name": "spare", "engine": "sqlite", "base": directory("spare") });
        site.post("/v1/servers", &spare).await.ok();
        let webhooks = [make_webhook(site).await, make_webhook(site).await];
        site.post(&format!("/v1/webhooks/{}/pause", webhooks[1]), &json!({})).await.ok();
        let [webhook, paused_webhook] = webhooks;
        let first = |list: Value| list["items"][0]["id"].as_str().unwrap().to_owned();
        Self {
            operation,
            release: first(site.get("/v1/releases").await.ok()),
            backup: first(site.get("/v1/backups").await.ok()),
            token: first(site.get("/v1/tokens").await.ok()),
            webhook,
            paused_webhook,
            fleet: site.post("/v1/scrub", &json!({})).await.ok()["fleet_id"].as_str().unwrap().to_owned(),
            base: directory("new"),
        }
    }

    /// A route's template with things that exist.
    fn filled(&self, template: &str) -> String {
        let server = if template.ends_with("drain") { "spare" } else { "local" };
        let pairs = [
            ("{tenant}", "acme"),
            ("{plan}", "free"),
            ("{server}", server),
            ("{principal}", "user-1"),
            ("{host}", "shop.example"),
            ("{provider}", "crm"),
            ("{account}", "4711"),
            ("{operation}", &self.operation),
            ("{release}", &self.release),
            ("{backup}", &self.backup),
            ("{token}", &self.token),
            ("{webhook}", if template.ends_with("resume") { &self.paused_webhook } else { &self.webhook }),
        ];
        pairs.iter().fold(template.to_owned(), |path, (name, id)| path.replace(name, id))
    }
}

/// A webhook that gets nothing, because the receiver is never there.
async fn make_webhook(site: &Site) -> String {
    let new = json!({ "url": "http://127.0.0.1:1024/", "allow_private": true, "kinds": ["history.changed"] });
    site.post("/v1/webhooks", &new).await.ok()["webhook"]["id"].as_str().unwrap().to_owned()
}

/// An active domain of acme.
async fn make_domain(site: &Site) {
    site.post("/v1/tenants/acme/domains", &json!({ "host": "shop.example" })).await.ok();
    let mut tx = site.app.catalog.write().await.unwrap();
    let host = TenantName::parse_host("shop.example").unwrap();
    let acme = catalog::tenants::by_name(&mut tx, &TenantName::parse_slug("acme").unwrap()).await.unwrap().unwrap();
    let claim = domains::get(&mut tx, acme.id, &host).await.unwrap().unwrap();
    domains::activate_domain(&mut tx, &claim).await.unwrap();
    tx.commit().await.unwrap();
}

fn reads(ids: &Ids) -> Vec<(&'static str, String)> {
    let templates = [
        "/v1/status",
        "/v1/doctor",
        "/v1/isolation",
        "/v1/tenants",
        "/v1/tenants/{tenant}",
        "/v1/tenants/{tenant}/description",
        "/v1/tenants/{tenant}/members",
        "/v1/tenants/{tenant}/domains",
        "/v1/tenants/{tenant}/accounts",
        "/v1/jobs",
        "/v1/tenants/{tenant}/jobs",
        "/v1/plans",
        "/v1/plans/{plan}",
        "/v1/tokens",
        "/v1/servers",
        "/v1/servers/{server}",
        "/v1/servers/{server}/preparation",
        "/v1/releases",
        "/v1/releases/{release}",
        "/v1/migrations/status",
        "/v1/backups",
        "/v1/backups/{backup}",
        "/v1/operations",
        "/v1/operations/{operation}",
        "/v1/operations/{operation}/steps",
        "/v1/operations/{operation}/events",
        "/v1/events",
        "/v1/history",
        "/v1/webhooks",
        "/v1/webhooks/{webhook}/deliveries",
    ];
    let mut all = templates.map(|template| (template, ids.filled(template))).to_vec();
    all.push(("/v1/domains/ask", "/v1/domains/ask?domain=shop.example".to_owned()));
    all
}

fn deletions(ids: &Ids) -> Vec<(&'static str, String)> {
    let templates = [
        "/v1/tenants/{tenant}",
        "/v1/tokens/{token}",
        "/v1/tenants/{tenant}/members/{principal}",
        "/v1/tenants/{tenant}/domains/{host}",
        "/v1/tenants/{tenant}/accounts/{provider}/{account}",
        "/v1/plans/{plan}",
        "/v1/webhooks/{webhook}",
    ];
    let mut all = templates.map(|template| (template, ids.filled(template))).to_vec();
    all.push(("/v1/servers/{server}", "/v1/servers/spare".to_owned()));
    all
}

/// The body, of a dry run.
fn planned(mut body: Value) -> Value {
    body["dry_run"] = json!(true);
    body["reason"] = json!("a test");
    body
}

/// Limits with a value each.
fn every_limit() -> Value {
    json!({
        "requests_per_second": 50, "burst": 100, "concurrency": 20, "statement_ms": 2_000, "rows_max": 1_000,
        "answer_bytes_max": 1_000_000, "storage_bytes_max": 10_000_000, "connections_max": 3,
    })
}

type Bodies = Vec<(&'static str, Value)>;

fn tenants(ids: &Ids) -> Bodies {
    let labels = json!({ "plan": "pro" });
    let dsn = "postgres://user:word@127.0.0.1:1/none";
    vec![
        ("/v1/tenants", planned(json!({ "name": "initech", "labels": labels, "server": "local", "plan": "free" }))),
        ("/v1/tenants/batch", planned(json!({ "tenants": [{ "name": "initech", "labels": labels }] }))),
        ("/v1/tenants/adopt", planned(json!({ "name": "initech", "dsn": dsn, "labels": labels }))),
        ("/v1/tenants/{tenant}/members", planned(json!({ "principal": "user-2", "role": "reader" }))),
        ("/v1/tenants/{tenant}/impersonations", planned(json!({ "member": "user-1" }))),
        ("/v1/tenants/{tenant}/domains", planned(json!({ "host": "new.example" }))),
        ("/v1/tenants/{tenant}/domains/{host}/verify", planned(json!({}))),
        ("/v1/tenants/{tenant}/accounts", planned(json!({ "provider": "crm", "account": "7" }))),
        ("/v1/tenants/{tenant}/jobs/retry", planned(json!({ "all_dead": true }))),
        ("/v1/tenants/{tenant}/jobs/drop", planned(json!({ "job": "0190" }))),
        ("/v1/plans", planned(json!({ "name": "pro", "limits": every_limit() }))),
        ("/v1/tokens", planned(json!({ "service": true, "role": "reader" }))),
        ("/v1/servers", planned(json!({ "name": "new", "engine": "sqlite", "base": ids.base }))),
        ("/v1/servers/{server}/entry", planned(json!({ "dsn": dsn }))),
        ("/v1/servers/{server}/cordon", planned(json!({}))),
        ("/v1/servers/{server}/uncordon", planned(json!({}))),
        ("/v1/servers/{server}/drain", planned(json!({}))),
    ]
}

fn fleet(ids: &Ids) -> Bodies {
    let all = json!({ "all": true });
    let finding = json!({ "kind": "orphan_file", "severity": "warning", "server": "local", "name": "stray" });
    vec![
        ("/v1/releases", planned(json!({ "files": [{ "name": "0001_a.sql", "sql": "create table a (b);" }] }))),
        ("/v1/releases/{release}/activate", planned(json!({}))),
        ("/v1/migrations", planned(json!({ "release": ids.release, "selection": all }))),
        ("/v1/migrations/plan", json!({ "release": ids.release, "selection": all })),
        ("/v1/queries", json!({ "sql": "select 1", "selection": all })),
        ("/v1/scrub/quarantine", planned(json!({ "version": 1, "fleet_id": ids.fleet, "findings": [finding] }))),
        (
            "/v1/webhooks",
            planned(
                json!({ "url": "https://receiver.example/", "kinds": ["tenant.created"], "tenant": "acme", "allow_private": false }),
            ),
        ),
        ("/v1/webhooks/{webhook}/pause", planned(json!({}))),
        ("/v1/webhooks/{webhook}/resume", planned(json!({}))),
        ("/v1/operations/{operation}/pause", planned(json!({}))),
        ("/v1/operations/{operation}/resume", planned(json!({}))),
        ("/v1/operations/{operation}/retry", planned(json!({}))),
        ("/v1/operations/{operation}/cancel", planned(json!({}))),
        ("/v1/operations/{operation}/abandon", planned(json!({}))),
    ]
}

fn copies() -> Bodies {
    let one = json!({ "names": ["acme"] });
    vec![
        ("/v1/backups", planned(json!({ "selection": one }))),
        ("/v1/backups/verify", planned(json!({ "selection": one }))),
        ("/v1/restores", planned(json!({ "tenant": "acme", "to": "latest" }))),
        ("/v1/restores/preview", json!({ "tenant": "acme", "to": "latest" })),
        ("/v1/restores/undo", planned(json!({ "tenant": "globex" }))),
        ("/v1/lifecycle/clone", planned(json!({ "tenant": "acme", "as": "acme-2" }))),
        ("/v1/lifecycle/move", planned(json!({ "selection": one, "to": "spare" }))),
        ("/v1/lifecycle/read-only", planned(json!({ "selection": one, "on": true }))),
        ("/v1/lifecycle/archive", planned(json!({ "selection": one }))),
    ]
}

/// Each on a tenant in the state that it is about.
fn verbs() -> Bodies {
    let verbs = [
        ("/v1/lifecycle/suspend", "acme"),
        ("/v1/lifecycle/settle", "acme"),
        ("/v1/lifecycle/resume", "suspended"),
        ("/v1/lifecycle/unarchive", "archived"),
        ("/v1/lifecycle/undelete", "deleted"),
        ("/v1/lifecycle/purge", "deleted"),
    ];
    verbs.map(|(verb, tenant)| (verb, planned(json!({ "selection": { "names": [tenant] } })))).to_vec()
}
