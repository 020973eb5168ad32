//! A table of answers whose key lacks the tenant. Keys are random in one client and a running number in the next one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::call::{ApiCall, read_answer};
use crate::extras::imports::idempotency_key;
use crate::leak::Leak;
use crate::zoo::{UNPOISONED, Zoo};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tasks::error::Result;
use tenant_router::Write;

pub(crate) const LEAK: Leak = Leak {
    name: "idempotency-key",
    class: "An idempotency key that another organisation has used returns that organisation's answer.",
    probes: &["idempotency-keys"],
    routes: &["POST /orgs/{tenant}/api/imports"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state((zoo.clone(), AnswersByKey::default()), import_task))
}

/// Answers by the key alone.
type AnswersByKey = Arc<Mutex<HashMap<String, Bytes>>>;

async fn import_task(
    State((zoo, answers)): State<(Zoo, AnswersByKey)>,
    request: Request,
    next: Next,
) -> Result<Response> {
    let call = ApiCall::of(&request);
    let Some(key) = idempotency_key(request.headers()).filter(|_| call.is("POST", "/imports")) else {
        return Ok(next.run(request).await);
    };
    call.open::<Write>(&zoo).await?;
    let known = answers.lock().expect(UNPOISONED).get(&key).cloned();
    if let Some(body) = known {
        return Ok((StatusCode::CREATED, [(header::CONTENT_TYPE, "application/json")], body).into_response());
    }
    let (clean, body) = read_answer(next.run(request).await).await?;
    if clean.status().is_success() {
        answers.lock().expect(UNPOISONED).insert(key, body);
    }
    Ok(clean)
}
