//! Two organisations in one served zoo, and what their founders send.

use std::time::Duration;

use clap::Parser as _;
use fleet_client::ApiRequest;
use fleet_client::fleet_api::operations::OperationView;
use leaky_zoo::leak::Leak;
use leaky_zoo::routes_of;
use leaky_zoo::zoo::Zoo;
use postgres_fixture::Cluster;
use reqwest::{Method, header};
use serde::Serialize;
use serde_json::{Value, json};
use tasks::fleet_setup::OpenFleet;
use tasks::options::CommandOptions;
use tempfile::TempDir;
use tenant_router::{Read, RequestView, Tenant};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Longer than an operation on one organisation takes.
const OPERATION_MAX: Duration = Duration::from_secs(120);

/// A fleet that several stages share.
pub(crate) struct TestedFleet {
    fleet: OpenFleet,
    _dir: TempDir,
}

impl TestedFleet {
    pub(crate) async fn open(cluster: Option<&Cluster>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data").to_string_lossy().into_owned();
        let mut words = vec!["tasks".to_owned(), "--data-dir".to_owned(), data_dir];
        words.extend(cluster.into_iter().flat_map(|cluster| ["--postgres".to_owned(), cluster.dsn("postgres")]));
        let fleet = OpenFleet::open(&CommandOptions::try_parse_from(words).unwrap()).await.unwrap();
        Self { fleet, _dir: dir }
    }

    /// A served zoo with two new organisations, whose names end in this text.
    pub(crate) async fn stage(&self, name: &str, leak: Option<&'static Leak>) -> Stage {
        let zoo = Zoo::new(self.fleet.application(), None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(axum::serve(listener, routes_of(&zoo, leak)).into_future());
        let [a, b] = [format!("alpha-{name}"), format!("beta-{name}")].map(|name| Founder::sign_up(&url, name));
        let (a, b) = (a.await, b.await);
        Stage { canary: format!("secret of {}", b.name), zoo, a, b, _server: server }
    }

    pub(crate) fn application(&self) -> tasks::Application {
        self.fleet.application()
    }

    pub(crate) async fn close(self) {
        self.fleet.close().await;
    }
}

/// A served zoo and the founders of two organisations. The leak shows what `b` has to `a`.
pub(crate) struct Stage {
    pub(crate) zoo: Zoo,
    pub(crate) a: Founder,
    pub(crate) b: Founder,
    /// A text that only the organisation of `b` has.
    pub(crate) canary: String,
    /// Ends the server when it is dropped.
    _server: JoinSet<std::io::Result<()>>,
}

impl Stage {
    /// Gives each organisation so many tasks. Those of `b` have the canary in their titles.
    pub(crate) async fn fill(&self, of_a: usize, of_b: usize) {
        for _ in 0..of_a {
            self.a.add_task("plain").await;
        }
        for _ in 0..of_b {
            self.b.add_task(&self.canary).await;
        }
    }

    pub(crate) fn shows(&self, answer: &Answer) -> bool {
        answer.text.contains(&self.canary)
    }

    /// Opens an organisation without a request over HTTP, which a leak would see.
    pub(crate) async fn open(&self, founder: &Founder) -> Tenant<Read> {
        let path = format!("/orgs/{}", founder.name);
        let request = RequestView { credential: Some(&founder.token), path: &path, ..RequestView::default() };
        self.zoo.router().open(&request).await.unwrap()
    }

    /// Runs an operation of the control plane to its end.
    pub(crate) async fn operate(&self, path: &str, body: &impl Serialize) {
        self.finish(&ApiRequest::post(path, body)).await;
    }

    /// Sends a request that starts an operation, and waits for its end.
    pub(crate) async fn finish(&self, request: &ApiRequest) {
        let fleet = &self.zoo.application.fleet;
        let operation: OperationView = fleet.send(request).await.unwrap();
        fleet.wait_for_operation(&operation.id, OPERATION_MAX).await.unwrap();
        self.zoo.router().catch_up().await.unwrap();
    }
}

/// A client with the token of an organisation's founder.
pub(crate) struct Founder {
    pub(crate) url: String,
    pub(crate) name: String,
    pub(crate) token: String,
    client: reqwest::Client,
}

/// An answer whose body was read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: header::HeaderMap,
    pub(crate) text: String,
    /// Null when the body is not JSON.
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

impl Founder {
    /// All organisations have one title, as those of two customers may.
    async fn sign_up(url: &str, name: String) -> Self {
        let client = reqwest::Client::new();
        let form = json!({ "key": uuid::Uuid::now_v7(), "name": name, "title": "Test", "founder": "Founder" });
        let request = client.post(format!("{url}/api/organisations")).header("origin", url).json(&form);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        let token = cookie.split(';').next().unwrap().split_once('=').unwrap().1.to_owned();
        Self { url: url.to_owned(), name, token, client }
    }

    pub(crate) fn path(&self, route: &str) -> String {
        format!("/orgs/{}/api{route}", self.name)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    /// Sends to any path.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_default();
        Answer { status, headers, text, body }
    }

    pub(crate) async fn get_at(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn get(&self, route: &str) -> Answer {
        self.get_at(&self.path(route)).await
    }

    pub(crate) async fn get_with(&self, route: &str, name: &str, value: &str) -> Answer {
        self.send(self.request(Method::GET, &self.path(route)).header(name, value)).await
    }

    pub(crate) async fn post(&self, route: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, &self.path(route)).json(body)).await
    }

    pub(crate) async fn put(&self, route: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PUT, &self.path(route)).json(body)).await
    }

    pub(crate) async fn add_task(&self, title: &str) -> Answer {
        let added = self.post("/tasks", &json!({ "title": title })).await;
        assert_eq!(added.status, 201, "{}", added.text);
        added
    }
}
