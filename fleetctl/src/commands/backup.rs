//! `fleetctl backup`: copies at rest, made and checked.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{print_one, print_pages};
use crate::args::{Change, Selection, Wait, WhenEmpty, is_open_ended};
use crate::client::{Request, segment};
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::lock;
use crate::table::{Column, View};

/// How backups are listed.
pub(crate) const BACKUP: View = View {
    name: "/id",
    columns: &[
        Column::text("ID", "/id"),
        Column::text("TENANT", "/tenant"),
        Column::time("TAKEN", "/taken_at"),
        Column::bytes("SIZE", "/size_bytes"),
        Column::bytes("STORED", "/stored_bytes"),
        Column::text("VERSION", "/schema_version"),
        Column::time("VERIFIED", "/verified_at"),
        Column::text("REASON", "/reason"),
        Column::text("WRONG", "/verify_error"),
        Column::text("TENANT ID", "/tenant_id").wide(),
        Column::text("OBJECT", "/object_key").wide(),
        Column::text("HASH", "/content_hash").wide(),
    ],
};

/// What can be done with backups.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Back up tenants
    Run(Run),
    /// List backups, newest first
    List {
        /// Only those of this tenant
        tenant: Option<String>,
    },
    /// Show one backup with its manifest
    Get {
        /// Its id (`bkp_…`)
        backup: String,
    },
    /// Read backups back and check them
    Verify(Verify),
}

/// Flags of `backup run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl backup run --all
  fleetctl backup run acme --reason 'before the import'
  fleetctl backup run --all --quiet --lock-wait 10m --ping-url https://ping.example.org/abc      # cron")]
pub(crate) struct Run {
    /// Tenants by name or id
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// Tenants at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    wait: Wait,
}

/// Flags of `backup verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl backup verify --all                 # the newest backup of every tenant
  fleetctl backup verify bkp_0190…")]
pub(crate) struct Verify {
    /// Backups by id, or tenants by name
    #[arg(value_name = "BACKUP|TENANT")]
    words: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    wait: Wait,
}

/// Runs `fleetctl backup …`.
pub(crate) async fn run(verb: Verb, context: &mut Context) -> Result<Exit> {
    match verb {
        Verb::Run(args) => run_backup(args, context).await,
        Verb::List { tenant } => {
            let mut request = Request::get("/v1/backups");
            if let Some(tenant) = tenant {
                request = request.query("tenant", &tenant);
            }
            print_pages(context, request, &BACKUP).await
        }
        Verb::Get { backup } => {
            print_one(context, Request::get(format!("/v1/backups/{}", segment(&backup)?)), &BACKUP).await
        }
        Verb::Verify(args) => verify(args, context).await,
    }
}

async fn run_backup(args: Run, context: &mut Context) -> Result<Exit> {
    let selection = args.selection.resolve(&args.names, context, WhenEmpty::Refuse)?;
    let scope = is_open_ended(&selection).then_some("backup");
    let mut body = json!({"selection": selection});
    if let Some(concurrency) = args.concurrency {
        body["concurrency"] = json!(concurrency);
    }
    lock::run(context, scope, Request::post("/v1/backups", body), &args.change, &args.wait).await
}

async fn verify(args: Verify, context: &mut Context) -> Result<Exit> {
    // A name cannot hold an underscore, so an id is never mistaken for one.
    let (backups, names): (Vec<_>, Vec<_>) = args.words.into_iter().partition(|w| w.starts_with("bkp_"));
    let chosen = !names.is_empty() || args.selection.all || !args.selection.selectors.is_empty();
    if !backups.is_empty() && (chosen || args.selection.server.is_some() || args.selection.from_file.is_some()) {
        return Err(Failure::usage("name backups or tenants, not both"));
    }
    let (body, scope) = if backups.is_empty() {
        let selection = args.selection.resolve(&names, context, WhenEmpty::Refuse)?;
        let scope = is_open_ended(&selection).then_some("verify");
        (json!({"selection": selection}), scope)
    } else {
        (json!({"backups": backups}), None)
    };
    lock::run(context, scope, Request::post("/v1/backups/verify", body), &args.change, &args.wait).await
}
