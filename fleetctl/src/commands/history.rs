//! `fleetctl history`: how long ended operations and events are kept.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::args::Change;
use crate::client::Request;
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::operation;
use crate::output::Format;
use crate::table::{Column, View};

/// Seconds.
const DAY: u64 = 86_400;

const HISTORY: View = View {
    name: "/operations_kept",
    columns: &[
        Column::text("OPERATIONS KEPT", "/operations_kept"),
        Column::text("EVENTS KEPT", "/events_kept"),
        Column::time("OLDEST OPERATION", "/oldest_operation_at"),
        Column::time("OLDEST EVENT", "/oldest_event_at"),
    ],
};

/// What can be done with history.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show how long history is kept, and how far it goes back
    Show,
    /// Change how long history is kept
    Keep(Keep),
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
pub(crate) struct Keep {
    /// Keep operations and their steps this long after their end; at least 7d
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::duration)]
    operations: Option<Duration>,
    /// Keep events this long; at least 7d
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::duration)]
    events: Option<Duration>,
    #[command(flatten)]
    change: Change,
}

/// Runs `fleetctl history …`.
pub(crate) async fn run(verb: Verb, context: &mut Context) -> Result<Exit> {
    match verb {
        Verb::Show => {
            let policy = context.client().await?.json(&Request::get("/v1/history")).await?;
            context.out.facts(&HISTORY, &shown(policy, context))?;
            Ok(Exit::Done)
        }
        Verb::Keep(args) => {
            let request = Request::patch("/v1/history", body(&args)?);
            if let Some(policy) =
                operation::change(context, request, &args.change).await?.filter(|item| !item.is_null())
            {
                context.out.item(&HISTORY, &shown(policy, context))?;
            }
            Ok(Exit::Done)
        }
    }
}

/// People read days; programs get the seconds of the API.
fn shown(mut policy: Value, context: &Context) -> Value {
    if matches!(context.out.format, Format::Table | Format::Wide) {
        for (column, field) in [("operations_kept", "operations_seconds"), ("events_kept", "events_seconds")] {
            let seconds = policy[field].as_u64().unwrap_or_default();
            policy[column] =
                json!(if seconds.is_multiple_of(DAY) { format!("{}d", seconds / DAY) } else { format!("{seconds}s") });
        }
    }
    policy
}

fn body(args: &Keep) -> Result<Value> {
    if args.operations.is_none() && args.events.is_none() {
        return Err(Failure::usage("say --operations or --events"));
    }
    let mut body = json!({});
    for (key, kept) in [("operations_seconds", args.operations), ("events_seconds", args.events)] {
        if let Some(kept) = kept {
            body[key] = json!(kept.as_secs());
        }
    }
    Ok(body)
}
