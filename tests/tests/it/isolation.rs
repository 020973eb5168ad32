//! Tenant A never sees tenant B's data. Every tenant has a row 1, so a status proves nothing: content is compared.

use fleet_tests::{Answer, Api, Fleet, Served};
use serde_json::{Value, json};

const TENANTS: [&str; 4] = ["acme", "globex", "initech", "umbrella"];
const ROWS: i64 = 5;

/// Fills every tenant with the same ids and a value that only it has.
async fn plant(served: &Served, tokens: &[String]) {
    for (tenant, token) in TENANTS.iter().zip(tokens) {
        let api = Api::new(&served.data_url, token);
        for id in 1..=ROWS {
            let body =
                json!({"sql": "insert into tasks (id, title) values (?1, ?2)", "params": [id, canary(tenant, id)]});
            let answer = api.post(&format!("/t/{tenant}/query"), &body).await.ok();
            assert_eq!(answer["rows_affected"], 1);
        }
    }
}

fn canary(tenant: &str, id: i64) -> String {
    format!("canary-{tenant}-{id}")
}

async fn title(api: &Api, tenant: &str, id: i64) -> Answer {
    let body = json!({"sql": "select title from tasks where id = ?1", "params": [id]});
    api.post(&format!("/t/{tenant}/query"), &body).await
}

fn fleet() -> (Fleet, Vec<String>, Served) {
    let fleet = Fleet::with_tenants(&TENANTS);
    let tokens = TENANTS.iter().map(|t| fleet.token(t, "writer")).collect();
    let served = Served::start(fleet.dir());
    (fleet, tokens, served)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn colliding_ids_return_the_own_canary_under_concurrency() {
    let (_fleet, tokens, served) = fleet();
    plant(&served, &tokens).await;
    let mut readers = Vec::new();
    for (tenant, token) in TENANTS.iter().zip(&tokens) {
        for offset in 0..4 {
            let (api, tenant) = (Api::new(&served.data_url, token), (*tenant).to_owned());
            readers.push(tokio::spawn(async move {
                for round in 0..50 {
                    let id = 1 + (round + offset) % ROWS;
                    let answer = title(&api, &tenant, id).await.ok();
                    assert_eq!(
                        answer["rows"],
                        json!([[canary(&tenant, id)]]),
                        "{tenant} read somebody else's row {id}"
                    );
                }
            }));
        }
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test]
async fn a_foreign_tenant_answers_exactly_like_an_unknown_one() {
    let (_fleet, tokens, served) = fleet();
    plant(&served, &tokens).await;
    let acme = Api::new(&served.data_url, &tokens[0]);
    let foreign = title(&acme, "globex", 1).await;
    let unknown = title(&acme, "nobody-is-here", 1).await;
    assert_eq!((foreign.status, unknown.status), (404, 404));
    assert!(!foreign.body.contains("canary"), "{}", foreign.body);
    assert_eq!(comparable(&foreign, "globex"), comparable(&unknown, "nobody-is-here"));
}

/// Status, headers and body without what names the request itself: its id, its path and the date.
fn comparable(answer: &Answer, tenant: &str) -> (u16, Vec<(String, String)>, Value) {
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| !["x-request-id", "date", "content-length"].contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().replace(tenant, "*")))
        .collect();
    headers.sort();
    let mut body = answer.json();
    if let Some(body) = body.as_object_mut() {
        body.remove("request_id");
        body.remove("instance");
    }
    (answer.status, headers, body)
}

#[tokio::test]
async fn a_fleet_query_labels_every_row_with_its_own_tenant() {
    let (fleet, tokens, served) = fleet();
    plant(&served, &tokens).await;
    let lines = fleet.ok(&["query", "select title from tasks where id = 1", "--all", "-o", "jsonl"]);
    let mut found: Vec<(String, String)> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|row| (row["tenant"].as_str().unwrap().to_owned(), row["title"].as_str().unwrap().to_owned()))
        .collect();
    found.sort();
    let expected: Vec<_> = TENANTS.iter().map(|t| ((*t).to_owned(), canary(t, 1))).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_restored_tenant_holds_its_own_canaries_only() {
    let (fleet, tokens, served) = fleet();
    plant(&served, &tokens).await;
    fleet.ok(&["backup", "run", "--all"]);
    let acme = Api::new(&served.data_url, &tokens[0]);
    let deleted = acme.post("/t/acme/query", &json!({"sql": "delete from tasks", "params": []})).await.ok();
    assert_eq!(deleted["rows_affected"], ROWS);
    fleet.ok(&["restore", "run", "acme", "--to", "latest", "--yes"]);
    for id in 1..=ROWS {
        assert_eq!(title(&acme, "acme", id).await.ok()["rows"], json!([[canary("acme", id)]]));
    }
    let rows = title(&Api::new(&served.data_url, &tokens[1]), "globex", 1).await.ok()["rows"].clone();
    assert_eq!(rows, json!([[canary("globex", 1)]]));
}
