// What the example of an orderly stop in docs/embedding.md runs on: a connection that is open at the signal.

include!("pages.rs");

async fn live(
    tenant: tenant_router::Tenant<tenant_router::Read>,
    request: tenant_router::axum::RealtimeRequest,
) -> Result<axum::response::Response, tenant_router::Error> {
    request.answer(tenant.topic("tasks")?).await
}

async fn check_example() {
    let fleet = tenant_router::test_fleet::TestFleet::start("create table tasks (id integer)", ["acme"]).await.unwrap();
    let application = axum::Router::new().route("/t/{tenant}/live", axum::routing::get(live));
    let application = application.with_state(fleet.router().clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve(fleet.router().clone(), listener, application));
    let token = fleet.token("acme", tenant_router::Role::Reader).await.unwrap();
    // On one thread, the server watches the signal before it answers the first request.
    let mut page = open_page(address, "/t/acme/live", &token).await;
    let interrupt = format!("kill -INT {}", std::process::id());
    assert!(std::process::Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());
    let end = page.next().await.unwrap().unwrap();
    let tungstenite::Message::Close(Some(frame)) = end else { panic!("{end:?} is not the end") };
    assert_eq!(u16::from(frame.code), 1001);
    drop(page);
    server.await.unwrap().unwrap();
}
