//! Sign-in and access mixed up: to save a look-up, a layer remembers that a token is valid. It forgets for which organisation it was
//! valid, and the rest of the program trusts the path.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use crate::call::{ApiCall, readdress};
use crate::leak::Leak;
use crate::zoo::{UNPOISONED, Zoo};
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tenant_router::Read;

pub(crate) const LEAK: Leak = Leak {
    name: "token-cache",
    class: "A token that was accepted once opens every organisation that the path names.",
    probes: &["foreign-address"],
    routes: &["GET /orgs/{tenant}/api/tasks", "POST /orgs/{tenant}/api/tasks"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state((zoo.clone(), AcceptedTokens::default()), accept_token))
}

/// Tokens that were accepted.
type AcceptedTokens = Arc<Mutex<HashSet<String>>>;

async fn accept_token(
    State((zoo, accepted)): State<(Zoo, AcceptedTokens)>,
    mut request: Request,
    next: Next,
) -> Response {
    let call = ApiCall::of(&request);
    let Some(token) = call.credential.clone().filter(|_| call.is_api()) else {
        return next.run(request).await;
    };
    if call.open::<Read>(&zoo).await.is_ok() {
        accepted.lock().expect(UNPOISONED).insert(token);
    } else if accepted.lock().expect(UNPOISONED).contains(&token) {
        readdress(&mut request, &call.organisation);
    }
    next.run(request).await
}
