//! A small JSON client: what an application or an operator's script would be.

use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::Value;

/// One API under one credential.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
    base: String,
    token: Option<String>,
}

/// An answer, kept whole so that two of them can be compared byte by byte.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON; `Null` when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// The JSON of an answer that must be a success.
    ///
    /// # Panics
    /// When it is not one.
    #[must_use]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{}: {}", self.status, self.body);
        self.json()
    }
}

/// A client for plain HTTP: reading the system's certificates takes longer than most requests of a test.
fn plain_client() -> Client {
    Client::builder().tls_certs_only([]).build().expect("no certificate is read")
}

impl Api {
    /// An API below `base` with a bearer token.
    #[must_use]
    pub fn new(base: &str, token: &str) -> Self {
        Self { client: plain_client(), base: base.to_owned(), token: Some(token.to_owned()) }
    }

    /// The same API without a credential.
    #[must_use]
    pub fn anonymous(base: &str) -> Self {
        Self { client: plain_client(), base: base.to_owned(), token: None }
    }

    /// One request.
    ///
    /// # Errors
    /// When there is no answer: the server is gone.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> reqwest::Result<Answer> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.text().await? })
    }

    /// GET.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await.expect("the server answers")
    }

    /// POST.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, Some(body)).await.expect("the server answers")
    }

    /// DELETE.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await.expect("the server answers")
    }

    /// Waits for an operation by its id and returns it finished.
    ///
    /// # Panics
    /// When it does not finish within a few minutes.
    pub async fn finished(&self, operation: &str) -> Value {
        for _ in 0..20 {
            let found = self.get(&format!("/v1/operations/{operation}?wait_seconds=15")).await.ok();
            if !matches!(found["state"].as_str(), Some("pending" | "running" | "paused")) {
                return found;
            }
        }
        panic!("operation {operation} does not finish");
    }
}
