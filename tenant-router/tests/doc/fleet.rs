// What the example in the crate's documentation runs on: a throw-away fleet, and requests with a token of `acme`.

struct Requests {
    fleet: tenant_router::test_fleet::TestFleet,
    token: String,
}

impl Requests {
    async fn new(schema: &str) -> Self {
        let fleet = tenant_router::test_fleet::TestFleet::start(schema, ["acme", "globex"]).await.unwrap();
        let token = fleet.token("acme", tenant_router::Role::Writer).await.unwrap();
        Self { fleet, token }
    }

    async fn send(&self, application: &axum::Router, method: &str, path: &str, body: &str) -> (u16, String) {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", self.token))
            .body(axum::body::Body::from(body.to_owned()))
            .unwrap();
        let response = tower::ServiceExt::oneshot(application.clone(), request).await.unwrap();
        let status = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}
