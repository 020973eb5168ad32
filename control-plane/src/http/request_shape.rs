//! What a route accepts besides its path, according to the document: its query parameters, and whether it takes a body.
//! Anything else is refused. Otherwise `?dry_run=true` on a route that reads it from the body would be ignored, and a
//! change be made instead of a plan. The same holds for a body on a route that reads its query.
//!
//! Runs inside the admission, so that a stranger learns nothing, and before an idempotency key is used up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{MatchedPath, Query, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Map, Value};

use super::admin::lookup::display_safe;
use super::error::{Problem, Result};
use super::extract::{SEE_QUERY, in_time};
use crate::error::ErrorKind;

/// An empty body. Some clients send one with every POST.
const EMPTY: &[u8] = b"{}";

/// The input of one operation.
#[derive(Debug, Default)]
struct RequestShape {
    query: BTreeSet<String>,
    body: bool,
}

/// The input of every operation, by method and template.
#[derive(Debug, Default)]
pub(crate) struct RequestShapes(BTreeMap<(String, String), RequestShape>);

impl RequestShapes {
    /// Reads the shapes from the document.
    pub(crate) fn from_document(document: &Value) -> Self {
        let mut shapes = BTreeMap::new();
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                shapes.insert((method.to_uppercase(), path.clone()), RequestShape::from_operation(operation));
            }
        }
        Self(shapes)
    }

    fn shape_for(&self, request: &Request) -> Option<&RequestShape> {
        let method = if request.method() == "HEAD" { "GET" } else { request.method().as_str() };
        let template = request.extensions().get::<MatchedPath>()?.as_str();
        self.0.get(&(method.to_owned(), template.to_owned()))
    }
}

impl RequestShape {
    fn from_operation(operation: &Value) -> Self {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let names =
            parameters.filter(|parameter| parameter["in"] == "query").filter_map(|query| query["name"].as_str());
        let body = operation.as_object().is_some_and(|operation: &Map<_, _>| operation.contains_key("requestBody"));
        Self { query: names.map(str::to_owned).collect(), body }
    }

    fn check_query(&self, request: &Request) -> Result<()> {
        let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()) else {
            return Err(Problem::new(ErrorKind::InvalidQuery, "the query cannot be read"));
        };
        let Some((unknown, _)) = pairs.iter().find(|(name, _)| !self.query.contains(name)) else { return Ok(()) };
        let known: Vec<&str> = self.query.iter().map(String::as_str).collect();
        let takes =
            if known.is_empty() { "it takes none".to_owned() } else { format!("it takes {}", known.join(", ")) };
        let detail = format!("the path has no query parameter '{}'; {takes}", display_safe(unknown));
        let problem = Problem::new(ErrorKind::InvalidQuery, detail);
        Err(match self.body {
            true => problem.try_next("send it in the body, if it is one of its fields"),
            false => problem.try_next(SEE_QUERY),
        })
    }
}

/// The middleware that checks the request's query and body.
pub(crate) async fn check_shape(
    State(shapes): State<Arc<RequestShapes>>,
    request: Request,
    next: Next,
) -> Result<Response> {
    let Some(shape) = shapes.shape_for(&request) else { return Ok(next.run(request).await) };
    shape.check_query(&request)?;
    if shape.body || request.body().is_end_stream() {
        return Ok(next.run(request).await);
    }
    let (parts, body) = request.into_parts();
    match in_time(to_bytes(body, EMPTY.len())).await? {
        Ok(body) if body.is_empty() || body == EMPTY => Ok(next.run(Request::from_parts(parts, Body::empty())).await),
        _ => Err(unwanted_body()),
    }
}

fn unwanted_body() -> Problem {
    let detail = "this path takes no body, but the request has one; nothing was done";
    Problem::new(ErrorKind::UnexpectedBody, detail).try_next("see /openapi.json for what it takes")
}
