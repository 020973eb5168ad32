//! `fleetctl op`: pieces of fleet work, watched and steered.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{change_and_print, print_one, print_pages};
use crate::args::{Change, Wait};
use crate::client::{Request, segment};
use crate::context::Context;
use crate::error::{Exit, Result};
use crate::operation::{self, OPERATION, Print};
use crate::table::{Column, View};

const STEP: View = View {
    name: "/tenant",
    columns: &[
        Column::text("TENANT", "/tenant"),
        Column::text("STATE", "/state"),
        Column::text("PHASE", "/phase"),
        Column::text("ATTEMPT", "/attempt"),
        Column::text("CODE", "/error/code"),
        Column::text("ERROR", "/error/detail"),
        Column::text("SKIPPED", "/skipped/detail"),
        Column::time("FINISHED", "/finished_at").wide(),
        Column::text("TENANT ID", "/tenant_id").wide(),
    ],
};

const EVENT: View = View {
    name: "/seq",
    columns: &[
        Column::text("SEQ", "/seq"),
        Column::time("AT", "/at"),
        Column::text("KIND", "/kind"),
        Column::text("BY", "/actor"),
        Column::text("TENANT", "/tenant_id"),
        Column::text("DATA", "/data").wide(),
    ],
};

/// What can be done with operations.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List operations, newest first
    List(List),
    /// Show one operation, or its steps
    Get(Get),
    /// Wait for an operation; without a server this also runs it
    Wait {
        /// Its id (`op_…`)
        operation: String,
        /// Stop waiting after this long (exit 6)
        #[arg(long, value_name = "DURATION", value_parser = crate::settings::duration)]
        timeout: Option<Duration>,
    },
    /// Show what the audit log says of an operation
    Events {
        /// Its id (`op_…`)
        operation: String,
    },
    /// Try the failed tenants again
    Retry(Go),
    /// Start no more tenants; what has begun is finished
    Cancel(Steer),
    /// Start no more tenants until resumed
    Pause(Steer),
    /// Go on after a pause
    Resume(Go),
    /// Give up what is stuck, leaving each tenant in its last safe state
    Abandon(Steer),
}

/// Flags of `op list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl op list --state running
  fleetctl op list --kind migrate --tenant acme")]
pub(crate) struct List {
    /// Only in these states (pending, running, paused, succeeded, partial, failed, cancelled)
    #[arg(long, value_name = "STATE,…")]
    state: Option<String>,
    /// Only of this kind (create, migrate, backup, verify, restore, delete)
    #[arg(long)]
    kind: Option<String>,
    /// Only those that act on this tenant
    #[arg(long)]
    tenant: Option<String>,
}

/// Flags of `op get`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl op get op_0190…
  fleetctl op get op_0190… --steps failed")]
pub(crate) struct Get {
    /// Its id (`op_…`)
    operation: String,
    /// List its steps, only those in one state if given
    #[arg(long, value_name = "STATE", num_args = 0..=1, default_missing_value = "")]
    steps: Option<String>,
}

/// An operation to be set going again.
#[derive(Debug, Args)]
pub(crate) struct Go {
    /// Its id (`op_…`)
    operation: String,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    wait: Wait,
}

/// An operation to be stopped.
#[derive(Debug, Args)]
pub(crate) struct Steer {
    /// Its id (`op_…`)
    operation: String,
    #[command(flatten)]
    change: Change,
}

/// Runs `fleetctl op …`.
pub(crate) async fn run(verb: Verb, context: &mut Context) -> Result<Exit> {
    match verb {
        Verb::List(args) => list(args, context).await,
        Verb::Get(args) => get(args, context).await,
        Verb::Wait { operation, timeout } => {
            let wait = Wait { no_wait: false, timeout };
            operation::finish(context, &json!({"id": operation}), &wait, Print::Operation).await
        }
        Verb::Events { operation } => {
            print_pages(context, Request::get(format!("{}/events", path(&operation)?)), &EVENT).await
        }
        Verb::Retry(go) => again(context, &go, "retry").await,
        Verb::Resume(go) => again(context, &go, "resume").await,
        Verb::Cancel(steer) => stop(context, &steer, "cancel").await,
        Verb::Pause(steer) => stop(context, &steer, "pause").await,
        Verb::Abandon(steer) => stop(context, &steer, "abandon").await,
    }
}

fn path(operation: &str) -> Result<String> {
    Ok(format!("/v1/operations/{}", segment(operation)?))
}

async fn list(args: List, context: &mut Context) -> Result<Exit> {
    let mut request = Request::get("/v1/operations");
    for (key, value) in [("state", args.state), ("kind", args.kind), ("tenant", args.tenant)] {
        if let Some(value) = value {
            request = request.query(key, &value);
        }
    }
    print_pages(context, request, &OPERATION).await
}

async fn get(args: Get, context: &mut Context) -> Result<Exit> {
    let Some(state) = args.steps else {
        return print_one(context, Request::get(path(&args.operation)?), &OPERATION).await;
    };
    let mut request = Request::get(format!("{}/steps", path(&args.operation)?));
    if !state.is_empty() {
        request = request.query("state", &state);
    }
    print_pages(context, request, &STEP).await
}

async fn again(context: &mut Context, go: &Go, verb: &str) -> Result<Exit> {
    let request = Request::post(format!("{}/{verb}", path(&go.operation)?), json!({}));
    operation::run(context, request, &go.change, &go.wait).await
}

async fn stop(context: &mut Context, steer: &Steer, verb: &str) -> Result<Exit> {
    let request = Request::post(format!("{}/{verb}", path(&steer.operation)?), json!({}));
    change_and_print(context, request, &steer.change, &OPERATION).await
}
