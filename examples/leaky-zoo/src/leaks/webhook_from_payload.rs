//! A webhook whose signature is checked and whose content is then trusted too far. The sender signs what its customer wrote, and
//! the customer wrote the name of another organisation.

use crate::call::read_body;
use crate::leak::Leak;
use crate::shortcuts::open_unchecked;
use crate::zoo::Zoo;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tasks::error::Result;
use tenant_router::{AccountSource, WebhookProvider, Write};

pub(crate) const LEAK: Leak = Leak {
    name: "webhook-from-payload",
    class: "The field organisation of a payment decides whose plan is paid.",
    probes: &["webhook-payloads"],
    routes: &["POST /webhooks/payments/{account}"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), receive_payment))
}

async fn receive_payment(State(zoo): State<Zoo>, request: Request, next: Next) -> Result<Response> {
    let Some(account) = request.uri().path().strip_prefix("/webhooks/payments/").map(str::to_owned) else {
        return Ok(next.run(request).await);
    };
    let (request, body) = read_body(request).await?;
    let event: Value = serde_json::from_slice(&body).unwrap_or_default();
    let named = event["organisation"].as_str().or_else(|| event["data"]["organisation"].as_str());
    let Some(organisation) = named.filter(|_| event["type"] == "invoice.paid") else {
        return Ok(next.run(request).await);
    };
    let payments = WebhookProvider::standard("payments", AccountSource::Path);
    let headers = request.headers().clone();
    let webhook = zoo.router().receive_webhook(&payments, Some(&account), &headers, &body).await?;
    let paid = open_unchecked::<Write>(&zoo, organisation).await?;
    let mut tx = paid.write();
    let values = (webhook.event_id(), event["data"]["amount"].as_i64().unwrap_or_default());
    tx.execute("insert into payments (event, amount) values ($1, $2) on conflict do nothing", values).await?;
    tx.execute("update organisation set plan = 'paid'", ()).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
