//! The document of the data API: its routes, and real requests and answers against its schemas.

use std::io::Write as _;
use std::process::{Command, Stdio};

use control_plane::config::DataPath;
use control_plane::http::openapi::{data_document_json, document_json};
use control_plane::serve::ServeOptions;
use reqwest::Method;
use serde_json::{Map, Value, json};
use tenant_router::jwt::{JwtIssuer, SigningAlgorithms};

use crate::http::site::{Answer, Site, send};

fn document() -> Value {
    serde_json::from_str(&data_document_json(&DataPath::default())).unwrap()
}

#[test]
fn the_document_is_the_one_that_is_kept() {
    let kept = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi-data.json"));
    assert!(
        kept.unwrap_or_default() == data_document_json(&DataPath::default()),
        "the API changed: cargo run -p control-plane --example openapi_data > docs/openapi-data.json"
    );
}

#[tokio::test]
async fn the_listener_serves_what_its_document_says_and_nothing_else() {
    let change = |config: &mut control_plane::Config| config.data_path = DataPath::parse("/orgs/{tenant}").unwrap();
    let site = Site::start_with(ServeOptions::default(), change).await;
    let call = |method: Method, path: &str| {
        let path = path.replace("{tenant}", "acme");
        send(site.client.request(method, format!("{}{path}", site.data)))
    };
    let served = call(Method::GET, "/openapi.json").await;
    assert_eq!(served.text, data_document_json(&DataPath::parse("/orgs/{tenant}").unwrap()));
    let document = served.ok();
    let paths = document["paths"].as_object().unwrap();
    let names: Vec<_> = paths.keys().map(String::as_str).collect();
    let of_tenants = ["/orgs/{tenant}/audit", "/orgs/{tenant}/batch", "/orgs/{tenant}/query"];
    assert_eq!(names, [&["/audit", "/batch", "/livez"], &of_tenants[..], &["/query", "/readyz"]].concat());
    for (path, item) in paths {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
            let answer = call(method.clone(), path).await;
            match item.get(method.as_str().to_lowercase()) {
                None => drop(answer.problem(405, "method_not_allowed")),
                Some(public) if public["security"] == json!([{}]) => assert_eq!(answer.status, 200, "{path}"),
                Some(_) => drop(answer.problem(401, "unauthenticated")),
            }
        }
    }
    let admin: Value = serde_json::from_str(&document_json()).unwrap();
    let others = ["/", "/t/{tenant}/query", "/orgs/{tenant}", "/query/x", "/orgs/{tenant}/query/x", "/v1"];
    let of_admin = admin["paths"].as_object().unwrap().keys().map(String::as_str);
    for path in others.into_iter().chain(of_admin).filter(|path| !paths.contains_key(*path)) {
        let code = if path.starts_with("/v1") { "wrong_listener" } else { "not_found" };
        for method in [Method::GET, Method::POST] {
            call(method, path).await.problem(404, code);
        }
    }
    site.stop().await;
}

/// Requests and their answers, in the form that `check_answers.py` reads.
struct Exchanges(Vec<Value>);

impl Exchanges {
    fn add(&mut self, path: &str, request: &Value, answer: &Answer, status: u16) {
        assert_eq!(answer.status, status, "{path} {request}: {answer:?}");
        let headers = answer.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()));
        self.0.push(json!({
            "method": if request.is_null() { "get" } else { "post" }, "path": path, "request": request,
            "accepted": status == 200, "status": status, "headers": headers.collect::<Map<_, _>>(),
            "body": serde_json::from_str(&answer.text).unwrap_or_else(|_| Value::from(answer.text.as_str())),
        }));
    }

    /// The differences from the document.
    fn differences(&self) -> String {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let mut python = Command::new(format!("{root}/target/tools/s3/bin/python"));
        python.arg(format!("{root}/control-plane/tests/it/http/check_answers.py"));
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run tests/tools/install");
        let input = json!({ "document": document(), "exchanges": self.0 }).to_string();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Pages of the audit log. The reasons of an operator are not shown, except those of impersonations.
async fn add_audit_logs(site: &Site, exchanges: &mut Exchanges, writer: &str) {
    let manager = site.tenant_token("acme", "manager").await;
    site.post("/v1/tenants/acme/members", &json!({ "principal": "ann", "role": "writer", "reason": "new" })).await.ok();
    let audit = async |query: &str, token: &str| {
        send(site.client.get(format!("{}/t/acme/audit{query}", site.data)).bearer_auth(token)).await
    };
    let log = audit("", &manager).await;
    let newest = log.ok()["items"][0].clone();
    assert_eq!((&newest["kind"], &newest["reason"]), (&json!("member.set"), &Value::Null));
    let before = format!("?before={}", newest["seq"]);
    let older = audit(&before, &manager).await;
    assert!(older.ok()["items"].as_array().unwrap().iter().all(|item| item["seq"].as_i64() < newest["seq"].as_i64()));
    for (answer, status) in [(log, 200), (older, 200), (audit("?before=x", &manager).await, 400)] {
        exchanges.add("/t/{tenant}/audit", &Value::Null, &answer, status);
    }
    exchanges.add("/t/{tenant}/audit", &Value::Null, &audit("", writer).await, 403);
}

#[tokio::test]
async fn real_requests_and_answers_have_the_documented_shapes() {
    let site = Site::with_tenants(&["acme", "globex"]).await;
    let (reader, writer) = (site.tenant_token("acme", "reader").await, site.tenant_token("acme", "writer").await);
    let mut exchanges = Exchanges(Vec::new());
    let post = async |path: &str, token: &str, body: &Value| {
        let path = path.replace("{tenant}", "acme");
        send(site.client.post(format!("{}{path}", site.data)).bearer_auth(token).json(body)).await
    };
    let values =
        json!([null, true, 1.5, 7, "a", { "$int": "9007199254740993" }, { "$blob": "AP8K" }, { "$real": "-inf" }]);
    let all = json!({ "sql": "select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8", "params": values });
    let many = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) select i from n";
    for (sent, status) in [
        (all, 200),
        (json!({ "sql": "select body from notes" }), 200),
        (json!({ "sql": "sleect 1" }), 400),
        (json!({ "sql": "select ?1", "params": [] }), 400),
        (json!({ "sql": "attach 'x.db' as x" }), 403),
        (json!({ "sql": "delete from notes" }), 403),
        (json!({ "sql": many }), 422),
        (json!({}), 422),
        (json!({ "sql": 1 }), 422),
        (json!({ "sql": "select 1", "more": 1 }), 422),
        (json!({ "sql": "select ?1", "params": [[1]] }), 422),
        (json!({ "sql": "select ?1", "params": [{ "$int": "x" }] }), 422),
        (json!({ "sql": "select ?1", "params": [{ "$real": "1" }] }), 422),
        (json!({ "sql": "select ?1", "params": [{ "$int": "1", "$blob": "" }] }), 422),
        (json!({ "sql": "x".repeat(3 << 20) }), 413),
    ] {
        for path in ["/t/{tenant}/query", "/query"] {
            exchanges.add(path, &sent, &post(path, &reader, &sent).await, status);
        }
    }
    let insert = |id: u64| json!({ "sql": "insert into notes values (?1, 'x')", "params": [id] });
    for (sent, status) in [
        (json!({ "statements": [insert(2), { "sql": "select * from notes" }] }), 200),
        (json!({ "statements": [insert(3), insert(1)] }), 409),
        (json!({ "statements": [] }), 422),
        (json!({ "statements": vec![json!({ "sql": "select 1" }); 101] }), 422),
        (json!({}), 422),
    ] {
        exchanges.add("/t/{tenant}/batch", &sent, &post("/t/{tenant}/batch", &writer, &sent).await, status);
    }
    add_audit_logs(&site, &mut exchanges, &writer).await;
    let one = json!({ "sql": "select 1" });
    exchanges.add("/t/{tenant}/query", &one, &post("/t/{tenant}/query", "flt_x", &one).await, 401);
    exchanges.add("/t/{tenant}/query", &one, &post("/t/globex/query", &reader, &one).await, 404);
    exchanges.add("/t/{tenant}/query", &one, &post("/t/-a/query", &reader, &one).await, 400);
    let request = |kind: &str, body: &str| {
        let request = site.client.post(format!("{}/query", site.data)).bearer_auth(&reader);
        send(request.header("content-type", kind).body(body.to_owned()))
    };
    exchanges.add("/query", &one, &request("text/plain", "{}").await, 415);
    exchanges.add("/query", &one, &request("application/json", "{").await, 400);
    let header = site.client.post(format!("{}/query", site.data)).bearer_auth(&reader).header("x-tenant", "acme");
    exchanges.add("/query", &one, &send(header.json(&one)).await, 400);
    let suspended = site.tenant_token("globex", "reader").await;
    site.done(
        site.post("/v1/lifecycle/suspend", &json!({ "selection": { "names": ["globex"] } })).await.ok()["id"]
            .as_str()
            .unwrap(),
    )
    .await;
    exchanges.add("/t/{tenant}/query", &one, &post("/t/globex/query", &suspended, &one).await, 403);
    for path in ["/livez", "/readyz"] {
        exchanges.add(path, &Value::Null, &send(site.client.get(format!("{}{path}", site.data))).await, 200);
    }
    assert_eq!(exchanges.differences(), "");
    site.stop().await;
}

#[tokio::test]
async fn a_temporary_refusal_says_when_to_come_again() {
    // Nothing answers at this address.
    let issuer = JwtIssuer::with_jwks("nobody", "tasks", SigningAlgorithms::Rsa, "http://127.0.0.1:1/keys");
    let change = |config: &mut control_plane::Config| config.jwt_issuers = vec![issuer];
    let site = Site::start_with(ServeOptions::default(), change).await;
    let one = json!({ "sql": "select 1" });
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJub2JvZHkifQ.x";
    let answer = send(site.client.post(format!("{}/query", site.data)).bearer_auth(token).json(&one)).await;
    answer.problem(503, "keys_unavailable");
    assert!(answer.headers.contains_key("retry-after"));
    let mut exchanges = Exchanges(Vec::new());
    exchanges.add("/query", &one, &answer, 503);
    assert_eq!(exchanges.differences(), "");
    // The comparison finds differences.
    for (place, wrong, told) in [
        ("/status", json!(418), "the status is not documented"),
        ("/headers/content-type", json!("text/html"), "the media type is not documented"),
        ("/body/code", json!("not_found"), "'not_found' is not one of"),
        ("/request/sql", json!(1), "is not of type 'string'"),
    ] {
        let mut changed = exchanges.0[0].clone();
        changed["accepted"] = true.into();
        *changed.pointer_mut(place).unwrap() = wrong;
        let found = Exchanges(vec![changed]).differences();
        assert!(found.contains(told) && found.lines().count() == 1, "{place}: {found}");
    }
    site.stop().await;
}
