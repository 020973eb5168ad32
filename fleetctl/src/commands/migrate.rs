//! `fleetctl migrate`: bring tenants to a version of the schema.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{filtered, note_pin};
use crate::args::{Change, Selection, Wait, WhenEmpty, is_open_ended};
use crate::client::{Request, segment};
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::lock;
use crate::output::Format;
use crate::table::{Column, View, counted, printable};
use crate::{input, operation};

const STATUS: View = View {
    name: "/head/id",
    columns: &[
        Column::text("RELEASE", "/head/id"),
        Column::text("HEAD", "/head/head_version"),
        Column::text("TENANTS", "/total"),
        Column::text("UP TO DATE", "/up_to_date"),
        Column::text("PENDING", "/pending"),
        Column::text("AHEAD", "/ahead"),
        Column::text("PINNED", "/pinned"),
        Column::text("DIFFER", "/differ"),
        Column::text("UNREADABLE", "/unreadable"),
        Column::text("READ", "/read"),
        Column::text("UNKNOWN", "/unknown"),
        Column::text("LAST RUN", "/last_operation/id"),
        Column::text("LAST STATE", "/last_operation/state"),
    ],
};

const BY_VERSION: View = View {
    name: "/version",
    columns: &[
        Column::text("VERSION", "/version"),
        Column::text("TENANTS", "/tenants"),
        Column::text("TO APPLY", "/pending"),
    ],
};

/// What can be done with migrations.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show what a run would apply
    Plan(Plan),
    /// Apply a migration set to tenants
    Run(Run),
    /// Show which versions the tenants are at
    Status(Status),
    /// Try again what failed in the last run
    Retry(Retry),
}

/// Flags of `migrate run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl migrate run ./migrations/app --all
  fleetctl migrate run ./migrations/app acme globex
  fleetctl migrate run rel_0190… -l ring=canary --concurrency 4
  fleetctl migrate run ./migrations/app --all --dry-run

A run over --all makes the set the current release: new tenants start with it.
Tenants that a restore left at an older version are pinned. Runs over --all, -l or --server leave them out and say so;
name them, or add --include-pinned.
Running it again does only what is not done yet.")]
pub(crate) struct Run {
    /// A sqlx migration directory, or the id of a release
    #[arg(value_name = "DIR|RELEASE")]
    set: String,
    /// Tenants by name or id
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// Stop at this version
    #[arg(long, value_name = "VERSION")]
    target: Option<i64>,
    /// Open every database instead of trusting what the catalog remembers
    #[arg(long)]
    verify: bool,
    /// Also migrate tenants that a restore left at an older version; those that are named are migrated anyway
    #[arg(long)]
    include_pinned: bool,
    /// Tenants at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    wait: Wait,
}

/// Flags of `migrate plan`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  fleetctl migrate plan ./migrations/app")]
pub(crate) struct Plan {
    /// A sqlx migration directory, or the id of a release; the current release if not given
    #[arg(value_name = "DIR|RELEASE")]
    set: Option<String>,
    /// Tenants by name or id; all if not given
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// Stop at this version
    #[arg(long, value_name = "VERSION")]
    target: Option<i64>,
    /// Count pinned tenants among those to migrate
    #[arg(long)]
    include_pinned: bool,
    /// Exit 4 when something is to be applied
    #[arg(long)]
    check: bool,
}

/// Flags of `migrate status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    selection: Selection,
    /// Exit 4 when a tenant is not at the head of the current release, has applied other files, or failed in the last run;
    /// a pinned one is named and does not count
    #[arg(long)]
    check: bool,
    /// Read the ledger of every database, also of a large fleet
    #[arg(long)]
    verify: bool,
}

/// Flags of `migrate retry`.
#[derive(Debug, Args)]
pub(crate) struct Retry {
    /// A migrate operation; the last one if not given
    operation: Option<String>,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    wait: Wait,
}

/// Runs `fleetctl migrate …`.
pub(crate) async fn run(verb: Verb, context: &mut Context) -> Result<Exit> {
    match verb {
        Verb::Plan(args) => plan(args, context).await,
        Verb::Run(args) => run_set(args, context).await,
        Verb::Status(args) => status(args, context).await,
        Verb::Retry(args) => retry(args, context).await,
    }
}

/// The `release` or `files` of a request's body.
fn set(text: &str, context: &Context) -> Result<Value> {
    let path = Path::new(text);
    if text.starts_with("rel_") && !context.absolute(path).is_dir() {
        return Ok(json!({"release": text}));
    }
    Ok(json!({"files": input::migration_files(path, context)?}))
}

async fn run_set(args: Run, context: &mut Context) -> Result<Exit> {
    let selection = args.selection.resolve(&args.names, context, WhenEmpty::Refuse)?;
    let mut body = set(&args.set, context)?;
    if let Some(target) = args.target {
        body["target"] = json!(target);
    }
    if args.verify {
        body["verify"] = json!(true);
    }
    if args.include_pinned {
        body["include_pinned"] = json!(true);
    }
    if let Some(concurrency) = args.concurrency {
        body["concurrency"] = json!(concurrency);
    }
    let scope = is_open_ended(&selection).then_some("migrate");
    body["selection"] = selection;
    lock::run(context, scope, Request::post("/v1/migrations", body), &args.change, &args.wait).await
}

async fn plan(args: Plan, context: &mut Context) -> Result<Exit> {
    let selection = args.selection.resolve(&args.names, context, WhenEmpty::All)?;
    let mut body = match &args.set {
        Some(text) => set(text, context)?,
        None => json!({"release": current_release(context).await?}),
    };
    if let Some(target) = args.target {
        body["target"] = json!(target);
    }
    if args.include_pinned {
        body["include_pinned"] = json!(true);
    }
    body["selection"] = selection;
    let client = context.client().await?;
    let plan = client.json(&Request::post("/v1/migrations/plan", body)).await?;
    if context.out.format == Format::Json {
        context.out.json(&format!("{plan:#}\n"))?;
    } else {
        let mut list = context.out.list(&BY_VERSION)?;
        list.page(plan["by_version"].as_array().map_or(&[][..], Vec::as_slice))?;
        list.finish()?;
        let n = |key: &str| plan[key].as_u64().unwrap_or_default();
        let line = format!("{} to migrate, {} up to date, {} ahead", n("pending"), n("up_to_date"), n("ahead"));
        context.out.note(&line);
        note_pinned(context, &plan);
    }
    Ok(if args.check && plan["pending"].as_u64() != Some(0) { Exit::Found } else { Exit::Done })
}

async fn current_release(context: &mut Context) -> Result<String> {
    let client = context.client().await?;
    let status = client.json(&Request::get("/v1/migrations/status")).await?;
    status["head"]["id"].as_str().map(str::to_owned).ok_or_else(|| {
        Failure::new(Exit::NotFound, "the fleet has no current release")
            .try_next("fleetctl migrate plan ./migrations/app")
    })
}

async fn status(args: Status, context: &mut Context) -> Result<Exit> {
    if args.selection.from_file.is_some() {
        return Err(Failure::usage("migrate status takes -l and --server, not --from-file"));
    }
    let client = context.client().await?;
    let mut request = filtered(Request::get("/v1/migrations/status"), &args.selection);
    if args.verify {
        request = request.query("verify", "true");
    }
    let status = client.json(&request).await?;
    context.out.facts(&STATUS, &status)?;
    if matches!(context.out.format, Format::Table | Format::Wide) {
        print_versions(context, &status)?;
    }
    note_pinned(context, &status);
    let n = |key: &str| status[key].as_u64().unwrap_or_default();
    if n("unreadable") > 0 {
        let databases = counted(n("unreadable"), "database");
        context.out.complain(&format!("error: could not look at {databases}: nothing is known of their versions"));
        context.out.complain("try:   fleetctl scrub      # says why, and changes nothing");
    }
    let splits = status["splits"].as_array().cloned().unwrap_or_default();
    for split in splits.iter().filter_map(Value::as_str) {
        context.out.note(&format!("split: {}", printable(split)));
    }
    if !splits.is_empty() {
        context.out.note("try:   keep a directory for each text, and run it for the tenants that have it, by name");
        context.out.note("try:   or make the fewer tenants anew, and copy their rows");
    }
    let failed = status["failed"].as_array().is_some_and(|failed| !failed.is_empty());
    // A pinned tenant is where somebody brought it.
    let found = n("up_to_date") + n("pinned") < n("total") || !splits.is_empty() || failed;
    Ok(if args.check && found { Exit::Found } else { Exit::Done })
}

/// Names the tenants that stay behind because they are pinned.
fn note_pinned(context: &mut Context, answer: &Value) {
    for pin in answer["pinned_tenants"].as_array().into_iter().flatten() {
        note_pin(context, &pin["tenant"], pin);
    }
}

const VERSIONS: View =
    View { name: "/version", columns: &[Column::text("VERSION", "/version"), Column::text("TENANTS", "/tenants")] };
const FAILED: View = View {
    name: "/tenant",
    columns: &[
        Column::text("FAILED", "/tenant"),
        Column::text("CODE", "/error/code"),
        Column::text("ERROR", "/error/detail"),
    ],
};

fn print_versions(context: &mut Context, status: &Value) -> Result<()> {
    for (key, view) in [("versions", &VERSIONS), ("failed", &FAILED)] {
        if let Some(items) = status[key].as_array().filter(|items| !items.is_empty()) {
            context.out.text("\n")?;
            let mut list = context.out.list(view)?;
            list.page(items)?;
            list.finish()?;
        }
    }
    Ok(())
}

async fn retry(args: Retry, context: &mut Context) -> Result<Exit> {
    let id = match args.operation {
        Some(id) => id,
        None => last_migration(context).await?,
    };
    let request = Request::post(format!("/v1/operations/{}/retry", segment(&id)?), json!({}));
    operation::run(context, request, &args.change, &args.wait).await
}

async fn last_migration(context: &mut Context) -> Result<String> {
    let client = context.client().await?;
    let page = client.json(&Request::get("/v1/operations").query("kind", "migrate").query("limit", "1")).await?;
    page["items"][0]["id"].as_str().map(str::to_owned).ok_or_else(|| {
        Failure::new(Exit::NotFound, "nothing was migrated yet").try_next("fleetctl migrate run ./migrations/app --all")
    })
}
