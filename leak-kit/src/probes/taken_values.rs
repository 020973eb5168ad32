use serde_json::Value;

use crate::canary::is_canary;
use crate::error::Result;
use crate::findings::{FindingKind, ProbeOutcome};
use crate::session::{Call, Session};
use crate::world::Side;

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    for (position, route) in session.writes().filter(|route| route.body.is_some()).enumerate() {
        let label = route.label();
        let own_body = |side: Side| session.make_body(&Call::own(route, side), None);
        let (Some(theirs), Some(fresh), Some(again)) =
            (own_body(Side::Second), own_body(Side::First), own_body(Side::First))
        else {
            continue;
        };
        // The texts are the same for both, so they are not canaries. A keeps the ids that the caller chooses.
        let texts = format!("taken {position} {}", session.canaries.run());
        let used = session.send_as_owner(Call::own(route, Side::Second).body(with_text(&theirs, &texts))).await?;
        let accepted = session.send_as_owner(Call::own(route, Side::First).body(fresh)).await?;
        outcome.attempt(&label);
        if !(used.is_success() && accepted.is_success()) {
            continue;
        }
        outcome.control(&label);
        let exchange = session.send_as_owner(Call::own(route, Side::First).body(with_text(&again, &texts))).await?;
        if let Some(hit) = exchange.find(&session.canaries, Side::Second) {
            outcome.report_hit(&label, &hit, &exchange);
        } else if exchange.status.is_client_error() {
            let text = "a value is refused that only another tenant uses";
            outcome.report(FindingKind::ExistenceShown, &label, text, &exchange);
        }
    }
    if outcome.attempt_count() == 0 {
        outcome.skip("no route takes values that the OpenAPI document describes");
    }
    Ok(())
}

/// The body with this text in the place of each canary.
fn with_text(body: &Value, text: &str) -> Value {
    match body {
        Value::Object(object) => object.iter().map(|(name, value)| (name.clone(), with_text(value, text))).collect(),
        Value::Array(items) => items.iter().map(|item| with_text(item, text)).collect(),
        Value::String(own) if is_canary(own) => Value::String(text.to_owned()),
        _ => body.clone(),
    }
}
