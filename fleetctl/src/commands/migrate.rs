//! `fleetctl migrate`: brings tenants to a version of the schema.

use std::path::Path;

use clap::{Args, Subcommand};
use fleet_api::bounded_number::MigrationVersion;
use fleet_api::changes::ChangeOptions;
use fleet_api::migrations::{
    FailedTenant, MigrationPlan, MigrationRun, MigrationStatus, PinnedTenant, PlanAtVersion, VersionCount,
};
use fleet_api::operations::{FailureDetail, OperationView};
use fleet_api::pages::PageOf;
use fleet_api::releases::ReleaseView;
use fleet_api::{field, pointer};
use fleet_client::{ApiRequest, path_segment};
use serde_json::Value;

use super::{filter_request, note_pin};
use crate::args::{ChangeArgs, SelectionArgs, WaitArgs, WhenEmpty, in_range, is_open_ended};
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::ignored::IgnoredEntry;
use crate::input::{self, add_ignored};
use crate::operation;
use crate::output::OutputFormat;
use crate::run_lock;
use crate::table::{TableColumn, TableView, count_noun, escape_text};

const STATUS: TableView = TableView {
    name: pointer!(MigrationStatus: head, ReleaseView: id),
    columns: &[
        TableColumn::of_text("RELEASE", pointer!(MigrationStatus: head, ReleaseView: id)),
        TableColumn::of_text("HEAD", pointer!(MigrationStatus: head, ReleaseView: head_version)),
        TableColumn::of_text("TENANTS", pointer!(MigrationStatus: total)),
        TableColumn::of_text("UP TO DATE", pointer!(MigrationStatus: up_to_date)),
        TableColumn::of_text("PENDING", pointer!(MigrationStatus: pending)),
        TableColumn::of_text("AHEAD", pointer!(MigrationStatus: ahead)),
        TableColumn::of_text("PINNED", pointer!(MigrationStatus: pinned)),
        TableColumn::of_text("DIFFER", pointer!(MigrationStatus: differ)),
        TableColumn::of_text("UNREADABLE", pointer!(MigrationStatus: unreadable)),
        TableColumn::of_text("READ", pointer!(MigrationStatus: read)),
        TableColumn::of_text("UNKNOWN", pointer!(MigrationStatus: unknown)),
        TableColumn::of_text("LAST RUN", pointer!(MigrationStatus: last_operation, OperationView: id)),
        TableColumn::of_text("LAST STATE", pointer!(MigrationStatus: last_operation, OperationView: state)),
    ],
};

const BY_VERSION: TableView = TableView {
    name: pointer!(PlanAtVersion: version),
    columns: &[
        TableColumn::of_text("VERSION", pointer!(PlanAtVersion: version)),
        TableColumn::of_text("TENANTS", pointer!(PlanAtVersion: tenants)),
        TableColumn::of_text("TO APPLY", pointer!(PlanAtVersion: pending)),
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

/// A request with the `release` or the `files`, and the entries of the directory that are not read.
fn migration_set(text: &str, context: &mut CommandContext) -> Result<(MigrationRun, Vec<IgnoredEntry>)> {
    let path = Path::new(text);
    if text.starts_with("rel_") && !context.absolute_path(path).is_dir() {
        return Ok((MigrationRun { release: Some(text.to_owned()), ..MigrationRun::default() }, Vec::new()));
    }
    let found = input::migration_files(path, context)?;
    Ok((MigrationRun { files: Some(found.files), ..MigrationRun::default() }, found.ignored))
}

fn version_in_range(target: Option<i64>) -> Result<Option<MigrationVersion>> {
    match target {
        Some(negative) if negative < 0 => {
            Err(CommandFailure::usage_error(format!("--target must be the version of a migration, not {negative}")))
        }
        target => in_range("--target", target.map(i64::unsigned_abs)),
    }
}

async fn migrate_tenants(args: MigrateRunArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let selection = args.selection.to_selection(&args.names, context, WhenEmpty::Refuse)?;
    let (set, _) = migration_set(&args.set, context)?;
    let scope = is_open_ended(&selection).then_some("migrate");
    let run = MigrationRun {
        selection,
        target: version_in_range(args.target)?,
        verify: args.verify,
        include_pinned: args.include_pinned,
        concurrency: in_range("--concurrency", args.concurrency.map(u64::from))?,
        ..set
    };
    run_lock::run_exclusively(context, scope, ApiRequest::post("/v1/migrations", &run), &args.change, &args.wait).await
}

async fn plan_migration(args: MigratePlanArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let selection = args.selection.to_selection(&args.names, context, WhenEmpty::All)?;
    let (set, ignored) = match &args.set {
        Some(text) => migration_set(text, context)?,
        None => {
            let release = Some(current_release(context).await?);
            (MigrationRun { release, ..MigrationRun::default() }, Vec::new())
        }
    };
    let target = version_in_range(args.target)?;
    let run = MigrationRun { selection, target, include_pinned: args.include_pinned, ..set };
    let client = context.api_client().await?;
    let mut plan = client.send_for_json(&ApiRequest::post("/v1/migrations/plan", &run)).await?;
    add_ignored(&ignored, &mut plan);
    if context.out.format == OutputFormat::Json {
        context.out.print_json(&format!("{plan:#}\n"))?;
    } else {
        let mut list = context.out.begin_list(&BY_VERSION)?;
        list.print_page(plan[field!(MigrationPlan: by_version)].as_array().map_or(&[][..], Vec::as_slice))?;
        list.finish_list()?;
        let n = |key: &str| plan[key].as_u64().unwrap_or_default();
        let line = format!(
            "{} to migrate, {} up to date, {} ahead",
            n(field!(MigrationPlan: pending)),
            n(field!(MigrationPlan: up_to_date)),
            n(field!(MigrationPlan: ahead))
        );
        context.out.print_note(&line);
        note_pinned(context, &plan);
    }
    Ok(if args.check && plan[field!(MigrationPlan: pending)].as_u64() != Some(0) {
        CommandExit::Found
    } else {
        CommandExit::Done
    })
}

async fn current_release(context: &mut CommandContext) -> Result<String> {
    let client = context.api_client().await?;
    let status = client.send_for_json(&ApiRequest::get("/v1/migrations/status")).await?;
    status[field!(MigrationStatus: head)][field!(ReleaseView: id)].as_str().map(str::to_owned).ok_or_else(|| {
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
    if n(field!(MigrationStatus: unreadable)) > 0 {
        let databases = count_noun(n(field!(MigrationStatus: unreadable)), "database");
        context.out.print_message(&format!("error: could not look at {databases}: nothing is known of their versions"));
        context.out.print_message("try:   fleetctl scrub      # shows why, and changes nothing");
    }
    let splits = status[field!(MigrationStatus: splits)].as_array().cloned().unwrap_or_default();
    for split in splits.iter().filter_map(Value::as_str) {
        context.out.print_note(&format!("split: {}", escape_text(split)));
    }
    if !splits.is_empty() {
        context
            .out
            .print_note("try:   keep a directory for each text, and run it for the tenants with that text, by name");
        context.out.print_note("try:   or recreate the smaller group of tenants, and copy their rows");
    }
    let failed = status[field!(MigrationStatus: failed)].as_array().is_some_and(|failed| !failed.is_empty());
    // A pinned tenant is at its version on purpose.
    let found = n(field!(MigrationStatus: up_to_date)) + n(field!(MigrationStatus: pinned))
        < n(field!(MigrationStatus: total))
        || !splits.is_empty()
        || failed;
    Ok(if args.check && found { CommandExit::Found } else { CommandExit::Done })
}

/// Prints the tenants that keep an older version because they are pinned.
fn note_pinned(context: &mut CommandContext, answer: &Value) {
    for pin in answer[field!(MigrationPlan: pinned_tenants)].as_array().into_iter().flatten() {
        note_pin(context, &pin[field!(PinnedTenant: tenant)], pin);
    }
}

const VERSIONS: TableView = TableView {
    name: pointer!(VersionCount: version),
    columns: &[
        TableColumn::of_text("VERSION", pointer!(VersionCount: version)),
        TableColumn::of_text("TENANTS", pointer!(VersionCount: tenants)),
    ],
};
const FAILED: TableView = TableView {
    name: pointer!(FailedTenant: tenant),
    columns: &[
        TableColumn::of_text("FAILED", pointer!(FailedTenant: tenant)).may_cut(),
        TableColumn::of_text("CODE", pointer!(FailedTenant: error, FailureDetail: code)),
        TableColumn::of_text("ERROR", pointer!(FailedTenant: error, FailureDetail: detail)).may_cut(),
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
    let request = ApiRequest::post(format!("/v1/operations/{}/retry", path_segment(&id)?), &ChangeOptions::default());
    operation::run_operation(context, request, &args.change, &args.wait).await
}

async fn last_migration(context: &mut CommandContext) -> Result<String> {
    let client = context.api_client().await?;
    let page = client
        .send_for_json(&ApiRequest::get("/v1/operations").with_query("kind", "migrate").with_query("limit", "1"))
        .await?;
    page[field!(PageOf<Value>: items)][0]["id"].as_str().map(str::to_owned).ok_or_else(|| {
        CommandFailure::new(CommandExit::NotFound, "no migration has run yet")
            .try_next("fleetctl migrate run ./migrations/app --all")
    })
}
