//! Metrics: the number of requests by method and route. A route is a pattern and names no organisation.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing;

use crate::zoo::{UNPOISONED, Zoo};

pub(crate) fn routes() -> Router<Zoo> {
    Router::new().route("/metrics", routing::get(show_metrics))
}

/// Counts each request to a route.
pub fn count_requests(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), count_request))
}

async fn count_request(State(zoo): State<Zoo>, request: Request, next: Next) -> Response {
    if let Some(route) = request.extensions().get::<MatchedPath>() {
        let key = (request.method().to_string(), route.as_str().to_owned());
        *zoo.memory.requests.lock().expect(UNPOISONED).entry(key).or_default() += 1;
    }
    next.run(request).await
}

async fn show_metrics(State(zoo): State<Zoo>) -> impl IntoResponse {
    let mut text = String::from("# TYPE tasks_requests_total counter\n");
    for ((method, route), count) in zoo.memory.requests.lock().expect(UNPOISONED).iter() {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "tasks_requests_total{{method=\"{method}\",route=\"{route}\"}} {count}");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
