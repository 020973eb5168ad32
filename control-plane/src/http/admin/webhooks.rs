//! `/v1/webhooks`: the addresses that get the fleet's events, their logs, and tests of them.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use catalog::webhooks::deliveries::{self, DeliveryRecord, DeliveryResult};
use catalog::webhooks::{self, WebhookRecord, WebhookState};
use catalog::{ReadTx, TenantId, WebhookId, WriteTx, events, tenants};
use fleet_api::changes::{ChangeOptions, PlannedChange};
use fleet_api::pages::PageOf;
use fleet_api::problem::ProblemBody;
use fleet_api::webhooks::{NewWebhook, WebhookDelivery, WebhookListQuery, WebhookMade, WebhookView};
use secrecy::ExposeSecret as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{CatalogChange, check_reason, finish_change};
use super::events::kinds::parse_kinds;
use super::lookup;
use crate::http::ApiState;
use crate::http::admin::words::word_of;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams};
use crate::http::pages::PageWindow;
use crate::time_text::format_time;
use crate::webhooks::client::WebhookRequest;
use crate::webhooks::message::test_message;
use crate::webhooks::target::parse_target;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_webhooks, add_webhook))
        .routes(routes!(remove_webhook))
        .routes(routes!(pause_webhook))
        .routes(routes!(resume_webhook))
        .routes(routes!(test_webhook))
        .routes(routes!(list_deliveries))
}

fn webhook_view(webhook: WebhookRecord, tenant: Option<String>) -> WebhookView {
    let waits = webhook.state == WebhookState::Failing && webhook.failures > 0;
    WebhookView {
        id: webhook.id.to_string(),
        url: webhook.url,
        kinds: webhook.kinds,
        tenant_id: webhook.tenant_id.map(|id| id.to_string()),
        tenant,
        allow_private: webhook.private_allowed,
        state: word_of(&webhook.state),
        sent_seq: webhook.sent_seq,
        failures: webhook.failures,
        next_attempt_at: Some(webhook.next_attempt_at).filter(|_| waits).map(format_time),
        delivered_at: webhook.delivered_at.map(format_time),
        created_at: format_time(webhook.created_at),
    }
}

fn delivery_view(made: DeliveryRecord) -> WebhookDelivery {
    WebhookDelivery {
        number: made.number,
        event_seq: made.event_seq,
        kind: made.kind,
        message_id: made.message_id,
        attempt: made.attempt,
        at: format_time(made.at),
        result: word_of(&made.result),
        status: made.status,
        error: made.error,
        duration_ms: made.duration_ms,
    }
}

/// List the webhooks, ordered by id. Never shows their secrets.
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", params(WebhookListQuery),
    responses((status = 200, description = "One page of the list", body = PageOf<WebhookView>), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn list_webhooks(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    QueryParams(part): QueryParams<WebhookListQuery>,
) -> Result<JsonBody<PageOf<WebhookView>>> {
    let window = PageWindow::open_window(&api, &caller, "webhooks", &part, (part.limit, part.cursor.as_deref()))?;
    let mut tx = api.app.catalog.read().await?;
    let rows = webhooks::list_webhooks(&mut tx, window.after_key()?, window.rows_to_read()).await?;
    let names = tenant_names(&mut tx, &rows).await?;
    let view = |row: WebhookRecord| {
        let tenant = row.tenant_id.and_then(|id| names.get(&id).cloned());
        webhook_view(row, tenant)
    };
    Ok(JsonBody(window.into_page(rows, |row| row.id.to_string(), view)))
}

/// Add a webhook.
///
/// It gets the events after this moment, in order, each at least once. The answer shows the secret that verifies the
/// signatures; it is never shown again.
#[utoipa::path(post, path = "/v1/webhooks", tag = "webhooks", request_body = NewWebhook,
    responses((status = 201, description = "The webhook and its secret", body = WebhookMade), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn add_webhook(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(new): JsonBody<NewWebhook>,
) -> Result<Response> {
    check_reason(new.reason.as_deref())?;
    let url = parse_target(&new.url, new.allow_private).map_err(|error| Problem::invalid(format!("url: {error}")))?;
    let kinds = parse_kinds(&new.kinds)?;
    let mut tx = api.app.catalog.write().await?;
    let tenant = match &new.tenant {
        Some(name) => Some(lookup::find_tenant(&mut tx, name).await?),
        None => None,
    };
    let wanted = webhooks::NewWebhook {
        url: url.to_string(),
        kinds,
        tenant_id: tenant.as_ref().map(|tenant| tenant.id),
        private_allowed: new.allow_private,
    };
    let (webhook, secret) = webhooks::add_webhook(&mut tx, wanted).await?;
    let data = serde_json::json!({
        "webhook": webhook.id.to_string(),
        "url": webhook.url,
        "kinds": webhook.kinds,
        "tenant_id": webhook.tenant_id.map(|id| id.to_string()),
        "allow_private": webhook.private_allowed,
    });
    // An event of the fleet, also if the webhook is about one tenant: a tenant's log does not show its operator's tools.
    let event = caller.caller_event("webhook.added", None, data, new.reason.as_deref());
    events::append_events(&mut tx, &[event]).await?;
    let action = format!("events would be sent to {}", webhook.url);
    let change = CatalogChange { kind: "webhook.added", tenant: None, action };
    let made = WebhookMade {
        webhook: webhook_view(webhook, tenant.map(|tenant| tenant.name)),
        secret: secret.expose_secret().to_owned(),
    };
    finish_change(tx, &caller, new.dry_run, change, (StatusCode::CREATED, JsonBody(made))).await
}

/// Remove a webhook and its log. Events that it has not got are not sent.
#[utoipa::path(delete, path = "/v1/webhooks/{webhook}", tag = "webhooks", params(("webhook" = String, Path, description = "Id of the webhook"), ChangeOptions),
    responses((status = 204, description = "The webhook was removed"), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn remove_webhook(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    QueryParams(wish): QueryParams<ChangeOptions>,
) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let mut tx = api.app.catalog.write().await?;
    let webhook = find_webhook(&mut tx, &id).await?;
    webhooks::remove_webhook(&mut tx, webhook.id).await?;
    let change = ("webhook.removed", "would be removed");
    append_change(&mut tx, &caller, &webhook, change.0, wish.reason.as_deref()).await?;
    finish_change(tx, &caller, wish.dry_run, planned(change, webhook.id), StatusCode::NO_CONTENT).await
}

/// Pause a webhook. Nothing is sent until it is resumed; its place in the events is kept.
#[utoipa::path(post, path = "/v1/webhooks/{webhook}/pause", tag = "webhooks", request_body = ChangeOptions, params(("webhook" = String, Path, description = "Id of the webhook")),
    responses((status = 200, description = "The paused webhook, or the plan of the dry run", body = WebhookView), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn pause_webhook(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    JsonBody(wish): JsonBody<ChangeOptions>,
) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let mut tx = api.app.catalog.write().await?;
    let webhook = find_webhook(&mut tx, &id).await?;
    let webhook = webhooks::pause_webhook(&mut tx, webhook.id).await?;
    finish_state(tx, &caller, webhook, ("webhook.paused", "would be paused"), wish).await
}

/// Resume a paused webhook. It gets the events that it missed, as far as the history still has them.
#[utoipa::path(post, path = "/v1/webhooks/{webhook}/resume", tag = "webhooks", request_body = ChangeOptions, params(("webhook" = String, Path, description = "Id of the webhook")),
    responses((status = 200, description = "The enabled webhook, or the plan of the dry run", body = WebhookView), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn resume_webhook(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    JsonBody(wish): JsonBody<ChangeOptions>,
) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let mut tx = api.app.catalog.write().await?;
    let webhook = find_webhook(&mut tx, &id).await?;
    let webhook = webhooks::resume_webhook(&mut tx, webhook.id).await?;
    finish_state(tx, &caller, webhook, ("webhook.resumed", "would be resumed"), wish).await
}

/// Send a signed test message to a webhook now, also to a paused one. Waits for the answer, up to 20 seconds.
#[utoipa::path(post, path = "/v1/webhooks/{webhook}/test", tag = "webhooks", params(("webhook" = String, Path, description = "Id of the webhook")),
    responses((status = 200, description = "The attempt, which may have failed", body = WebhookDelivery), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn test_webhook(
    State(api): State<ApiState>,
    PathParams(id): PathParams<String>,
) -> Result<JsonBody<WebhookDelivery>> {
    let now = api.app.catalog.now();
    let (webhook, key) = {
        let mut tx = api.app.catalog.read().await?;
        let webhook = find_webhook(&mut tx, &id).await?;
        let key = webhooks::signing_key(&mut tx, webhook.id).await?;
        (webhook, key.ok_or_else(|| missing_webhook(&id))?)
    };
    let message = test_message(webhook.id, now);
    let request = WebhookRequest {
        url: &webhook.url,
        private_allowed: webhook.private_allowed,
        key: key.expose_secret(),
        message: &message,
        now,
    };
    let answer = api.app.webhooks.send_message(request).await;
    let mut made = DeliveryRecord {
        number: 0,
        event_seq: None,
        message_id: message.id,
        kind: message.kind,
        attempt: 1,
        at: now,
        result: if answer.error.is_none() { DeliveryResult::Delivered } else { DeliveryResult::Failed },
        status: answer.status.map(i64::from),
        error: answer.error,
        duration_ms: answer.duration_ms,
    };
    let mut tx = api.app.catalog.write().await?;
    // A webhook that was removed meanwhile has no log.
    find_webhook(&mut tx, &id).await?;
    made.number = deliveries::append_delivery(&mut tx, webhook.id, &made).await?;
    tx.commit().await?;
    Ok(JsonBody(delivery_view(made)))
}

/// List the latest attempts of a webhook, newest first. The log keeps 500.
#[utoipa::path(get, path = "/v1/webhooks/{webhook}/deliveries", tag = "webhooks", params(("webhook" = String, Path, description = "Id of the webhook"), WebhookListQuery),
    responses((status = 200, description = "One page of the list", body = PageOf<WebhookDelivery>), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn list_deliveries(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    QueryParams(part): QueryParams<WebhookListQuery>,
) -> Result<JsonBody<PageOf<WebhookDelivery>>> {
    let mut tx = api.app.catalog.read().await?;
    let webhook = find_webhook(&mut tx, &id).await?;
    let list = format!("deliveries {}", webhook.id);
    let window = PageWindow::open_window(&api, &caller, &list, &part, (part.limit, part.cursor.as_deref()))?;
    let rows = deliveries::list_deliveries(&mut tx, webhook.id, window.after_key()?, window.rows_to_read()).await?;
    Ok(JsonBody(window.into_page(rows, |row| row.number.to_string(), delivery_view)))
}

/// Ends a change of the state, with its event.
async fn finish_state(
    mut tx: WriteTx,
    caller: &AdmittedCaller,
    webhook: WebhookRecord,
    change: (&'static str, &str),
    wish: ChangeOptions,
) -> Result<Response> {
    append_change(&mut tx, caller, &webhook, change.0, wish.reason.as_deref()).await?;
    let names = tenant_names(&mut tx, std::slice::from_ref(&webhook)).await?;
    let tenant = webhook.tenant_id.and_then(|id| names.get(&id).cloned());
    let planned = planned(change, webhook.id);
    finish_change(tx, caller, wish.dry_run, planned, JsonBody(webhook_view(webhook, tenant))).await
}

fn planned((kind, would): (&'static str, &str), id: WebhookId) -> CatalogChange {
    CatalogChange { kind, tenant: None, action: format!("{id} {would}") }
}

async fn append_change(
    tx: &mut WriteTx,
    caller: &AdmittedCaller,
    webhook: &WebhookRecord,
    kind: &'static str,
    reason: Option<&str>,
) -> Result<()> {
    let data = serde_json::json!({ "webhook": webhook.id.to_string(), "url": webhook.url });
    Ok(events::append_events(tx, &[caller.caller_event(kind, None, data, reason)]).await?)
}

async fn find_webhook(tx: &mut ReadTx, id: &str) -> Result<WebhookRecord> {
    webhooks::get(tx, lookup::parse_id(id)?).await?.ok_or_else(|| missing_webhook(id))
}

fn missing_webhook(id: &str) -> Problem {
    Problem::not_found(format!("the webhook {} does not exist", lookup::display_safe(id)))
        .try_next("fleetctl webhook list")
}

/// The names of the tenants of these webhooks.
async fn tenant_names(tx: &mut ReadTx, rows: &[WebhookRecord]) -> Result<HashMap<TenantId, String>> {
    let ids: Vec<TenantId> = rows.iter().filter_map(|row| row.tenant_id).collect();
    let found = tenants::get_many(tx, &ids).await?;
    Ok(found.into_iter().map(|tenant| (tenant.id, tenant.name)).collect())
}
