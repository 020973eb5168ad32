//! Background jobs of tenants over the API, and what operations on a tenant do to them.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenant_router::{Job, JobError, JobOptions, JobRun, JobSchedule, RequestView, Tenant, Write};

use crate::http::site::{Answer, Site, send};

#[derive(Serialize, Deserialize)]
struct AddNote {
    text: String,
}

impl Job for AddNote {
    const KIND: &'static str = "add-note";
}

async fn add_note(run: JobRun<AddNote>) -> Result<(), JobError> {
    let mut tx = run.tenant().write();
    tx.execute("insert into notes (body) values ($1)", [run.job().text.as_str()]).await?;
    run.finish(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

async fn open(site: &Site, name: &str) -> Tenant<Write> {
    let token = site.tenant_token(name, "writer").await;
    site.app.router.catch_up().await.unwrap();
    let path = format!("/t/{name}/query");
    let request = RequestView { path: &path, credential: Some(&token), ..RequestView::default() };
    site.app.router.open(&request).await.unwrap()
}

async fn enqueue(site: &Site, name: &str, text: &str) {
    open(site, name).await.enqueue(&AddNote { text: text.to_owned() }, JobOptions::default()).await.unwrap();
}

async fn run_due(site: &Site) {
    site.app.router.catch_up().await.unwrap();
    site.app.router.job_runner().handle(add_note).run_due().await.unwrap();
}

async fn notes(site: &Site, name: &str) -> Vec<String> {
    let sql = "select body from notes where id > 1 order by id";
    open(site, name).await.query_as(sql, ()).fetch_all().await.unwrap()
}

/// Repeats a note in January of each year.
async fn schedule(site: &Site, name: &str) {
    let tenant = open(site, name).await;
    let mut tx = tenant.write();
    let yearly = JobSchedule::parse("0 3 1 1 *").unwrap();
    tx.schedule("yearly", &yearly, &AddNote { text: "yearly".to_owned() }).await.unwrap();
    tx.commit().await.unwrap();
}

/// State and reason of each job.
async fn jobs(site: &Site, name: &str) -> Vec<(String, Value)> {
    let page = site.get(&format!("/v1/tenants/{name}/jobs")).await.ok();
    let items = page["items"].as_array().unwrap();
    items.iter().map(|job| (job["state"].as_str().unwrap().to_owned(), job["reason"].clone())).collect()
}

async fn operate(site: &Site, path: &str, body: Value) {
    let begun = site.post(path, &body).await.ok();
    site.done(begun["id"].as_str().unwrap()).await;
}

async fn retry(site: &Site, name: &str, body: Value) -> Answer {
    site.post(&format!("/v1/tenants/{name}/jobs/retry"), &body).await
}

#[tokio::test]
async fn a_restored_job_runs_only_when_an_operator_asks() {
    let site = Site::with_tenants(&["acme"]).await;
    enqueue(&site, "acme", "mail").await;
    operate(&site, "/v1/backups", json!({ "selection": { "all": true } })).await;
    a_copy_does_not_send_it_again(&site).await;
    assert_eq!(notes(&site, "acme").await, ["mail"]);
    operate(&site, "/v1/restores", json!({ "tenant": "acme", "to": "latest" })).await;
    enqueue(&site, "acme", "new").await;
    run_due(&site).await;
    assert_eq!(notes(&site, "acme").await, ["new"], "the mail was sent before");
    let reason = json!("the database was restored, and the job may have run already");
    assert_eq!(jobs(&site, "acme").await, [("dead".to_owned(), reason.clone())]);
    let queues = site.get("/v1/jobs").await.ok();
    let queue = queues["items"].as_array().unwrap().iter().find(|queue| queue["tenant"] == "acme").unwrap();
    assert_eq!(
        (&queue["tenant"], &queue["tenant_state"], &queue["dead_reason"]),
        (&json!("acme"), &json!("active"), &reason)
    );
    let planned = retry(&site, "acme", json!({ "all_dead": true, "dry_run": true })).await.ok();
    assert_eq!(planned["plan"]["sample"][0]["action"], "1 job would run again");
    assert_eq!(jobs(&site, "acme").await.len(), 1);
    let asked = json!({ "all_dead": true, "reason": "the customer wants it twice" });
    assert_eq!(retry(&site, "acme", asked).await.ok(), json!({ "tenant": "acme", "jobs": 1 }));
    run_due(&site).await;
    assert_eq!(notes(&site, "acme").await, ["new", "mail"]);
    let events = site.get("/v1/events?kind=job.retried&tenant=acme").await.ok();
    assert_eq!(events["items"][0]["data"]["reason"], "the customer wants it twice", "{events}");
    retry(&site, "acme", json!({ "all_dead": true })).await.problem(404, "not_found");
    retry(&site, "acme", json!({ "job": "0190" })).await.problem(404, "not_found");
    retry(&site, "acme", json!({ "job": "0190", "all_dead": true })).await.problem(422, "invalid");
    retry(&site, "acme", json!({})).await.problem(422, "invalid");
    site.stop().await;
}

/// A clone has the waiting job, which is not its own. The runner runs the job of the original.
async fn a_copy_does_not_send_it_again(site: &Site) {
    operate(site, "/v1/lifecycle/clone", json!({ "tenant": "acme", "as": "acme-2" })).await;
    enqueue(site, "acme-2", "own").await;
    run_due(site).await;
    assert_eq!(notes(site, "acme-2").await, ["own"]);
    let reason = json!("the job was enqueued in another tenant");
    assert_eq!(jobs(site, "acme-2").await, [("dead".to_owned(), reason)]);
    assert_eq!(retry(site, "acme-2", json!({ "all_dead": true })).await.ok()["jobs"], 1);
    run_due(site).await;
    assert_eq!(notes(site, "acme-2").await, ["own", "mail"]);
}

#[tokio::test]
async fn a_schedule_of_the_source_does_not_run_in_a_clone_that_did_not_ask_for_it() {
    let site = Site::with_tenants(&["acme"]).await;
    schedule(&site, "acme").await;
    operate(&site, "/v1/lifecycle/clone", json!({ "tenant": "acme", "as": "acme-2" })).await;
    let (waiting, reason) = (("waiting".to_owned(), Value::Null), json!("the job was enqueued in another tenant"));
    assert_eq!(jobs(&site, "acme-2").await, [("dead".to_owned(), reason)]);
    assert_eq!(jobs(&site, "acme").await, std::slice::from_ref(&waiting), "the source keeps it");
    schedule(&site, "acme-2").await;
    run_due(&site).await;
    assert_eq!(jobs(&site, "acme-2").await, [waiting], "one schedule, of the clone");
    assert_eq!(notes(&site, "acme-2").await, [] as [&str; 0]);
    site.stop().await;
}

#[tokio::test]
async fn a_job_moves_with_its_tenant_and_waits_while_it_is_suspended() {
    let site = Site::with_tenants(&["acme"]).await;
    let spare = site.dir.path().canonicalize().unwrap().join("spare");
    std::fs::create_dir(&spare).unwrap();
    site.post("/v1/servers", &json!({ "name": "spare", "engine": "sqlite", "base": spare })).await.ok();
    enqueue(&site, "acme", "moved").await;
    operate(&site, "/v1/lifecycle/move", json!({ "selection": { "names": ["acme"] }, "to": "spare" })).await;
    assert_eq!(jobs(&site, "acme").await, [("waiting".to_owned(), Value::Null)]);
    operate(&site, "/v1/lifecycle/suspend", json!({ "selection": { "names": ["acme"] } })).await;
    run_due(&site).await;
    site.get("/v1/tenants/acme/jobs").await.problem(403, "tenant_suspended");
    operate(&site, "/v1/lifecycle/resume", json!({ "selection": { "names": ["acme"] } })).await;
    assert_eq!(notes(&site, "acme").await, [] as [&str; 0]);
    run_due(&site).await;
    assert_eq!(notes(&site, "acme").await, ["moved"]);
    site.stop().await;
}

#[tokio::test]
async fn the_jobs_of_a_deleted_tenant_are_dead_letters_also_after_an_undelete() {
    let site = Site::with_tenants(&["acme"]).await;
    enqueue(&site, "acme", "late").await;
    let deleted = send(site.admin(Method::DELETE, "/v1/tenants/acme?no_backup=true")).await.ok();
    site.done(deleted["id"].as_str().unwrap()).await;
    run_due(&site).await;
    let queues = site.get("/v1/jobs").await.ok();
    assert_eq!(queues["items"][0]["dead_reason"], "the tenant was deleted", "{queues}");
    site.get("/v1/tenants/acme/jobs").await.problem(409, "conflict");
    operate(&site, "/v1/lifecycle/undelete", json!({ "selection": { "names": ["acme"] } })).await;
    run_due(&site).await;
    assert_eq!(notes(&site, "acme").await, [] as [&str; 0]);
    assert_eq!(jobs(&site, "acme").await, [("dead".to_owned(), json!("the tenant was deleted"))]);
    let drop = json!({ "all_dead": true });
    assert_eq!(site.post("/v1/tenants/acme/jobs/drop", &drop).await.ok()["jobs"], 1);
    assert_eq!(jobs(&site, "acme").await, []);
    site.stop().await;
}
