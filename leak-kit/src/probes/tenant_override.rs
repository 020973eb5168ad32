use serde_json::{Value, json};

use crate::error::Result;
use crate::findings::{FindingKind, ProbeOutcome};
use crate::session::{Call, Session};
use crate::views::{TenantView, reading_calls};
use crate::world::Side;

/// Headers with which applications name a tenant or a person.
const HEADERS: [&str; 16] = [
    "x-tenant",
    "x-tenant-id",
    "x-tenant-name",
    "tenant",
    "x-org",
    "x-org-id",
    "x-organization",
    "x-organisation",
    "x-organization-id",
    "x-account",
    "x-workspace",
    "x-customer",
    "x-impersonate",
    "x-forwarded-host",
    "x-original-url",
    "x-on-behalf-of",
];
/// Names of fields and query parameters with which applications name a tenant.
const FIELDS: [&str; 14] = [
    "tenant",
    "tenant_id",
    "tenantId",
    "org",
    "org_id",
    "organization",
    "organisation",
    "organization_id",
    "account",
    "workspace",
    "customer",
    "as",
    "impersonate",
    "on_behalf_of",
];

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    let name = session.world.tenant(Side::Second).name.clone();
    for call in reading_calls(session, Side::First) {
        let plain = session.send(&call).await?;
        if plain.is_success() {
            outcome.control(&call.route.label());
        }
        let with_headers = HEADERS.iter().map(|header| call.clone().header(header, &name));
        let with_query = FIELDS.iter().map(|field| call.clone().query(field, &name));
        for changed in with_headers.chain(with_query) {
            check_read(session, outcome, &changed).await?;
        }
    }
    check_writes(session, outcome, &name).await
}

async fn check_read(session: &Session, outcome: &mut ProbeOutcome, call: &Call<'_>) -> Result<()> {
    let exchange = session.send(call).await?;
    if let Some(hit) = exchange.find(&session.canaries, Side::Second) {
        outcome.report_hit(&call.route.label(), &hit, &exchange);
    }
    Ok(())
}

/// Changes of A that name B, one kind of name at a time. B must stay as it is.
async fn check_writes(session: &Session, outcome: &mut ProbeOutcome, name: &str) -> Result<()> {
    for route in session.writes().filter(|route| route.method != http::Method::DELETE) {
        let label = route.label();
        let (one, two) = (read_second(session).await?, read_second(session).await?);
        let own = Call::own(route, Side::First);
        for header in HEADERS {
            session.send_as_owner(own.clone().header(header, name)).await?;
        }
        for field in FIELDS {
            session.send_as_owner(own.clone().query(field, name)).await?;
        }
        for body in bodies_with_fields(session, &own, name) {
            session.send_as_owner(own.clone().body(body)).await?;
        }
        let after = read_second(session).await?;
        outcome.attempt(&label);
        let changed = after.changes(session, (&one, &two));
        if let Some((shown_by, exchange)) = changed.first() {
            let text =
                format!("the request of tenant a named tenant b, and the answer for tenant b at {shown_by} changed");
            outcome.report(FindingKind::ForeignEffect, &label, text, exchange);
        }
    }
    Ok(())
}

async fn read_second(session: &Session) -> Result<TenantView> {
    TenantView::read(session, Side::Second).await
}

/// The body with each field, at its top and in its inner objects.
fn bodies_with_fields(session: &Session, call: &Call<'_>, name: &str) -> Vec<Value> {
    let make = |field: &str| {
        let mut body = session.make_body(call, None)?;
        add_field(&mut body, field, name);
        Some(body)
    };
    FIELDS.iter().filter_map(|field| make(field)).collect()
}

fn add_field(value: &mut Value, field: &str, name: &str) {
    match value {
        Value::Object(object) => {
            object.values_mut().for_each(|inner| add_field(inner, field, name));
            object.insert(field.to_owned(), json!(name));
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| add_field(inner, field, name)),
        _ => {}
    }
}
