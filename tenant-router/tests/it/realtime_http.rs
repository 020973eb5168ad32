//! Live messages over real HTTP: WebSockets and server-sent events.

use axum::body::Body;
use axum::middleware;
use axum::response::Response;
use axum::routing::get;
use catalog::{TenantId, members, tokens};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tenant_router::axum::{RealtimeRequest, answers};
use tenant_router::realtime::RealtimeLimits;
use tenant_router::{Error, Read, Role, Router, Tenant};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tower::ServiceExt as _;

use crate::realtime::{LONG, publish, tenant};
use crate::world::World;

type ClientSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn live(tenant: Tenant<Read>, request: RealtimeRequest) -> Result<Response, Error> {
    request.allow_origins(["https://app.example"]).answer(tenant.topic("tasks")?).await
}

fn application(router: Router) -> axum::Router {
    axum::Router::new().route("/t/{tenant}/live", get(live)).layer(middleware::from_fn(answers)).with_state(router)
}

/// A served application with the tenants acme and globex. It ends with the value.
struct LiveServer {
    world: World,
    ids: Vec<TenantId>,
    router: Router,
    address: String,
    _server: JoinSet<std::io::Result<()>>,
}

impl LiveServer {
    async fn start() -> Self {
        Self::with_limits(RealtimeLimits::default()).await
    }

    async fn with_limits(limits: RealtimeLimits) -> Self {
        let world = World::new().await;
        let ids = world.tenants(&["acme", "globex"]).await;
        let router = world.builder().realtime_limits(limits).build().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut server = JoinSet::new();
        server.spawn(axum::serve(listener, application(router.clone())).into_future());
        Self { world, ids, router, address, _server: server }
    }

    async fn token(&self) -> String {
        self.world.token_for(self.ids[0], Role::Reader).await
    }

    /// Opens a WebSocket; the status of the refusal otherwise.
    async fn connect(&self, path: &str, token: &str, origin: Option<&str>) -> Result<ClientSocket, (u16, Value)> {
        let mut request = format!("ws://{}{path}", self.address).into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                Err((response.status().as_u16(), serde_json::from_slice(body).unwrap_or_default()))
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The next text as JSON.
async fn next_json(socket: &mut ClientSocket) -> Value {
    match next_message(socket).await {
        Message::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?} is not a text"),
    }
}

async fn next_message(socket: &mut ClientSocket) -> Message {
    tokio::time::timeout(LONG, socket.next()).await.expect("a message comes").unwrap().unwrap()
}

/// The code and the reason of the close frame, which must be next.
async fn close_of(socket: &mut ClientSocket) -> (u16, String) {
    match next_message(socket).await {
        Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("{other:?} is not a close frame"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_gets_the_messages_of_its_tenant_until_its_caller_is_revoked() {
    let server = LiveServer::start().await;
    let token = server.token().await;
    let mut socket = server.connect("/t/acme/live", &token, None).await.unwrap();
    assert_eq!(next_json(&mut socket).await, json!({ "type": "ready", "seq": 0 }));
    let acme = tenant(&server.world, &server.router, "acme", server.ids[0]).await;
    let globex = tenant(&server.world, &server.router, "globex", server.ids[1]).await;
    publish(&globex, "of globex").await;
    let first = publish(&acme, "one").await;
    assert_eq!(next_json(&mut socket).await, json!({ "type": "message", "seq": first, "data": "one" }));
    let second = publish(&acme, "two").await;
    let mut resumed = server.connect(&format!("/t/acme/live?after={first}"), &token, None).await.unwrap();
    assert_eq!(next_json(&mut resumed).await, json!({ "type": "ready", "seq": first }));
    assert_eq!(next_json(&mut resumed).await, json!({ "type": "message", "seq": second, "data": "two" }));
    let mut lost = server.connect("/t/acme/live?after=x", &token, None).await.unwrap();
    assert_eq!(next_json(&mut lost).await["type"], "ready");
    assert_eq!(next_json(&mut lost).await, json!({ "type": "reload", "seq": second }));
    assert_eq!(next_json(&mut socket).await["data"], "two");
    let mut tx = server.world.catalog.write().await.unwrap();
    let id = tokens::by_secret(&mut tx, &token).await.unwrap().unwrap().id;
    tokens::revoke_token(&mut tx, id).await.unwrap();
    tx.commit().await.unwrap();
    for mut socket in [socket, resumed, lost] {
        assert_eq!(close_of(&mut socket).await, (1008, "access_ended".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_page_a_stranger_and_a_talking_client_are_refused() {
    let server = LiveServer::start().await;
    let token = server.token().await;
    let own = format!("http://{}", server.address);
    for origin in [None, Some(&*own), Some("https://app.example")] {
        let mut socket = server.connect("/t/acme/live", &token, origin).await.unwrap();
        assert_eq!(next_json(&mut socket).await["type"], "ready", "{origin:?}");
    }
    for origin in ["https://evil.example", "null", "http://127.0.0.1"] {
        let (status, body) = server.connect("/t/acme/live", &token, Some(origin)).await.unwrap_err();
        assert_eq!((status, &body["code"]), (403, &json!("origin_refused")), "{origin}");
    }
    for (path, token, expected) in [
        ("/t/acme/live", "wrong", (401, "unauthenticated")),
        ("/t/globex/live", &*token, (404, "not_found")),
        ("/t/nowhere/live", &*token, (404, "not_found")),
    ] {
        let (status, body) = server.connect(path, token, None).await.unwrap_err();
        assert_eq!((status, body["code"].as_str().unwrap()), expected, "{path}");
    }
    for said in [Message::text("hello"), Message::binary(vec![1])] {
        let mut socket = server.connect("/t/acme/live", &token, None).await.unwrap();
        assert_eq!(next_json(&mut socket).await["type"], "ready");
        socket.send(said).await.unwrap();
        assert_eq!(close_of(&mut socket).await, (1003, "data_refused".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_closes_the_sockets_and_says_that_the_server_goes() {
    let server = LiveServer::start().await;
    let token = server.token().await;
    let mut socket = server.connect("/t/acme/live", &token, None).await.unwrap();
    assert_eq!(next_json(&mut socket).await["type"], "ready");
    let ((), closed) = tokio::join!(server.router.end_subscriptions(), close_of(&mut socket));
    assert_eq!(closed, (1001, "going_away".to_owned()));
    let (status, body) = server.connect("/t/acme/live", &token, None).await.unwrap_err();
    assert_eq!((status, &body["code"]), (503, &json!("shutting_down")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_disconnected_and_the_others_are_not() {
    let limits = RealtimeLimits {
        queue_messages_max: 4,
        queue_bytes_max: 4 << 20,
        message_bytes_max: 512 << 10,
        tenant_messages_per_second_max: 1_000,
        ..RealtimeLimits::default()
    };
    let server = LiveServer::with_limits(limits).await;
    let token = server.token().await;
    let mut stalled = server.connect("/t/acme/live", &token, None).await.unwrap();
    let mut reading = server.connect("/t/acme/live", &token, None).await.unwrap();
    assert_eq!(next_json(&mut reading).await["type"], "ready");
    let acme = tenant(&server.world, &server.router, "acme", server.ids[0]).await;
    // More than the buffers of both ends of a connection hold.
    let (large, count) = ("x".repeat(500 << 10), 60);
    for _ in 0..count {
        publish(&acme, &large).await;
        assert_eq!(next_json(&mut reading).await["data"], large);
    }
    let mut received = 0;
    while let Some(Ok(Message::Text(_))) = tokio::time::timeout(LONG, stalled.next()).await.expect("the end comes") {
        received += 1;
    }
    assert!(received < count, "the connection ended before the last message");
}

/// The text of the next part of an event stream.
async fn next_part(body: &mut Body) -> String {
    let frame = tokio::time::timeout(LONG, body.frame()).await.expect("an event comes");
    frame.map(|frame| String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap()).unwrap_or_default()
}

#[tokio::test]
async fn an_event_stream_numbers_its_events_and_says_why_it_ends() {
    let world = World::new().await;
    let ids = world.tenants(&["acme", "globex"]).await;
    let router = world.router().await;
    let mut tx = world.catalog.write().await.unwrap();
    members::set_member(&mut tx, ids[0], "ann", Role::Reader).await.unwrap();
    tx.commit().await.unwrap();
    let token = world.token(tokens::TokenScope::Member { principal: "ann".to_owned() }).await;
    let application = application(router.clone());
    let send = async |path: &str, header: (&str, &str)| {
        let request = Request::builder().uri(path).header("host", "tasks.example").header(header.0, header.1);
        let request = request.header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
        application.clone().oneshot(request).await.unwrap()
    };
    let response = send("/t/acme/live", ("accept", "text/event-stream")).await;
    let header = |name: &str| response.headers()[name].to_str().unwrap();
    assert_eq!((response.status(), header("content-type")), (StatusCode::OK, "text/event-stream"));
    assert_eq!((header("cache-control"), header("x-accel-buffering")), ("private, no-store", "no"));
    let mut body = response.into_body();
    assert_eq!(next_part(&mut body).await, "event: ready\nid: 0\ndata: {}\n\n");
    let acme = tenant(&world, &router, "acme", ids[0]).await;
    publish(&tenant(&world, &router, "globex", ids[1]).await, "of globex").await;
    publish(&acme, "one").await;
    assert_eq!(next_part(&mut body).await, "event: message\nid: 2\ndata: \"one\"\n\n");
    publish(&acme, "two").await;
    // What the browser sends when it connects again.
    let mut resumed = send("/t/acme/live?after=0", ("last-event-id", "2")).await.into_body();
    assert_eq!(next_part(&mut resumed).await, "event: ready\nid: 2\ndata: {}\n\n");
    assert_eq!(next_part(&mut resumed).await, "event: message\nid: 3\ndata: \"two\"\n\n");
    assert_eq!(next_part(&mut body).await, "event: message\nid: 3\ndata: \"two\"\n\n");
    let offered = send("/t/acme/live", ("upgrade", "h2c")).await;
    assert_eq!(offered.headers()["content-type"], "text/event-stream", "another offer is ignored");
    drop(offered);
    let foreign = send("/t/acme/live", ("origin", "https://evil.example")).await;
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    let mut tx = world.catalog.write().await.unwrap();
    members::remove_member(&mut tx, ids[0], "ann").await.unwrap();
    tx.commit().await.unwrap();
    for mut body in [body, resumed] {
        assert_eq!(next_part(&mut body).await, "event: end\ndata: {\"reason\":\"access_ended\"}\n\n");
        assert_eq!(next_part(&mut body).await, "", "the stream is over");
    }
}
