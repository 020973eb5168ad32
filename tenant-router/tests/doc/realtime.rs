// What the example of realtime in docs/embedding.md runs on: the application's server, and an open page of each tenant.

include!("pages.rs");

/// Sends a change as a request of its own.
async fn send_change(application: &axum::Router, path: &str, token: &str, task: i64) {
    let request = http::Request::post(path)
        .header("authorization", format!("Bearer {token}"))
        .body(axum::body::Body::from(task.to_string()))
        .unwrap();
    let response = tower::ServiceExt::oneshot(application.clone(), request).await.unwrap();
    assert_eq!(response.status(), http::StatusCode::OK);
}

async fn check_example() {
    let schema = "create table tasks (id integer primary key, done integer not null default 0)";
    let fleet = tenant_router::test_fleet::TestFleet::start(schema, ["acme", "globex"]).await.unwrap();
    let application = routes().with_state(fleet.router().clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(std::future::IntoFuture::into_future(axum::serve(listener, application.clone())));
    let mut pages = Vec::new();
    for (name, task) in [("acme", 1), ("globex", 2)] {
        let path = format!("/t/{name}/tasks/done");
        let token = fleet.token(name, tenant_router::Role::Writer).await.unwrap();
        pages.push((open_page(address, &path, &token).await, path, token, task));
    }
    // Both pages are open before the first message.
    for (_, path, token, task) in &pages {
        send_change(&application, path, token, *task).await;
    }
    for (page, _, _, task) in &mut pages {
        let message = next_message(page).await;
        assert_eq!((&message["type"], &message["data"]["task"]), (&"message".into(), &(*task).into()));
    }
    // The next message is the next own one, so nothing else came meanwhile.
    for (page, path, token, task) in &mut pages {
        send_change(&application, path, token, *task + 10).await;
        assert_eq!(next_message(page).await["data"]["task"], *task + 10);
    }
}
