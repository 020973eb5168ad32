use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::error::{KitError, Result};
use crate::exchange::Exchange;
use crate::findings::{FindingKind, ProbeOutcome};
use crate::route::{Route, RouteClass};
use crate::session::{Call, Session};
use crate::views::TenantView;
use crate::webhooks::WebhookSender;
use crate::world::{Caller, Side};

/// Names of fields that say whom a webhook is about.
const FIELDS: [&str; 10] = [
    "tenant",
    "tenant_id",
    "org",
    "organization",
    "organisation",
    "account",
    "account_id",
    "customer",
    "workspace",
    "client_reference_id",
];

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    let routes: Vec<&Route> = session.routes(RouteClass::Webhook).collect();
    if routes.is_empty() {
        outcome.skip("there is no route of the class `webhook`");
        return Ok(());
    }
    for route in routes {
        let label = route.label();
        outcome.attempt(&label);
        // Without a sender the route counts as a route that the probe could not try.
        for sender in session.extras.webhooks.iter().filter(|sender| sender.route == label) {
            check_sender(session, outcome, route, sender).await?;
        }
    }
    Ok(())
}

async fn check_sender(
    session: &Session,
    outcome: &mut ProbeOutcome,
    route: &Route,
    sender: &WebhookSender,
) -> Result<()> {
    let label = route.label();
    let (one, two) = (TenantView::read(session, Side::First).await?, TenantView::read(session, Side::First).await?);
    let (theirs, again) =
        (TenantView::read(session, Side::Second).await?, TenantView::read(session, Side::Second).await?);
    let mut accepted = None;
    for (position, payload) in hostile_payloads(session, sender).into_iter().enumerate() {
        let sent = send_signed(session, route, sender, (Side::First, Side::First), &payload, position).await?;
        accepted = accepted.or(sent.is_success().then_some(sent));
    }
    // A's secret with B's account: the signature must not count.
    let payload = sender.payload_for(Side::Second);
    let forged = send_signed(session, route, sender, (Side::Second, Side::First), &payload, usize::MAX).await?;
    if forged.is_success() {
        let text = "a webhook for one account was accepted with the secret of another";
        outcome.report(FindingKind::ForeignEffect, &label, text, &forged);
    }
    session.settle().await;
    let own = TenantView::read(session, Side::First).await?;
    if accepted.is_some() && !own.changes(session, (&one, &two)).is_empty() {
        outcome.control(&label);
    }
    let after = TenantView::read(session, Side::Second).await?;
    if let Some((shown_by, exchange)) = after.changes(session, (&theirs, &again)).first() {
        let text = format!("a webhook for tenant a named tenant b, and the answer for tenant b at {shown_by} changed");
        outcome.report(FindingKind::ForeignEffect, &label, text, exchange);
    }
    Ok(())
}

/// The payload as it is, and with each field that may name B, at its top and in its inner objects.
fn hostile_payloads(session: &Session, sender: &WebhookSender) -> Vec<Value> {
    let plain = sender.payload_for(Side::First);
    let names = [session.world.tenant(Side::Second).name.clone(), sender.account(Side::Second).account.clone()];
    let mut payloads = vec![plain.clone()];
    for name in &names {
        for field in FIELDS {
            let mut payload = plain.clone();
            add_field(&mut payload, field, name);
            payloads.push(payload);
        }
    }
    payloads
}

fn add_field(value: &mut Value, field: &str, name: &str) {
    if let Value::Object(object) = value {
        object.values_mut().for_each(|inner| add_field(inner, field, name));
        object.insert(field.to_owned(), json!(name));
    }
}

/// Sends a webhook for the account of one tenant, signed with the secret of another.
async fn send_signed(
    session: &Session,
    route: &Route,
    sender: &WebhookSender,
    (account, secret): (Side, Side),
    payload: &Value,
    position: usize,
) -> Result<Exchange> {
    let late = |error: std::time::SystemTimeError| KitError::new("clock_invalid", error.to_string());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(late)?.as_secs();
    let id = format!("{}-{position}", session.canaries.issue(Side::First, "webhook id"));
    let body = payload.to_string();
    let mut call = Call::own(route, Side::First).by(Caller::Nobody).body(payload.clone());
    for parameter in route.path_parameters() {
        call = call.parameter(&parameter.name, &sender.account(account).account);
    }
    for (name, value) in sender.style.sign(&sender.account(secret).secret, &id, now, body.as_bytes())? {
        call = call.header(name, &value);
    }
    session.send(&call).await
}
