//! What the client says when something is wrong.

use std::time::{Duration, Instant};

use fleet_client::{ApiRequest, ErrorKind, FleetClient};

use crate::served_fleet::{ServedFleet, customer};

#[tokio::test(flavor = "multi_thread")]
async fn another_token_or_tenant_is_refused_with_the_code_of_the_api() {
    let fleet = ServedFleet::start().await;
    let stranger = FleetClient::new(fleet.url.as_str(), "flt_wrong").unwrap();
    let refused = stranger.sign_up(&customer("acme")).await.unwrap_err();
    assert_eq!((refused.code(), refused.status()), ("unauthenticated", Some(401)));
    assert!(!refused.is_transient(), "{refused}");
    let missing = fleet.client().get_tenant("acme").await.unwrap_err();
    assert_eq!((missing.kind(), missing.code()), (ErrorKind::Refused, "not_found"));
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_a_transient_error_within_seconds() {
    let fleet = ServedFleet::start().await;
    let client = fleet.client();
    fleet.stop().await;
    let begun = Instant::now();
    let gone = client.sign_up(&customer("acme")).await.unwrap_err();
    assert_eq!((gone.kind(), gone.code(), gone.is_transient()), (ErrorKind::NotListening, "unreachable", true));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_creation_says_why_and_continues_after_its_retry() {
    let fleet = ServedFleet::start().await;
    let (client, wanted) = (fleet.client(), customer("acme"));
    let tenants = fleet.data_dir().join("tenants");
    std::fs::rename(&tenants, fleet.data_dir().join("away")).unwrap();
    let failed = client.sign_up(&wanted).await.unwrap_err();
    assert_eq!((failed.kind(), failed.code()), (ErrorKind::OperationFailed, "operation_failed"), "{failed}");
    assert!(!failed.is_transient() && !failed.causes().is_empty(), "{failed}");
    let operation = failed.operation_id().unwrap();
    assert!(failed.next_steps()[0].contains(&format!("fleetctl op retry {operation}")), "{failed}");
    let waited = client.wait_for_tenant("acme", Duration::from_secs(60)).await.unwrap_err();
    assert_eq!((waited.operation_id(), waited.causes()), (Some(operation), failed.causes()));
    std::fs::rename(fleet.data_dir().join("away"), &tenants).unwrap();
    fleet.send(&ApiRequest::post(format!("/v1/operations/{operation}/retry"), &serde_json::json!({}))).await;
    client.sign_up(&wanted).await.unwrap();
    fleet.assert_signed_up_once(&wanted).await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_to_wait_ends_and_the_operation_continues() {
    let fleet = ServedFleet::start().await;
    fleet.app.context.halt_at("create: claimed");
    let mut wanted = customer("acme");
    wanted.wait_max = Duration::ZERO;
    let running = fleet.client().sign_up(&wanted).await.unwrap_err();
    assert_eq!((running.kind(), running.is_transient()), (ErrorKind::StillRunning, true), "{running}");
    fleet.app.context.wait_until_halted().await;
    fleet.app.context.resume_halted();
    wanted.wait_max = Duration::from_secs(60);
    fleet.client().sign_up(&wanted).await.unwrap();
    fleet.assert_signed_up_once(&wanted).await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_operation_and_a_suspended_tenant_are_told() {
    let fleet = ServedFleet::start().await;
    let client = fleet.client();
    client.sign_up(&customer("acme")).await.unwrap();
    let suspend = serde_json::json!({ "selection": { "names": ["acme"] } });
    let operation = fleet.send(&ApiRequest::post("/v1/lifecycle/suspend", &suspend)).await;
    client.wait_for_operation(operation["id"].as_str().unwrap(), Duration::from_secs(60)).await.unwrap();
    let suspended = client.wait_for_tenant("acme", Duration::from_secs(60)).await.unwrap_err();
    assert_eq!((suspended.code(), suspended.is_transient()), ("not_active", false), "{suspended}");
    fleet.app.context.halt_at("create: claimed");
    let mut wanted = customer("globex");
    wanted.wait_max = Duration::ZERO;
    let running = client.sign_up(&wanted).await.unwrap_err();
    let id = running.operation_id().unwrap();
    fleet.app.context.wait_until_halted().await;
    fleet.send(&ApiRequest::post(format!("/v1/operations/{id}/pause"), &serde_json::json!({}))).await;
    let paused = client.wait_for_operation(id, Duration::from_secs(60)).await.unwrap_err();
    assert_eq!((paused.kind(), paused.code()), (ErrorKind::OperationPaused, "operation_paused"), "{paused}");
    fleet.app.context.resume_halted();
    fleet.stop().await;
}
