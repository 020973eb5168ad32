//! Answers that are kept too long, or for too many.

use fleet_client::ApiRequest;
use fleet_client::fleet_api::backups::BackupRun;
use fleet_client::fleet_api::restores::RestoreRun;
use fleet_client::fleet_api::selection::SelectionRequest;
use serde_json::json;

use crate::stage::Stage;

fn only(name: &str) -> SelectionRequest {
    SelectionRequest { names: vec![name.to_owned()], ..SelectionRequest::default() }
}

pub(super) async fn cache_key(stage: &Stage) -> bool {
    stage.fill(1, 2).await;
    assert_eq!(stage.b.get("/counts").await.body["open"], 2);
    stage.a.get("/counts").await.body["open"] == 2
}

pub(super) async fn etag(stage: &Stage) -> bool {
    stage.fill(1, 1).await;
    let of_b = stage.b.get("/report").await;
    let tag = of_b.header("etag");
    assert!(stage.shows(&of_b) && !tag.is_empty(), "{}", of_b.text);
    assert_eq!(stage.b.get_with("/report", "if-none-match", tag).await.status, 304);
    stage.a.get_with("/report", "if-none-match", tag).await.status == 304
}

pub(super) async fn public_caching(stage: &Stage) -> bool {
    stage.fill(0, 1).await;
    let list = stage.b.get("/tasks").await;
    assert!(stage.shows(&list));
    list.header("cache-control").contains("public")
}

pub(super) async fn stale_after_restore(stage: &Stage) -> bool {
    stage.a.add_task("before").await;
    let backup = BackupRun { selection: only(&stage.a.name), ..BackupRun::default() };
    stage.operate("/v1/backups", &backup).await;
    stage.a.add_task("after").await;
    assert!(stage.a.get("/tasks").await.text.contains("after"));
    let restore = RestoreRun { tenant: stage.a.name.clone(), to: "latest".to_owned(), ..RestoreRun::default() };
    stage.operate("/v1/restores", &restore).await;
    let list = stage.a.get("/tasks").await;
    assert!(list.text.contains("before"), "{}", list.text);
    list.text.contains("after")
}

pub(super) async fn deleted_served(stage: &Stage) -> bool {
    stage.b.add_task(&stage.canary).await;
    assert!(stage.shows(&stage.b.get("/tasks").await));
    stage.operate("/v1/lifecycle/suspend", &json!({ "selection": only(&stage.b.name) })).await;
    let suspended = stage.shows(&stage.b.get("/tasks").await);
    let deletion = ApiRequest::delete(format!("/v1/tenants/{}", stage.b.name));
    stage.finish(&deletion).await;
    assert_eq!(stage.shows(&stage.b.get("/tasks").await), suspended);
    suspended
}
