//! `fleetctl status`: a short summary of the fleet.

use fleet_api::migrations::VersionCount;
use fleet_api::servers::ServerView;
use fleet_api::status::FleetStatus;
use fleet_api::{field, pointer};
use fleet_client::ApiRequest;
use serde_json::Value;

use crate::context::CommandContext;
use crate::error::{CommandExit, Result};
use crate::output::OutputFormat;
use crate::table::{TableColumn, TableView, plain_text};

const STATUS: TableView = TableView {
    name: pointer!(FleetStatus: fleet_id),
    columns: &[
        TableColumn::of_text("FLEET", pointer!(FleetStatus: fleet_id)),
        TableColumn::of_text("VERSION", pointer!(FleetStatus: version)),
        TableColumn::of_labels("TENANTS", pointer!(FleetStatus: tenants)),
        TableColumn::of_text("RELEASE", "/release"),
        TableColumn::of_text("SCHEMA VERSIONS", "/versions"),
        TableColumn::of_labels("OPERATIONS", pointer!(FleetStatus: operations)),
        TableColumn::of_time("LAST BACKUP", pointer!(FleetStatus: last_backup_at)),
        TableColumn::of_time("OLDEST BACKUP", pointer!(FleetStatus: oldest_backup_at)),
        TableColumn::of_text("SERVERS", "/places"),
    ],
};

/// Runs `fleetctl status`.
pub(crate) async fn run_status_command(context: &mut CommandContext) -> Result<CommandExit> {
    let client = context.api_client().await?;
    let status = client.send_for_json(&ApiRequest::get("/v1/status")).await?;
    let shown = if context.out.format == OutputFormat::Table || context.out.format == OutputFormat::Wide {
        flatten_status(status)
    } else {
        status
    };
    context.out.print_facts(&STATUS, &shown)?;
    Ok(CommandExit::Done)
}

/// Converts lists of objects to one line each.
fn flatten_status(mut status: Value) -> Value {
    let join = |items: &Value, one: &dyn Fn(&Value) -> String| {
        let parts: Vec<_> = items.as_array().into_iter().flatten().map(one).collect();
        if parts.is_empty() { Value::Null } else { Value::from(parts.join(", ")) }
    };
    let version = |v: &Value| {
        let name = if v[field!(VersionCount: version)].is_null() {
            "none".to_owned()
        } else {
            plain_text(&v[field!(VersionCount: version)])
        };
        format!("{name}: {}", plain_text(&v[field!(VersionCount: tenants)]))
    };
    let server = |s: &Value| {
        format!(
            "{} ({}, {} tenants)",
            plain_text(&s[field!(ServerView: name)]),
            plain_text(&s[field!(ServerView: state)]),
            plain_text(&s[field!(ServerView: tenants)])
        )
    };
    let release = match &status[field!(FleetStatus: current_release)] {
        Value::Object(release) => release.get("id").cloned().unwrap_or_default(),
        other => other.clone(),
    };
    status["versions"] = join(&status["schema_versions"], &version);
    status["places"] = join(&status["servers"], &server);
    status["release"] = release;
    status
}
