//! The application in this process, and browsers that are signed in to it.

use clap::Parser as _;
use postgres_fixture::Cluster;
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use tasks::Application;
use tasks::fleet_setup::OpenFleet;
use tasks::options::CommandOptions;
use tempfile::TempDir;
use tenant_router::{Manage, RequestView, Tenant};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A served application. It ends with the value.
pub(crate) struct RunningTasks {
    pub(crate) url: String,
    fleet: OpenFleet,
    pub(crate) dir: TempDir,
    /// Ends the server when it is dropped.
    server: JoinSet<std::io::Result<()>>,
}

impl RunningTasks {
    pub(crate) async fn start(cluster: Option<&Cluster>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data").to_string_lossy().into_owned();
        let mut flags = vec!["--data-dir".to_owned(), data_dir];
        if let Some(cluster) = cluster {
            flags.extend(["--postgres".to_owned(), cluster.dsn("postgres")]);
        }
        Self::start_with(dir, flags).await
    }

    pub(crate) async fn start_with(dir: TempDir, flags: Vec<String>) -> Self {
        let words = ["tasks".to_owned()].into_iter().chain(flags);
        let fleet = OpenFleet::open(&CommandOptions::try_parse_from(words).unwrap()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(axum::serve(listener, fleet.application().routes()).into_future());
        Self { url, fleet, dir, server }
    }

    /// Stops in order, and returns the directory for another start.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.server.shutdown().await;
        self.fleet.close().await;
        self.dir
    }

    pub(crate) fn application(&self) -> Application {
        self.fleet.application()
    }

    /// The organisation, opened with the cookie of one of its managers.
    pub(crate) async fn tenant_of(&self, manager: &Browser, organisation: &str) -> Tenant<Manage> {
        let credential = manager.cookie.as_deref().unwrap().split_once('=').map(|(_, token)| token);
        let path = format!("/orgs/{organisation}");
        let request = RequestView { credential, path: &path, ..RequestView::default() };
        self.application().router.open(&request).await.unwrap()
    }

    /// A browser that is signed in nowhere.
    pub(crate) fn visitor(&self) -> Browser {
        new_browser(&self.url)
    }

    /// A browser that has just signed up this organisation.
    pub(crate) async fn sign_up(&self, name: &str) -> Browser {
        let mut founder = self.visitor();
        let answer = founder.post("/api/organisations", &sign_up_form(name, uuid::Uuid::now_v7())).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        founder.keep_cookie(&answer);
        founder
    }

    /// A browser of a new member, who has opened the link of an invitation. Also the member's id.
    pub(crate) async fn invite(&self, manager: &Browser, organisation: &str, role: &str) -> (Browser, String) {
        let invitation = invitation(&format!("A {role}"), role);
        let invited = manager.post(&format!("/orgs/{organisation}/api/members"), &invitation).await;
        assert_eq!(invited.status, 201, "{:?}", invited.body);
        let mut member = self.visitor();
        let link = json!({ "token": invited.body["token"] });
        let answer = member.post(&format!("/orgs/{organisation}/api/session"), &link).await;
        assert_eq!((answer.status.as_u16(), &answer.body["organisation"]), (200, &json!(organisation)));
        member.keep_cookie(&answer);
        (member, invited.body["member"].as_str().unwrap().to_owned())
    }
}

pub(crate) fn new_browser(url: &str) -> Browser {
    Browser { url: url.to_owned(), client: reqwest::Client::new(), cookie: None }
}

pub(crate) fn sign_up_form(name: &str, key: uuid::Uuid) -> Value {
    json!({ "key": key, "name": name, "title": format!("The {name}"), "founder": format!("The founder of {name}") })
}

pub(crate) fn invitation(name: &str, role: &str) -> Value {
    json!({ "key": uuid::Uuid::now_v7(), "name": name, "role": role })
}

/// Sends what the page sends.
#[derive(Clone)]
pub(crate) struct Browser {
    pub(crate) url: String,
    client: reqwest::Client,
    pub(crate) cookie: Option<String>,
}

/// An answer whose body was read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: header::HeaderMap,
    pub(crate) text: String,
    /// Null when the body is not JSON.
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// Status and code of a refusal, which must also have a title and a next step.
    pub(crate) fn refusal(&self) -> (u16, &str) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        assert!(self.body["title"].is_string() && self.body["next_steps"][0].is_string(), "{}", self.text);
        (self.status.as_u16(), self.code())
    }
}

impl Browser {
    pub(crate) fn keep_cookie(&mut self, answer: &Answer) {
        self.cookie = Some(answer.header("set-cookie").split(';').next().unwrap().to_owned());
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, &[]).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.change(Method::POST, path, body).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.change(Method::PUT, path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.change(Method::DELETE, path, &Value::Null).await
    }

    /// Deletes a row that was seen at this version.
    pub(crate) async fn delete_seen(&self, path: &str, version: i64) -> Answer {
        self.change(Method::DELETE, path, &json!({ "version": version })).await
    }

    pub(crate) async fn change(&self, method: Method, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json"), ("origin", &*self.url)];
        self.send(method, path, Some(body.to_string()), &headers).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let answer = request.body(body.unwrap_or_default()).send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = answer.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, headers, text, body }
    }
}
