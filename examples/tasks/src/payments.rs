//! Webhooks of the payment service. The operator links an organisation's account with the service once:
//! `fleetctl tenant account link acme payments acct_1 --secret-file secret.txt`.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Json, Router, routing};
use serde::{Deserialize, Serialize};
use tenant_router::{AccountSource, Read, Tenant, WebhookProvider, params};

use crate::Application;
use crate::error::{RequestError, Result};
use crate::live::{PageChange, announce_change};

/// The part of an event that this application reads. What else it says, for instance about customers, changes nothing.
#[derive(Debug, Deserialize)]
struct PaymentEvent {
    #[serde(rename = "type")]
    kind: String,
    data: PaymentData,
}

#[derive(Debug, Deserialize)]
struct PaymentData {
    amount: i64,
}

/// The plan of an organisation, and what it has paid.
#[derive(Debug, Serialize, Deserialize)]
struct PlanSummary {
    plan: String,
    paid: i64,
}

pub(crate) fn routes() -> Router<Application> {
    Router::new().route("/plan", routing::get(show_plan))
}

/// The address for the payment service. The account is in the path, and the signature proves it.
pub(crate) fn webhook_routes() -> Router<Application> {
    Router::new().route("/webhooks/payments/{account}", routing::post(receive_payment))
}

async fn show_plan(tenant: Tenant<Read>) -> Result<Json<PlanSummary>> {
    let sql = "select plan, (select coalesce(cast(sum(amount) as bigint), 0) from payments) as paid from organisation";
    Ok(Json(tenant.query_as(sql, ()).fetch_one().await?))
}

async fn receive_payment(
    State(application): State<Application>,
    Path(account): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode> {
    let payments = WebhookProvider::standard("payments", AccountSource::Path);
    let webhook = application.router.receive_webhook(&payments, Some(&account), &headers, &body).await?;
    let event: PaymentEvent =
        serde_json::from_slice(&body).map_err(|_| RequestError::invalid("The event is not one of a payment"))?;
    let mut tx = webhook.tenant().write();
    if event.kind == "invoice.paid" && webhook.accept(&mut tx).await? {
        let sql = "insert into payments (event, amount) values ($1, $2)";
        tx.execute(sql, params![webhook.event_id(), event.data.amount]).await?;
        tx.execute("update organisation set plan = 'paid'", ()).await?;
        tx.commit().await?;
        announce_change(webhook.tenant(), PageChange::Plan).await;
    }
    Ok(StatusCode::NO_CONTENT)
}
