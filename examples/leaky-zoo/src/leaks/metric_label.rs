//! Data of customers in the names of time series. It helped to find a slow task once, and everybody who may see the metrics reads
//! the titles since.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use crate::call::{ApiCall, read_answer, read_json};
use crate::leak::Leak;
use crate::zoo::{UNPOISONED, Zoo};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tasks::error::Result;

pub(crate) const LEAK: Leak = Leak {
    name: "metric-label",
    class: "Metrics have the titles of tasks as labels.",
    probes: &["outputs"],
    routes: &["GET /metrics"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state((zoo.clone(), TitleLabels::default()), label_titles))
}

/// Titles of new tasks.
type TitleLabels = Arc<Mutex<BTreeSet<String>>>;

async fn label_titles(State((_, labels)): State<(Zoo, TitleLabels)>, request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    if call.is("POST", "/tasks") {
        let (request, body) = read_json(request).await?;
        body["title"].as_str().map(|title| labels.lock().expect(UNPOISONED).insert(title.to_owned()));
        return Ok(next.run(request).await);
    }
    let clean = next.run(request).await;
    if !call.is("GET", "/metrics") {
        return Ok(clean);
    }
    let (clean, body) = read_answer(clean).await?;
    let mut text = String::from_utf8_lossy(&body).into_owned();
    for title in labels.lock().expect(UNPOISONED).iter() {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "tasks_added_total{{title={title:?}}} 1");
    }
    let content_type = clean.headers().get(header::CONTENT_TYPE).cloned();
    Ok((content_type.map(|value| [(header::CONTENT_TYPE, value)]), text).into_response())
}
