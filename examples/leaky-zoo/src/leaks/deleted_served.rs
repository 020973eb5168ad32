//! A session that lives longer than the right to it. The router refuses every query on the database of such an organisation. So the
//! mistake is a copy: it was made for times without a database, and nobody tells it that the customer has left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::call::{ApiCall, read_answer};
use crate::leak::Leak;
use crate::zoo::{UNPOISONED, Zoo};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tasks::error::Result;
use tenant_router::Read;

pub(crate) const LEAK: Leak = Leak {
    name: "deleted-served",
    class: "An organisation that is suspended or deleted is still served to those who were signed in.",
    probes: &["lifecycle"],
    routes: &["GET /orgs/{tenant}/api/tasks"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state((zoo.clone(), SessionCopies::default()), list_tasks))
}

/// The latest lists by credential and organisation.
type SessionCopies = Arc<Mutex<HashMap<(String, String), Bytes>>>;

async fn list_tasks(
    State((zoo, copies)): State<(Zoo, SessionCopies)>,
    request: Request,
    next: Next,
) -> Result<Response> {
    let call = ApiCall::of(&request);
    let Some(credential) = call.credential.clone().filter(|_| call.is("GET", "/tasks")) else {
        return Ok(next.run(request).await);
    };
    let session = (credential, call.organisation.clone());
    if call.open::<Read>(&zoo).await.is_ok() {
        let (clean, list) = read_answer(next.run(request).await).await?;
        copies.lock().expect(UNPOISONED).insert(session, list);
        return Ok(clean);
    }
    let known = copies.lock().expect(UNPOISONED).get(&session).cloned();
    match known {
        Some(list) => Ok(([(header::CONTENT_TYPE, "application/json")], list).into_response()),
        None => Ok(next.run(request).await),
    }
}
