//! `fleetctl tenant describe`: everything that an operator needs to know about tenants, one page for each.

use clap::Args;
use fleet_api::events::EventView;
use fleet_api::migrations::TenantPin;
use fleet_api::tenants::{LastBackup, TenantDescription, TenantOperation, TenantView};
use fleet_api::{field, pointer};
use fleet_client::{ApiRequest, path_segment};
use serde_json::Value;

use super::{ExitTally, note_pin};
use crate::client::ApiClient;
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::output::OutputFormat;
use crate::table::{TableColumn, TableView, plain_text};

/// The facts about a tenant, in this order.
const DESCRIPTION: TableView = TableView {
    name: pointer!(TenantView: name),
    columns: &[
        TableColumn::of_text("NAME", pointer!(TenantView: name)),
        TableColumn::of_text("ID", pointer!(TenantView: id)),
        TableColumn::of_text("STATE", pointer!(TenantView: status)),
        TableColumn::of_text("REASON", pointer!(TenantView: state_reason)),
        TableColumn::of_time("SINCE", pointer!(TenantDescription: status_since, EventView: at)),
        TableColumn::of_text("CHANGED BY", pointer!(TenantDescription: status_since, EventView: actor)),
        TableColumn::of_text("TOKEN OF ACTOR", pointer!(TenantDescription: status_since, EventView: actor_name))
            .only_wide(),
        TableColumn::of_text("CHANGED IN", pointer!(TenantDescription: status_since, EventView: operation_id))
            .only_wide(),
        TableColumn::of_text("PROTECTED", pointer!(TenantView: protected)),
        TableColumn::of_text("PLAN", pointer!(TenantView: plan)),
        TableColumn::of_text("ALIASES", pointer!(TenantDescription: aliases)),
        TableColumn::of_text("HOSTS", pointer!(TenantDescription: hosts)),
        TableColumn::of_labels("LABELS", pointer!(TenantView: labels)),
        TableColumn::of_text("MEMBERS", pointer!(TenantDescription: members)),
        TableColumn::of_text("ENGINE", pointer!(TenantView: engine)),
        TableColumn::of_text("SERVER", pointer!(TenantView: server)),
        TableColumn::of_text("SERVER STATE", pointer!(TenantDescription: server_state)).only_wide(),
        TableColumn::of_text("DATABASE", pointer!(TenantDescription: database)),
        TableColumn::of_text("GENERATION", pointer!(TenantView: generation)).only_wide(),
        TableColumn::of_bytes("SIZE", pointer!(TenantView: size_bytes)),
        TableColumn::of_text("VERSION", pointer!(TenantView: schema_version)),
        TableColumn::of_text("NEWEST VERSION", pointer!(TenantDescription: head_version)),
        TableColumn::of_text("RELEASE", pointer!(TenantDescription: release)),
        TableColumn::of_text("PINNED", pointer!(TenantView: pin)),
        TableColumn::of_text("LAST BACKUP", pointer!(TenantDescription: last_backup, LastBackup: id)),
        TableColumn::of_time("  TAKEN", pointer!(TenantDescription: last_backup, LastBackup: taken_at)),
        TableColumn::of_bytes("  SIZE", pointer!(TenantDescription: last_backup, LastBackup: size_bytes)),
        TableColumn::of_bytes("  STORED", pointer!(TenantDescription: last_backup, LastBackup: stored_bytes))
            .only_wide(),
        TableColumn::of_text("  VERSION", pointer!(TenantDescription: last_backup, LastBackup: schema_version))
            .only_wide(),
        TableColumn::of_time("  VERIFIED", pointer!(TenantDescription: last_backup, LastBackup: verified_at)),
        TableColumn::of_text("  WRONG", pointer!(TenantDescription: last_backup, LastBackup: verify_error)),
        TableColumn::of_text("LAST SUCCESS", pointer!(TenantDescription: last_success)),
        TableColumn::of_text("LAST FAILURE", pointer!(TenantDescription: last_failure)),
        TableColumn::of_text("  CODE", "/last_failure_code"),
        TableColumn::of_text("  MESSAGE", "/last_failure_message"),
        TableColumn::of_text("OPEN OPERATIONS", pointer!(TenantDescription: open_operations)),
        TableColumn::of_text("WRITES BLOCKED BY", pointer!(TenantDescription: fenced_by)),
        TableColumn::of_text("KEPT DATABASES", pointer!(TenantDescription: kept_databases)),
        TableColumn::of_time("CREATED", pointer!(TenantView: created_at)),
        TableColumn::of_time("UPDATED", pointer!(TenantView: updated_at)).only_wide(),
        TableColumn::of_time("DELETED", pointer!(TenantView: deleted_at)),
        TableColumn::of_time("PURGED AFTER", pointer!(TenantView: purge_after_at)),
    ],
};

/// Flags of `tenant describe`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant describe acme
  fleetctl tenant describe acme globex -o json | jq '.items[].last_backup'")]
pub(crate) struct TenantDescribeArgs {
    /// Tenants by name or id
    #[arg(value_name = "TENANT", required = true)]
    names: Vec<String>,
}

/// Runs `fleetctl tenant describe …`.
pub(crate) async fn run_describe_command(
    args: &TenantDescribeArgs,
    context: &mut CommandContext,
) -> Result<CommandExit> {
    let client = context.api_client().await?;
    let (mut tenants, mut tally) = (Vec::new(), ExitTally::default());
    for name in &args.names {
        match fetch_description(&client, name).await {
            Ok(tenant) => {
                tenants.push(tenant);
                tally.add_exit(CommandExit::Done);
            }
            Err(failure) if args.names.len() > 1 && failure.exit != CommandExit::Unreachable => {
                context.out.print_failure(&failure);
                tally.add_exit(failure.exit);
            }
            Err(failure) => return Err(failure),
        }
    }
    if matches!(context.out.format, OutputFormat::Table | OutputFormat::Wide) {
        print_descriptions(context, tenants)?;
    } else {
        let mut list = context.out.begin_list(&DESCRIPTION)?;
        list.print_page(&tenants)?;
        list.finish_list()?;
    }
    Ok(tally.combined_exit())
}

async fn fetch_description(client: &ApiClient, name: &str) -> Result<Value> {
    let tenant = format!("/v1/tenants/{}", path_segment(name)?);
    match client.send_for_json(&ApiRequest::get(format!("{tenant}/description"))).await {
        // A control plane of the previous version does not have this route, but may have the tenant.
        Err(failure) if failure.exit == CommandExit::NotFound => {
            client.send_for_json(&ApiRequest::get(tenant)).await?;
            Err(CommandFailure::unexpected_answer("the control plane is older than this command")
                .try_next("fleetctl tenant get"))
        }
        other => other,
    }
}

/// Prints one page for each tenant, with an empty line between them.
fn print_descriptions(context: &mut CommandContext, tenants: Vec<Value>) -> Result<()> {
    for (at, tenant) in tenants.into_iter().enumerate() {
        if at > 0 {
            context.out.print_text("\n")?;
        }
        let (name, pin) = (tenant[field!(TenantView: name)].clone(), tenant[field!(TenantView: pin)].clone());
        context.out.print_facts(&DESCRIPTION, &flatten_description(tenant))?;
        note_pin(context, &name, &pin);
    }
    Ok(())
}

/// Converts objects and lists of objects to one line of text each.
fn flatten_description(mut tenant: Value) -> Value {
    let failure = tenant.pointer("/last_failure/error").cloned().unwrap_or_default();
    tenant["last_failure_code"] = failure["code"].clone();
    tenant["last_failure_message"] = failure["detail"].clone();
    for at in ["last_success", "last_failure"] {
        tenant[at] = text_of_object(&tenant[at], operation_summary);
    }
    tenant["pin"] = text_of_object(&tenant["pin"], |pin| {
        format!(
            "since {}, by {}",
            plain_text(&pin[field!(TenantPin: since_at)]),
            plain_text(&pin[field!(TenantPin: operation_id)])
        )
    });
    for (at, one) in
        [("open_operations", operation_summary as fn(&Value) -> String), ("kept_databases", kept_database_summary)]
    {
        let lines: Vec<String> = tenant[at].as_array().into_iter().flatten().map(one).collect();
        tenant[at] = if lines.is_empty() { Value::Null } else { Value::from(lines.join("; ")) };
    }
    for at in ["aliases", "hosts"] {
        if tenant[at].as_array().is_some_and(Vec::is_empty) {
            tenant[at] = Value::Null;
        }
    }
    tenant
}

fn text_of_object(value: &Value, text: impl Fn(&Value) -> String) -> Value {
    if value.is_object() { Value::from(text(value)) } else { Value::Null }
}

fn operation_summary(step: &Value) -> String {
    let ended = step[field!(TenantOperation: finished_at)].as_str().map(|at| format!(" at {at}")).unwrap_or_default();
    let state = if ended.is_empty() {
        format!(" {}", plain_text(&step[field!(TenantOperation: state)]))
    } else {
        String::new()
    };
    format!(
        "{}{state}{ended}, {}",
        plain_text(&step[field!(TenantOperation: kind)]),
        plain_text(&step[field!(TenantOperation: id)])
    )
}

fn kept_database_summary(database: &Value) -> String {
    let [why, place, until] = ["reason", "database", "keep_until_at"].map(|key| plain_text(&database[key]));
    format!("{place} ({why}, kept until {until})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_become_lines_for_humans() {
        let tenant = json!({
            "name": "acme", "aliases": [], "hosts": ["a.example"], "pin": null,
            "last_success": {"id": "op_1", "kind": "backup", "state": "succeeded", "finished_at": "T"},
            "last_failure": {"id": "op_2", "kind": "migrate", "state": "failed", "finished_at": "T",
                "error": {"code": "sql", "detail": "no such table"}},
            "open_operations": [{"id": "op_3", "kind": "move", "state": "running", "finished_at": null}],
            "kept_databases": [{"reason": "restore", "database": "/d/x.db", "keep_until_at": "U"}],
        });
        let shown = flatten_description(tenant);
        assert_eq!(shown["last_success"], json!("backup at T, op_1"));
        assert_eq!(
            (&shown["last_failure_code"], &shown["last_failure_message"]),
            (&json!("sql"), &json!("no such table"))
        );
        assert_eq!(shown["open_operations"], json!("move running, op_3"));
        assert_eq!(shown["kept_databases"], json!("/d/x.db (restore, kept until U)"));
        assert_eq!((&shown["aliases"], &shown["pin"]), (&Value::Null, &Value::Null));
        let bare = flatten_description(json!({"name": "acme", "last_failure": null, "last_success": null}));
        assert_eq!((&bare["last_failure"], &bare["last_failure_code"]), (&Value::Null, &Value::Null));
    }
}
