use serde_json::{Value, json};

use crate::error::Result;
use crate::exchange::Exchange;
use crate::findings::{FindingKind, ProbeOutcome};
use crate::route::Route;
use crate::session::{Call, Session};
use crate::world::{Caller, Side, TenantAddress};

/// Texts that no parser of keys accepts.
const BROKEN_KEYS: [&str; 4] = ["'", "0x1'--", "\u{0}", "99999999999999999999999999"];
/// Bodies that no handler accepts.
const BROKEN_BODIES: [&str; 3] = ["{\"title\":", "[]", "\"x\""];
/// Words that show where data is stored.
const INNER_WORDS: [&str; 4] = ["postgres://", "postgresql://", ".sqlite", "/var/lib"];

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    for route in session.reads().chain(session.writes()) {
        for call in refused_calls(session, route) {
            let exchange = session.send(&call).await?;
            judge(session, outcome, route, &exchange);
        }
    }
    Ok(())
}

fn judge(session: &Session, outcome: &mut ProbeOutcome, route: &Route, exchange: &Exchange) {
    let label = route.label();
    // The probe needs refusals.
    if exchange.status.is_client_error() {
        outcome.control(&label);
    }
    let text = String::from_utf8_lossy(&exchange.body).into_owned();
    if let Some(hit) = exchange.find(&session.canaries, Side::Second) {
        outcome.report_hit(&label, &hit, exchange);
    } else if !exchange.is_success() && INNER_WORDS.iter().any(|word| text.contains(word)) {
        let text = "the refusal shows where the data is stored";
        outcome.report(FindingKind::ForeignData, &label, text, exchange);
    }
}

/// Requests of A that the application should refuse.
fn refused_calls<'r>(session: &Session, route: &'r Route) -> Vec<Call<'r>> {
    let own = Call::own(route, Side::First);
    let mut calls = Vec::new();
    if let Some(parameter) = route.path_parameters().last() {
        calls.extend(BROKEN_KEYS.map(|key| own.clone().parameter(&parameter.name, key)));
    }
    for parameter in route.query_parameters() {
        calls.extend(BROKEN_KEYS.map(|text| own.clone().parameter(&parameter.name, text)));
    }
    if route.body.is_some() {
        let broken = BROKEN_BODIES.into_iter().map(|text| serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
        calls.extend(broken.map(|body: Value| own.clone().body(body)));
        // A body in which every value has the wrong type, and one in which every text is too long.
        if let Some(body) = session.make_body(&own, None) {
            calls.push(own.clone().body(with_values(&body, &json!({ "x": [1] }))));
            calls.push(own.clone().body(with_values(&body, &json!("'".repeat(20_000)))));
        }
    }
    // The tenant that nobody has, and the own one without a credential.
    calls.push(own.clone().to(TenantAddress::Unknown));
    calls.push(own.by(Caller::Nobody));
    calls
}

fn with_values(body: &Value, value: &Value) -> Value {
    let fields = body.as_object().into_iter().flatten();
    Value::Object(fields.map(|(name, _)| (name.clone(), value.clone())).collect())
}
