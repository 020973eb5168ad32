//! Bodies that an application accepts, for routes whose schema does not say enough.

use serde_json::Value;

use crate::canary::Canaries;
use crate::world::Side;

/// The text that becomes a canary.
const PLACE: &str = "{canary}";

/// A body for one route.
#[derive(Debug, Clone)]
pub struct RequestExample {
    /// The route: `POST /t/{tenant}/query`.
    pub route: String,
    /// The JSON body. `{canary}` in its texts becomes a canary of the tenant that sends it.
    pub body: Value,
    /// Whether the request only reads, although its method may change something.
    pub reads: bool,
}

/// The body with canaries.
pub(crate) fn filled_example(body: &Value, canaries: &Canaries, side: Side, route: &str) -> Value {
    match body {
        Value::String(text) if text.contains(PLACE) => {
            Value::String(text.replace(PLACE, &canaries.issue(side, &format!("{route}: its example"))))
        }
        Value::Array(items) => items.iter().map(|item| filled_example(item, canaries, side, route)).collect(),
        Value::Object(object) => {
            object.iter().map(|(name, value)| (name.clone(), filled_example(value, canaries, side, route))).collect()
        }
        other => other.clone(),
    }
}
