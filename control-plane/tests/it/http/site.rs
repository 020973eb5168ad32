//! A served fleet and a client for it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use control_plane::clock::{CatalogClock, system_clock};
use control_plane::config::ProcessRole;
use control_plane::serve::{RunningServer, ServeOptions, start_server};
use control_plane::{App, Config};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) struct Site {
    pub(crate) admin: String,
    pub(crate) data: String,
    pub(crate) token: String,
    pub(crate) client: reqwest::Client,
    pub(crate) app: Arc<App>,
    pub(crate) dir: TempDir,
    serving: Option<RunningServer>,
}

/// An answer, whole.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub(crate) fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// Asserts a problem of this status and code, in its full shape.
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        let body = self.json();
        assert_eq!((self.status, body["code"].as_str()), (status, Some(code)), "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        assert_eq!(self.headers["x-content-type-options"], "nosniff");
        assert_eq!(body["status"], status);
        assert_eq!(body["type"], format!("urn:fleet:problem:{code}"));
        assert_eq!(body["request_id"], self.headers["x-request-id"].to_str().unwrap());
        for text in ["title", "detail", "instance"] {
            assert!(body[text].as_str().is_some_and(|text| !text.is_empty()), "{text}: {self:?}");
        }
        assert!(body["next_steps"].is_array());
        body
    }
}

pub(crate) fn config(dir: &TempDir) -> Config {
    let mut config = Config::new(dir.path().canonicalize().unwrap().join("data"), ProcessRole::Serving);
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.admin_listen = "127.0.0.1:0".parse().unwrap();
    config
}

impl Site {
    pub(crate) async fn start() -> Self {
        Self::start_with(ServeOptions::default(), |_| ()).await
    }

    pub(crate) async fn start_with(options: ServeOptions, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_at(options, change, system_clock()).await
    }

    /// With another clock.
    pub(crate) async fn start_at(options: ServeOptions, change: impl FnOnce(&mut Config), clock: CatalogClock) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir);
        change(&mut config);
        App::init_with(&config, Arc::clone(&clock)).await.unwrap();
        let app = App::open_with(config.clone(), clock).await.unwrap();
        let serving = start_server(Arc::clone(&app), options).await.unwrap();
        let endpoint = serving.server_endpoint().clone();
        let token = std::fs::read_to_string(config.data_dir.join("operator.token")).unwrap().trim().to_owned();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let (admin, data) = (endpoint.admin_url, endpoint.data_url);
        Self { admin, data, token, client, app, dir, serving: Some(serving) }
    }

    /// With the example table in each of these tenants, holding the tenant's own canary under id 1.
    pub(crate) async fn with_tenants(names: &[&str]) -> Self {
        let site = Self::start().await;
        let file = json!({ "name": "0001_notes.sql", "sql": "create table notes (id integer primary key, body text) strict;" });
        let body = json!({ "files": [file], "selection": { "all": true } });
        site.done(site.post("/v1/migrations", &body).await.ok()["id"].as_str().unwrap()).await;
        for name in names {
            site.create(name).await;
            let insert = json!({ "sql": "insert into notes values (1, ?1)", "params": [format!("canary of {name}")] });
            let token = site.tenant_token(name, "writer").await;
            assert_eq!(site.ask(name, &token, &insert).await.ok()["rows_affected"], 1);
        }
        site
    }

    pub(crate) async fn create(&self, name: &str) -> Value {
        let made = self.post("/v1/tenants", &json!({ "name": name })).await;
        assert_eq!(made.status, 202, "{made:?}");
        let operation = made.json()["operation"]["id"].as_str().unwrap().to_owned();
        assert_eq!(made.headers["location"], format!("/v1/operations/{operation}"));
        self.done(&operation).await
    }

    /// Waits for an operation and asserts its success.
    pub(crate) async fn done(&self, operation: &str) -> Value {
        let ended = self.get(&format!("/v1/operations/{operation}?wait_seconds=60")).await.ok();
        assert_eq!(ended["state"], "succeeded", "{ended}");
        ended
    }

    pub(crate) async fn tenant_token(&self, name: &str, role: &str) -> String {
        let made = self.post("/v1/tokens", &json!({ "tenant": name, "role": role })).await.ok();
        made["secret"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn operator(&self, role: &str) -> (String, String) {
        let made = self.post("/v1/tokens", &json!({ "operator": role })).await.ok();
        (made["token"]["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
    }

    /// A request to the admin API under the first operator's token.
    pub(crate) fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.admin)).bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.admin(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.admin(Method::POST, path).json(body)).await
    }

    /// A query to the data API.
    pub(crate) async fn ask(&self, tenant: &str, token: &str, body: &Value) -> Answer {
        send(self.client.post(format!("{}/t/{tenant}/query", self.data)).bearer_auth(token).json(body)).await
    }

    /// The same with a body in these very characters.
    pub(crate) async fn ask_text(&self, tenant: &str, token: &str, body: &str) -> Answer {
        let request = self.client.post(format!("{}/t/{tenant}/query", self.data)).bearer_auth(token);
        send(request.header("content-type", "application/json").body(body.to_owned())).await
    }

    pub(crate) fn serving(&mut self) -> RunningServer {
        self.serving.take().unwrap()
    }

    pub(crate) async fn stop(mut self) {
        self.serving().stop_serving().await;
    }
}

pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, text: response.text().await.unwrap() }
}

/// One request exactly as written, for what no client would send.
pub(crate) async fn raw(base: &str, request: String) -> Answer {
    let address = base.trim_start_matches("http://").to_owned();
    let text = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    });
    let text = text.await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut headers = HeaderMap::new();
    for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(": ")) {
        headers.append(reqwest::header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{text:?}"));
    Answer { status, headers, text: body.to_owned() }
}
