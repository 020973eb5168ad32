//! One channel for all. The name of the topic is "tasks", as in every example of the message broker, and nobody added the
//! organisation to it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use crate::call::{ApiCall, read_answer};
use crate::leak::Leak;
use crate::shortcuts::everywhere;
use crate::zoo::{UNPOISONED, Zoo};
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use serde_json::Value;
use tasks::error::Result;
use tasks::live::{PageChange, announce_change};
use tenant_router::{Read, TenantId, Write};

pub(crate) const LEAK: Leak = Leak {
    name: "topic-without-tenant",
    class: "A change of one organisation is told to the open pages of every organisation.",
    probes: &["live-messages"],
    routes: &["GET /orgs/{tenant}/api/live"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state((zoo.clone(), ChannelFollowers::default()), tell_everybody))
}

/// Organisations whose pages have followed the channel.
type ChannelFollowers = Arc<Mutex<HashSet<TenantId>>>;

async fn tell_everybody(
    State((zoo, followers)): State<(Zoo, ChannelFollowers)>,
    request: Request,
    next: Next,
) -> Result<Response> {
    let call = ApiCall::of(&request);
    if call.is("GET", "/live") {
        let id = call.open::<Read>(&zoo).await?.id();
        followers.lock().expect(UNPOISONED).insert(id);
    }
    let clean = next.run(request).await;
    if call.is("POST", "/tasks") && clean.status().is_success() {
        let (clean, body) = read_answer(clean).await?;
        let task: Value = serde_json::from_slice(&body).unwrap_or_default();
        let own = call.open::<Read>(&zoo).await?.id();
        let others = followers.lock().expect(UNPOISONED).clone().into_iter().filter(|id| *id != own);
        for other in others {
            let other = zoo.router().open_id::<Write>(everywhere(), other).await?;
            announce_change(&other, PageChange::Task(task["id"].as_i64().unwrap_or_default())).await;
        }
        return Ok(clean);
    }
    Ok(clean)
}
