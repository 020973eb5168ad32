//! `fleetctl history`: how long ended operations and events are kept.

use std::time::Duration;

use clap::{Args, Subcommand};
use fleet_api::history::HistoryToKeep;
use fleet_client::ApiRequest;
use serde_json::{Value, json};

use crate::args::{ChangeArgs, in_range};
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::operation;
use crate::output::OutputFormat;
use crate::table::{TableColumn, TableView};

/// Seconds of a day.
const DAY: u64 = 86_400;

const HISTORY: TableView = TableView {
    name: "/operations_kept",
    columns: &[
        TableColumn::of_text("OPERATIONS KEPT", "/operations_kept"),
        TableColumn::of_text("EVENTS KEPT", "/events_kept"),
        TableColumn::of_time("OLDEST OPERATION", "/oldest_operation_at"),
        TableColumn::of_time("OLDEST EVENT", "/oldest_event_at"),
    ],
};

/// Commands of history.
#[derive(Debug, Subcommand)]
pub(crate) enum HistoryCommand {
    /// Show how long history is kept, and its oldest entries
    Show,
    /// Change how long history is kept
    Keep(HistoryKeepArgs),
}

/// Flags of `history keep`.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "The last success of each kind of operation on each tenant is always kept.
A serving process removes older history once an hour.

Examples:
  fleetctl history keep --operations 30d --events 365d"
)]
pub(crate) struct HistoryKeepArgs {
    /// Keep operations and their steps this long after their end; at least 7d
    #[arg(long, value_name = "DURATION", value_parser = crate::setting_values::parse_duration)]
    operations: Option<Duration>,
    /// Keep events this long; at least 7d
    #[arg(long, value_name = "DURATION", value_parser = crate::setting_values::parse_duration)]
    events: Option<Duration>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Runs `fleetctl history …`.
pub(crate) async fn run_history_command(verb: HistoryCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match verb {
        HistoryCommand::Show => {
            let policy = context.api_client().await?.send_for_json(&ApiRequest::get("/v1/history")).await?;
            context.out.print_facts(&HISTORY, &policy_for_display(policy, context))?;
            Ok(CommandExit::Done)
        }
        HistoryCommand::Keep(args) => {
            let request = ApiRequest::patch("/v1/history", &policy_change(&args)?);
            if let Some(policy) =
                operation::send_change(context, request, &args.change).await?.filter(|item| !item.is_null())
            {
                context.out.print_item(&HISTORY, &policy_for_display(policy, context))?;
            }
            Ok(CommandExit::Done)
        }
    }
}

/// Converts to days for people; programs get the API's seconds.
fn policy_for_display(mut policy: Value, context: &CommandContext) -> Value {
    if matches!(context.out.format, OutputFormat::Table | OutputFormat::Wide) {
        for (column, field) in [("operations_kept", "operations_seconds"), ("events_kept", "events_seconds")] {
            let seconds = policy[field].as_u64().unwrap_or_default();
            policy[column] =
                json!(if seconds.is_multiple_of(DAY) { format!("{}d", seconds / DAY) } else { format!("{seconds}s") });
        }
    }
    policy
}

fn policy_change(args: &HistoryKeepArgs) -> Result<HistoryToKeep> {
    if args.operations.is_none() && args.events.is_none() {
        return Err(CommandFailure::usage_error("use --operations or --events"));
    }
    Ok(HistoryToKeep {
        operations_seconds: in_range("--operations in seconds", args.operations.map(|kept| kept.as_secs()))?,
        events_seconds: in_range("--events in seconds", args.events.map(|kept| kept.as_secs()))?,
        ..HistoryToKeep::default()
    })
}
