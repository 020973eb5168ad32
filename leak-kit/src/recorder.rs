//! Records the requests of an application's own tests, as an inventory of routes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tower::Service;

use crate::inventory::RouteInventory;
use crate::route::{ParameterPlace, Route, RouteClass, RouteParameter};

/// Requests that were recorded, by method and template. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct RequestRecorder {
    requests: Arc<Mutex<Vec<RecordedRequest>>>,
}

#[derive(Debug, Clone)]
struct RecordedRequest {
    method: Method,
    path: String,
    body: Option<Value>,
}

/// A service that records what it passes on.
#[derive(Debug, Clone)]
pub struct RecordingService<S> {
    inner: S,
    recorder: RequestRecorder,
}

impl RequestRecorder {
    /// Records the requests to this service, for instance an `axum::Router`.
    pub fn record<S>(&self, service: S) -> RecordingService<S> {
        RecordingService { inner: service, recorder: self.clone() }
    }

    /// The routes of the recorded requests. `tenants` are the names that the application's tests use; such a part of a path
    /// becomes `{tenant}`. Numbers and ids become parameters. Routes with a tenant get the class `tenant`; give the others
    /// their class with [`RouteInventory::set_classes`].
    #[must_use]
    pub fn inventory(&self, tenants: &[&str]) -> RouteInventory {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let mut routes: BTreeMap<(String, String), Route> = BTreeMap::new();
        for request in requests.iter() {
            let route = request.route(tenants);
            let known =
                routes.entry((route.template.clone(), route.method.to_string())).or_insert_with(|| route.clone());
            if known.example.is_none() {
                *known = route;
            }
        }
        RouteInventory::from_routes(routes.into_values().collect())
    }

    fn note(&self, request: &Request<Full<Bytes>>, body: &Bytes) {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let recorded = RecordedRequest { method, path, body: serde_json::from_slice(body).ok() };
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(recorded);
    }
}

impl RecordedRequest {
    fn route(&self, tenants: &[&str]) -> Route {
        let (mut parts, mut parameters, mut tenant) = (Vec::new(), Vec::new(), None);
        for part in self.path.split('/') {
            if tenants.contains(&part) && tenant.is_none() {
                tenant = Some("tenant".to_owned());
                parts.push("{tenant}".to_owned());
            } else if is_key(part) {
                let name = format!("key{}", parameters.len() + 1);
                parts.push(format!("{{{name}}}"));
                let schema = json!({ "example": part });
                parameters.push(RouteParameter { name, place: ParameterPlace::Path, required: true, schema });
            } else {
                parts.push(part.to_owned());
            }
        }
        Route {
            method: self.method.clone(),
            template: parts.join("/"),
            class: tenant.is_some().then_some(RouteClass::Tenant),
            tenant_parameter: tenant,
            parameters,
            body: self.body.as_ref().map(|body| json!({ "example": body })),
            example: self.body.as_ref().map(with_canaries),
            reads: self.method.is_safe(),
        }
    }
}

/// A number or an id: a part of a path that names a row.
fn is_key(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let is_number = !part.is_empty() && digits == part.len();
    is_number
        || (part.len() >= 16 && digits >= 4 && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
}

/// The body with canaries in the place of its free texts. A date, an id or an address has a digit or a mark.
fn with_canaries(body: &Value) -> Value {
    match body {
        Value::Object(object) => object.iter().map(|(name, value)| (name.clone(), with_canaries(value))).collect(),
        Value::Array(items) => items.iter().map(with_canaries).collect(),
        Value::String(text) if text.chars().all(|c| c.is_alphabetic() || c == ' ') => {
            Value::String("{canary}".to_owned())
        }
        other => other.clone(),
    }
}

impl<S, B> Service<Request<Full<Bytes>>> for RecordingService<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let bytes = body_bytes(&body);
        let request = Request::from_parts(parts, body);
        self.recorder.note(&request, &bytes);
        self.inner.call(request)
    }
}

/// A whole body is in memory, so it is read without waiting.
fn body_bytes(body: &Full<Bytes>) -> Bytes {
    use http_body_util::BodyExt as _;
    let collected = body.clone().collect();
    let mut collected = std::pin::pin!(collected);
    let mut context = Context::from_waker(std::task::Waker::noop());
    match std::future::Future::poll(collected.as_mut(), &mut context) {
        Poll::Ready(Ok(body)) => body.to_bytes(),
        _ => Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn requests_become_routes() {
        let recorder = RequestRecorder::default();
        let answer = |_: Request<Full<Bytes>>| async {
            Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
        };
        let service = recorder.record(tower::service_fn(answer));
        let send = async |method: &str, path: &str, body: &'static str| {
            let request = Request::builder().method(method).uri(path).body(Full::from(body)).unwrap();
            service.clone().oneshot(request).await.unwrap();
        };
        send("GET", "/t/acme/tasks", "").await;
        send("POST", "/t/globex/tasks", r#"{"title":"buy milk","due":"2026-01-01","count":3}"#).await;
        send("GET", "/t/acme/tasks/17?full=1", "").await;
        send("GET", "/t/acme/tasks/18", "").await;
        send("GET", "/health", "").await;
        let inventory = recorder.inventory(&["acme", "globex"]);
        let labels: Vec<_> = inventory.routes().iter().map(Route::label).collect();
        assert_eq!(
            labels,
            ["GET /health", "GET /t/{tenant}/tasks", "POST /t/{tenant}/tasks", "GET /t/{tenant}/tasks/{key1}"]
        );
        let example = inventory.routes()[2].example.as_ref().unwrap();
        assert_eq!(example, &json!({ "title": "{canary}", "due": "2026-01-01", "count": 3 }));
        assert_eq!(inventory.without_class().into_iter().collect::<Vec<_>>(), ["GET /health"]);
    }
}
