//! `fleetctl migrate`: brings tenants to a version of the schema.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{filter_request, note_pin};
use crate::args::{ChangeArgs, SelectionArgs, WaitArgs, WhenEmpty, is_open_ended};
use crate::client::{ApiRequest, path_segment};
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::input::{self, MigrationDirectory};
use crate::operation;
use crate::output::OutputFormat;
use crate::run_lock;
use crate::table::{TableColumn, TableView, count_noun, escape_text};

const STATUS: TableView = TableView {
    name: "/head/id",
    columns: &[
        TableColumn::of_text("RELEASE", "/head/id"),
        TableColumn::of_text("HEAD", "/head/head_version"),
        TableColumn::of_text("TENANTS", "/total"),
        TableColumn::of_text("UP TO DATE", "/up_to_date"),
        TableColumn::of_text("PENDING", "/pending"),
        TableColumn::of_text("AHEAD", "/ahead"),
        TableColumn::of_text("PINNED", "/pinned"),
        TableColumn::of_text("DIFFER", "/differ"),
        TableColumn::of_text("UNREADABLE", "/unreadable"),
        TableColumn::of_text("READ", "/read"),
        TableColumn::of_text("UNKNOWN", "/unknown"),
        TableColumn::of_text("LAST RUN", "/last_operation/id"),
        TableColumn::of_text("LAST STATE", "/last_operation/state"),
    ],
};

const BY_VERSION: TableView = TableView {
    name: "/version",
    columns: &[
        TableColumn::of_text("VERSION", "/version"),
        TableColumn::of_text("TENANTS", "/tenants"),
        TableColumn::of_text("TO APPLY", "/pending"),
    ],
};

/// Commands of migrations.
#[derive(Debug, Subcommand)]
pub(crate) enum MigrateCommand {
    /// Show what a run would apply
    Plan(MigratePlanArgs),
    /// Apply a migration set to tenants
    Run(MigrateRunArgs),
    /// Show the versions of the tenants
    Status(MigrateStatusArgs),
    /// Retry the tenants that failed in the last run
    Retry(MigrateRetryArgs),
}

/// Flags of `migrate run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl migrate run ./migrations/app --all
  fleetctl migrate run ./migrations/app acme globex
  fleetctl migrate run rel_0190… -l ring=canary --concurrency 4
  fleetctl migrate run ./migrations/app --all --dry-run

A run over --all makes the set the current release: new tenants start with it.
Tenants that a restore left at an older version are pinned. Runs over --all, -l or --server skip and report them;
name them, or add --include-pinned.
Running it again does only the remaining work.")]
pub(crate) struct MigrateRunArgs {
    /// A sqlx migration directory, or the id of a release
    #[arg(value_name = "DIR|RELEASE")]
    set: String,
    /// Tenants by name or id
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Stop at this version
    #[arg(long, value_name = "VERSION")]
    target: Option<i64>,
    /// Read the version in every database instead of the catalog's copy
    #[arg(long)]
    verify: bool,
    /// Also migrate tenants that a restore pinned at an older version; named tenants are always migrated
    #[arg(long)]
    include_pinned: bool,
    /// Maximum number of tenants at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Flags of `migrate plan`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  fleetctl migrate plan ./migrations/app")]
pub(crate) struct MigratePlanArgs {
    /// A sqlx migration directory, or the id of a release; the current release if not given
    #[arg(value_name = "DIR|RELEASE")]
    set: Option<String>,
    /// Tenants by name or id; all if not given
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Stop at this version
    #[arg(long, value_name = "VERSION")]
    target: Option<i64>,
    /// Include pinned tenants
    #[arg(long)]
    include_pinned: bool,
    /// Exit 4 if a tenant has migrations to apply
    #[arg(long)]
    check: bool,
}

/// Flags of `migrate status`.
#[derive(Debug, Args)]
pub(crate) struct MigrateStatusArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Exit 4 if a tenant is behind the current release, has applied other files, or failed in the last run; pinned
    /// tenants do not count
    #[arg(long)]
    check: bool,
    /// Read the ledger of every database, also of a large fleet
    #[arg(long)]
    verify: bool,
}

/// Flags of `migrate retry`.
#[derive(Debug, Args)]
pub(crate) struct MigrateRetryArgs {
    /// A migrate operation; the last one if not given
    operation: Option<String>,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Runs `fleetctl migrate …`.
pub(crate) async fn run_migrate_command(verb: MigrateCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match verb {
        MigrateCommand::Plan(args) => plan_migration(args, context).await,
        MigrateCommand::Run(args) => migrate_tenants(args, context).await,
        MigrateCommand::Status(args) => migration_status(args, context).await,
        MigrateCommand::Retry(args) => retry_migration(args, context).await,
    }
}

/// The `release` or `files` of a request's body, and the contents of the directory.
fn migration_set(text: &str, context: &mut CommandContext) -> Result<(Value, Option<MigrationDirectory>)> {
    let path = Path::new(text);
    if text.starts_with("rel_") && !context.absolute_path(path).is_dir() {
        return Ok((json!({"release": text}), None));
    }
    let found = input::migration_files(path, context)?;
    Ok((json!({"files": found.files}), Some(found)))
}

async fn migrate_tenants(args: MigrateRunArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let selection = args.selection.to_selection(&args.names, context, WhenEmpty::Refuse)?;
    let (mut body, _) = migration_set(&args.set, context)?;
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
    run_lock::run_exclusively(context, scope, ApiRequest::post("/v1/migrations", body), &args.change, &args.wait).await
}

async fn plan_migration(args: MigratePlanArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let selection = args.selection.to_selection(&args.names, context, WhenEmpty::All)?;
    let (mut body, found) = match &args.set {
        Some(text) => migration_set(text, context)?,
        None => (json!({"release": current_release(context).await?}), None),
    };
    if let Some(target) = args.target {
        body["target"] = json!(target);
    }
    if args.include_pinned {
        body["include_pinned"] = json!(true);
    }
    body["selection"] = selection;
    let client = context.api_client().await?;
    let mut plan = client.send_for_json(&ApiRequest::post("/v1/migrations/plan", body)).await?;
    if let Some(found) = found {
        found.add_ignored(&mut plan);
    }
    if context.out.format == OutputFormat::Json {
        context.out.print_json(&format!("{plan:#}\n"))?;
    } else {
        let mut list = context.out.begin_list(&BY_VERSION)?;
        list.print_page(plan["by_version"].as_array().map_or(&[][..], Vec::as_slice))?;
        list.finish_list()?;
        let n = |key: &str| plan[key].as_u64().unwrap_or_default();
        let line = format!("{} to migrate, {} up to date, {} ahead", n("pending"), n("up_to_date"), n("ahead"));
        context.out.print_note(&line);
        note_pinned(context, &plan);
    }
    Ok(if args.check && plan["pending"].as_u64() != Some(0) { CommandExit::Found } else { CommandExit::Done })
}

async fn current_release(context: &mut CommandContext) -> Result<String> {
    let client = context.api_client().await?;
    let status = client.send_for_json(&ApiRequest::get("/v1/migrations/status")).await?;
    status["head"]["id"].as_str().map(str::to_owned).ok_or_else(|| {
        CommandFailure::new(CommandExit::NotFound, "the fleet has no current release")
            .try_next("fleetctl migrate plan ./migrations/app")
    })
}

async fn migration_status(args: MigrateStatusArgs, context: &mut CommandContext) -> Result<CommandExit> {
    if args.selection.from_file.is_some() {
        return Err(CommandFailure::usage_error("migrate status takes -l and --server, not --from-file"));
    }
    let client = context.api_client().await?;
    let mut request = filter_request(ApiRequest::get("/v1/migrations/status"), &args.selection);
    if args.verify {
        request = request.with_query("verify", "true");
    }
    let status = client.send_for_json(&request).await?;
    context.out.print_facts(&STATUS, &status)?;
    if matches!(context.out.format, OutputFormat::Table | OutputFormat::Wide) {
        print_versions(context, &status)?;
    }
    note_pinned(context, &status);
    let n = |key: &str| status[key].as_u64().unwrap_or_default();
    if n("unreadable") > 0 {
        let databases = count_noun(n("unreadable"), "database");
        context.out.print_message(&format!("error: could not look at {databases}: nothing is known of their versions"));
        context.out.print_message("try:   fleetctl scrub      # shows why, and changes nothing");
    }
    let splits = status["splits"].as_array().cloned().unwrap_or_default();
    for split in splits.iter().filter_map(Value::as_str) {
        context.out.print_note(&format!("split: {}", escape_text(split)));
    }
    if !splits.is_empty() {
        context
            .out
            .print_note("try:   keep a directory for each text, and run it for the tenants with that text, by name");
        context.out.print_note("try:   or recreate the smaller group of tenants, and copy their rows");
    }
    let failed = status["failed"].as_array().is_some_and(|failed| !failed.is_empty());
    // A pinned tenant is at its version on purpose.
    let found = n("up_to_date") + n("pinned") < n("total") || !splits.is_empty() || failed;
    Ok(if args.check && found { CommandExit::Found } else { CommandExit::Done })
}

/// Prints the tenants that keep an older version because they are pinned.
fn note_pinned(context: &mut CommandContext, answer: &Value) {
    for pin in answer["pinned_tenants"].as_array().into_iter().flatten() {
        note_pin(context, &pin["tenant"], pin);
    }
}

const VERSIONS: TableView = TableView {
    name: "/version",
    columns: &[TableColumn::of_text("VERSION", "/version"), TableColumn::of_text("TENANTS", "/tenants")],
};
const FAILED: TableView = TableView {
    name: "/tenant",
    columns: &[
        TableColumn::of_text("FAILED", "/tenant").may_cut(),
        TableColumn::of_text("CODE", "/error/code"),
        TableColumn::of_text("ERROR", "/error/detail").may_cut(),
    ],
};

fn print_versions(context: &mut CommandContext, status: &Value) -> Result<()> {
    for (key, view) in [("versions", &VERSIONS), ("failed", &FAILED)] {
        if let Some(items) = status[key].as_array().filter(|items| !items.is_empty()) {
            context.out.print_text("\n")?;
            let mut list = context.out.begin_list(view)?;
            list.print_page(items)?;
            list.finish_list()?;
        }
    }
    Ok(())
}

async fn retry_migration(args: MigrateRetryArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let id = match args.operation {
        Some(id) => id,
        None => last_migration(context).await?,
    };
    let request = ApiRequest::post(format!("/v1/operations/{}/retry", path_segment(&id)?), json!({}));
    operation::run_operation(context, request, &args.change, &args.wait).await
}

async fn last_migration(context: &mut CommandContext) -> Result<String> {
    let client = context.api_client().await?;
    let page = client
        .send_for_json(&ApiRequest::get("/v1/operations").with_query("kind", "migrate").with_query("limit", "1"))
        .await?;
    page["items"][0]["id"].as_str().map(str::to_owned).ok_or_else(|| {
        CommandFailure::new(CommandExit::NotFound, "no migration has run yet")
            .try_next("fleetctl migrate run ./migrations/app --all")
    })
}
