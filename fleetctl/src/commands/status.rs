//! `fleetctl status`: the fleet in a few lines.

use serde_json::Value;

use crate::client::Request;
use crate::context::Context;
use crate::error::{Exit, Result};
use crate::output::Format;
use crate::table::{Column, View, plain};

const STATUS: View = View {
    name: "/fleet_id",
    columns: &[
        Column::text("FLEET", "/fleet_id"),
        Column::text("VERSION", "/version"),
        Column::labels("TENANTS", "/tenants"),
        Column::text("RELEASE", "/release"),
        Column::text("SCHEMA VERSIONS", "/versions"),
        Column::labels("OPERATIONS", "/operations"),
        Column::time("LAST BACKUP", "/last_backup_at"),
        Column::time("OLDEST BACKUP", "/oldest_backup_at"),
        Column::text("SERVERS", "/places"),
    ],
};

/// Runs `fleetctl status`.
pub(crate) async fn run(context: &mut Context) -> Result<Exit> {
    let client = context.client().await?;
    let status = client.json(&Request::get("/v1/status")).await?;
    let shown = if context.out.format == Format::Table || context.out.format == Format::Wide {
        for_humans(status)
    } else {
        status
    };
    context.out.facts(&STATUS, &shown)?;
    Ok(Exit::Done)
}

/// Lists of objects folded into one line each.
fn for_humans(mut status: Value) -> Value {
    let join = |items: &Value, one: &dyn Fn(&Value) -> String| {
        let parts: Vec<_> = items.as_array().into_iter().flatten().map(one).collect();
        if parts.is_empty() { Value::Null } else { Value::from(parts.join(", ")) }
    };
    let version = |v: &Value| {
        let name = if v["version"].is_null() { "none".to_owned() } else { plain(&v["version"]) };
        format!("{name}: {}", plain(&v["tenants"]))
    };
    let server =
        |s: &Value| format!("{} ({}, {} tenants)", plain(&s["name"]), plain(&s["state"]), plain(&s["tenants"]));
    let release = match &status["current_release"] {
        Value::Object(release) => release.get("id").cloned().unwrap_or_default(),
        other => other.clone(),
    };
    status["versions"] = join(&status["schema_versions"], &version);
    status["places"] = join(&status["servers"], &server);
    status["release"] = release;
    status
}
