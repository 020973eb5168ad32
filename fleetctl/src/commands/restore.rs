//! `fleetctl restore`: bring a tenant back, in place or beside itself.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::args::{Change, Confirm, Wait};
use crate::client::Request;
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::table::{Column, View};
use crate::{input, operation};

const PREVIEW: View = View {
    name: "/backup/id",
    columns: &[
        Column::text("BACKUP", "/backup/id"),
        Column::time("TAKEN", "/backup/taken_at"),
        Column::text("VERSION", "/backup/schema_version"),
        Column::text("TENANT", "/current/name"),
        Column::text("VERSION NOW", "/current/schema_version"),
        Column::text("WILL", "/will"),
        Column::time("UNDO UNTIL", "/undo_until_at"),
    ],
};

/// What can be restored.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Restore a tenant from a backup
    Run(Run),
    /// Show what a restore would do
    Preview {
        /// The tenant's name or id
        tenant: String,
        #[command(flatten)]
        point: Point,
    },
    /// Go back to the database that the last restore replaced
    Undo(Undo),
}

/// Which backup.
#[derive(Debug, Args)]
pub(crate) struct Point {
    /// `latest`, the id of a backup, or a time (the newest backup at or before it)
    #[arg(long, value_name = "latest|TIME|BACKUP")]
    to: String,
}

impl Point {
    /// Refused here when it cannot be any of the three, so that a typing error is told at once.
    fn checked(&self) -> Result<&str> {
        let to = self.to.as_str();
        if to == "latest" || to.starts_with("bkp_") || to.parse::<jiff::Timestamp>().is_ok() {
            return Ok(to);
        }
        Err(Failure::usage(format!("--to {to:?} is neither latest, nor the id of a backup, nor a time"))
            .try_next("--to latest, --to 2026-11-23T10:00:00Z, or an id of `fleetctl backup list`"))
    }
}

/// Flags of `restore run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl restore run acme --to latest --yes
  fleetctl restore run acme --to 2026-11-23T10:00:00Z --as acme-copy

In place, the tenant keeps its name, members and tokens; the replaced database is kept for `restore undo`.
With --as, a new tenant is made, without members or tokens.")]
pub(crate) struct Run {
    /// The tenant's name or id
    tenant: String,
    #[command(flatten)]
    point: Point,
    /// Make a new tenant of this name instead of replacing
    #[arg(long = "as", value_name = "NAME")]
    new_name: Option<String>,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    wait: Wait,
}

/// Flags of `restore undo`.
#[derive(Debug, Args)]
pub(crate) struct Undo {
    /// The tenant's name or id
    tenant: String,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    wait: Wait,
}

/// Runs `fleetctl restore …`.
pub(crate) async fn run(verb: Verb, context: &mut Context) -> Result<Exit> {
    match verb {
        Verb::Run(args) => restore(args, context).await,
        Verb::Preview { tenant, point } => {
            let body = json!({"tenant": tenant, "to": point.checked()?});
            super::print_one(context, Request::post("/v1/restores/preview", body), &PREVIEW).await
        }
        Verb::Undo(args) => {
            if !args.change.dry_run {
                input::confirm(context, &args.confirm, "undo the last restore of", std::slice::from_ref(&args.tenant))?;
            }
            let request = Request::post("/v1/restores/undo", json!({"tenant": args.tenant}));
            operation::run(context, request, &args.change, &args.wait).await
        }
    }
}

async fn restore(args: Run, context: &mut Context) -> Result<Exit> {
    let mut body = json!({"tenant": args.tenant, "to": args.point.checked()?});
    if let Some(name) = &args.new_name {
        body["as"] = json!(name);
    } else if !args.change.dry_run {
        input::confirm(context, &args.confirm, "replace the database of", std::slice::from_ref(&args.tenant))?;
    }
    operation::run(context, Request::post("/v1/restores", body), &args.change, &args.wait).await
}
