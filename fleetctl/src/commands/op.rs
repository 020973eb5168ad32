//! `fleetctl op`: watch and control operations on the fleet.

use std::time::Duration;

use clap::{Args, Subcommand};
use fleet_api::changes::ChangeOptions;
use fleet_api::operations::{FailureDetail, OperationView, StepView};
use fleet_api::{field, pointer};
use fleet_client::{ApiRequest, path_segment};
use serde_json::json;

use super::events::EVENT;
use super::{change_and_print, print_pages};
use crate::args::{ChangeArgs, WaitArgs};
use crate::context::CommandContext;
use crate::error::{CommandExit, Result};
use crate::operation::{self, OPERATION, ResultPrinting};
use crate::table::{TableColumn, TableView};

const STEP: TableView = TableView {
    name: pointer!(StepView: tenant),
    columns: &[
        TableColumn::of_text("TENANT", pointer!(StepView: tenant)).may_cut(),
        TableColumn::of_text("STATE", pointer!(StepView: state)),
        TableColumn::of_text("CODE", pointer!(StepView: error, FailureDetail: code)).may_cut(),
        TableColumn::of_text("ERROR", pointer!(StepView: error, FailureDetail: detail)).may_cut(),
        TableColumn::of_text("SKIPPED", pointer!(StepView: skipped, FailureDetail: detail)).may_cut(),
        TableColumn::of_text("PHASE", pointer!(StepView: phase)),
        TableColumn::of_text("ATTEMPT", pointer!(StepView: attempt)),
        TableColumn::of_time("FINISHED", pointer!(StepView: finished_at)).only_wide(),
        TableColumn::of_text("TENANT ID", pointer!(StepView: tenant_id)).only_wide(),
    ],
};

/// Commands of operations.
#[derive(Debug, Subcommand)]
pub(crate) enum OpCommand {
    /// List operations, newest first
    List(OpListArgs),
    /// Show one operation, or its steps
    Get(OpGetArgs),
    /// Wait for an operation; without a server this also runs it
    Wait {
        /// The operation's id (`op_…`)
        operation: String,
        /// Stop waiting after this long (exit 6)
        #[arg(long, value_name = "DURATION", value_parser = crate::setting_values::parse_duration)]
        timeout: Option<Duration>,
    },
    /// Show the audit log of an operation
    Events {
        /// The operation's id (`op_…`)
        operation: String,
    },
    /// Retry the failed tenants
    Retry(OpContinueArgs),
    /// Start no more tenants; running steps are finished
    Cancel(OpStopArgs),
    /// Start no more tenants until resumed
    Pause(OpStopArgs),
    /// Continue after a pause
    Resume(OpContinueArgs),
    /// Abandon stuck steps; each tenant stays in its last safe state
    Abandon(OpStopArgs),
}

/// Flags of `op list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl op list --state running
  fleetctl op list --kind migrate --tenant acme")]
pub(crate) struct OpListArgs {
    /// Only in these states (pending, running, paused, succeeded, partial, failed, cancelled)
    #[arg(long, value_name = "STATE,…")]
    state: Option<String>,
    /// Only of this kind (create, migrate, backup, verify, restore, delete)
    #[arg(long)]
    kind: Option<String>,
    /// Only operations on this tenant
    #[arg(long)]
    tenant: Option<String>,
}

/// Flags of `op get`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl op get op_0190…
  fleetctl op get op_0190… --steps failed")]
pub(crate) struct OpGetArgs {
    /// The operation's id (`op_…`)
    operation: String,
    /// List the operation's steps, optionally only those in one state
    #[arg(long, value_name = "STATE", num_args = 0..=1, default_missing_value = "")]
    steps: Option<String>,
}

/// The flags of a command that continues an operation.
#[derive(Debug, Args)]
pub(crate) struct OpContinueArgs {
    /// The operation's id (`op_…`)
    operation: String,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// The flags of a command that stops an operation.
#[derive(Debug, Args)]
pub(crate) struct OpStopArgs {
    /// The operation's id (`op_…`)
    operation: String,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Runs `fleetctl op …`.
pub(crate) async fn run_op_command(verb: OpCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match verb {
        OpCommand::List(args) => list_operations(args, context).await,
        OpCommand::Get(args) => get_operation(args, context).await,
        OpCommand::Wait { operation, timeout } => {
            let wait = WaitArgs { no_wait: false, timeout };
            operation::finish_operation(context, &json!({"id": operation}), &wait, ResultPrinting::Operation).await
        }
        OpCommand::Events { operation } => {
            print_pages(context, ApiRequest::get(format!("{}/events", operation_path(&operation)?)), &EVENT).await
        }
        OpCommand::Retry(go) => continue_operation(context, &go, "retry").await,
        OpCommand::Resume(go) => continue_operation(context, &go, "resume").await,
        OpCommand::Cancel(steer) => stop_operation(context, &steer, "cancel").await,
        OpCommand::Pause(steer) => stop_operation(context, &steer, "pause").await,
        OpCommand::Abandon(steer) => stop_operation(context, &steer, "abandon").await,
    }
}

fn operation_path(operation: &str) -> Result<String> {
    Ok(format!("/v1/operations/{}", path_segment(operation)?))
}

async fn list_operations(args: OpListArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let mut request = ApiRequest::get("/v1/operations");
    for (key, value) in [("state", args.state), ("kind", args.kind), ("tenant", args.tenant)] {
        if let Some(value) = value {
            request = request.with_query(key, &value);
        }
    }
    print_pages(context, request, &OPERATION).await
}

async fn get_operation(args: OpGetArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let Some(state) = args.steps else {
        let client = context.api_client().await?;
        let operation = client.send_for_json(&ApiRequest::get(operation_path(&args.operation)?)).await?;
        context.out.print_facts(&OPERATION, &operation)?;
        if let Some(phase) = operation[field!(OperationView: phase)].as_str() {
            context.out.print_note(&format!("it is {phase}"));
        }
        return Ok(CommandExit::Done);
    };
    let mut request = ApiRequest::get(format!("{}/steps", operation_path(&args.operation)?));
    if !state.is_empty() {
        request = request.with_query("state", &state);
    }
    print_pages(context, request, &STEP).await
}

async fn continue_operation(context: &mut CommandContext, go: &OpContinueArgs, verb: &str) -> Result<CommandExit> {
    let request = ApiRequest::post(format!("{}/{verb}", operation_path(&go.operation)?), &ChangeOptions::default());
    operation::run_operation(context, request, &go.change, &go.wait).await
}

async fn stop_operation(context: &mut CommandContext, steer: &OpStopArgs, verb: &str) -> Result<CommandExit> {
    let request = ApiRequest::post(format!("{}/{verb}", operation_path(&steer.operation)?), &ChangeOptions::default());
    change_and_print(context, request, &steer.change, &OPERATION).await
}
