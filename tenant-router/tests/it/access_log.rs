//! What an application's log says of a request, without help of the handler.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::get;
use axum::{Json, middleware};
use http::Request;
use serde_json::Value;
use tenant_router::axum::{TrustedProxies, answers, client_address};
use tenant_router::{Error, Read, Role, Tenant};
use tower::ServiceExt as _;
use tracing_subscriber::fmt::MakeWriter;

use crate::world::World;

/// Collects what is logged.
#[derive(Debug, Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Written {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Written {
    fn lines(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

async fn notes(tenant: Tenant<Read>) -> Result<Json<usize>, Error> {
    tracing::info!("the handler says something");
    let found = tenant.query("select id from notes where body = ?1", ["a secret parameter"]).await?;
    Ok(Json(found.rows.len()))
}

#[tokio::test]
async fn every_line_names_request_tenant_and_principal() {
    let written = Written::default();
    let log = tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE).with_writer(written.clone());
    let _guard = tracing::subscriber::set_default(log.finish());
    let world = World::new().await;
    let acme = world.tenant("acme").await;
    let token = world.token_for(acme, Role::Reader).await;
    let router = world.router().await;
    let application = axum::Router::new()
        .route("/t/{tenant}/notes/{of}", get(notes))
        .layer(middleware::from_fn(answers))
        .layer(middleware::from_fn_with_state(TrustedProxies::new(["127.0.0.1"]).unwrap(), client_address))
        .with_state(router);
    for (token, status) in [(&*token, 200), ("wrong", 401)] {
        let request = Request::get("/t/acme/notes/secret-person?key=secret-query").header("x-request-id", "req-7");
        let peer = ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 4711)));
        let request = request.header("x-forwarded-for", "6.6.6.6, 198.51.100.1").extension(peer);
        let request = request.header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
        assert_eq!(application.clone().oneshot(request).await.unwrap().status(), status);
    }
    let lines = written.lines();
    let of_message =
        |message: &str| -> Vec<&Value> { lines.iter().filter(|line| line["fields"]["message"] == message).collect() };
    let handler = of_message("the handler says something");
    let ends = of_message("request");
    assert_eq!((handler.len(), ends.len()), (1, 2), "{lines:#?}");
    for line in [handler[0], ends[0]] {
        let span = &line["span"];
        assert_eq!((&span["name"], &span["request_id"]), (&Value::from("request"), &Value::from("req-7")));
        assert_eq!((&span["tenant"], &span["client"]), (&acme.to_string().into(), &Value::from("198.51.100.1")));
        assert!(span["principal"].as_str().unwrap().starts_with("token:tok_"), "{span}");
    }
    let fields = &ends[0]["fields"];
    assert_eq!((&fields["method"], &fields["status"]), (&Value::from("GET"), &Value::from(200)));
    assert_eq!(fields["route"], "/t/{tenant}/notes/{of}");
    assert!(fields["duration_ms"].as_f64().unwrap() > 0.0);
    assert_eq!((&ends[1]["fields"]["status"], &ends[1]["span"]["tenant"]), (&Value::from(401), &Value::Null));
    let whole = serde_json::to_string(&lines).unwrap();
    for secret in [&*token, "secret-person", "secret-query", "a secret parameter", "Bearer"] {
        assert!(!whole.contains(secret), "{secret}");
    }
}
