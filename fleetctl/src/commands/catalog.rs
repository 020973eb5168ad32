//! `fleetctl catalog`: checks the catalog and moves it. Works on the data directory directly, because these commands
//! are needed when no control plane can run.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use control_plane::catalog_admin::{self, CatalogCheckReport, CatalogCopySummary};
use control_plane::config::ProcessRole;
use serde_json::{Value, json};

use super::catalog_identity::{self as identity, NewIdentityArgs, TakeOverArgs};
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::output::OutputFormat;
use crate::settings::secret_in;
use crate::table::{TableColumn, TableView};

const CHECK: TableView = TableView {
    name: "/name",
    columns: &[
        TableColumn::of_text("STATUS", "/status"),
        TableColumn::of_text("CHECK", "/name"),
        TableColumn::of_text("DETAIL", "/detail"),
        TableColumn::of_text("TRY", "/next_step"),
    ],
};

const COPIED: TableView = TableView {
    name: "/table",
    columns: &[TableColumn::of_text("TABLE", "/table"), TableColumn::of_text("ROWS", "/rows")],
};

/// Commands of a catalog.
#[derive(Debug, Subcommand)]
pub(crate) enum CatalogCommand {
    /// Check that the catalog is reachable, complete and fast; exit 4 if it is not
    Check,
    /// Copy the catalog of the data directory to an empty Postgres database
    Copy(CatalogCopyArgs),
    /// Make a copied data directory its own fleet; the original keeps the servers outside it
    NewIdentity(NewIdentityArgs),
    /// Let this data directory use the servers outside it, after a copy of it used them
    TakeOver(TakeOverArgs),
}

/// Flags of `catalog copy`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl catalog copy --to-url-file /etc/fleet/catalog.url
  FLEET_CATALOG_URL=\"$(cat /etc/fleet/catalog.url)\" fleetctl serve

Moves a fleet from one machine's file to Postgres. No server may run on the data directory. The file stays unchanged;
catalog.moved beside it prevents further use. To go back to the file, remove catalog.moved.")]
pub(crate) struct CatalogCopyArgs {
    /// A file that holds postgres://user:password@host:5432/database; the database must be empty
    #[arg(long, value_name = "FILE")]
    to_url_file: PathBuf,
}

/// Runs `fleetctl catalog …`.
pub(crate) async fn run_catalog_command(verb: &CatalogCommand, context: &mut CommandContext) -> Result<CommandExit> {
    if let Some(origin) = context.settings.value_origin("url") {
        return Err(CommandFailure::usage_error("this command works on a data directory, but a url is set")
            .with_cause(format!("it was set by: {origin}"))
            .try_next("unset it, and name the directory with --data-dir"));
    }
    match verb {
        CatalogCommand::Check => check_catalog(context).await,
        CatalogCommand::Copy(args) => copy_catalog(args, context).await,
        CatalogCommand::NewIdentity(args) => identity::give_new_identity(args, context).await,
        CatalogCommand::TakeOver(args) => identity::take_over(args, context).await,
    }
}

async fn check_catalog(context: &mut CommandContext) -> Result<CommandExit> {
    let report = catalog_admin::check_catalog(&context.settings.control_plane_config(ProcessRole::Embedded)?).await?;
    // Success is silent and failure is printed, so that cron mails only failures.
    context.out.silent &= report.is_sound();
    print_report(context, &report)?;
    Ok(if report.is_sound() { CommandExit::Done } else { CommandExit::Found })
}

fn print_report(context: &mut CommandContext, report: &CatalogCheckReport) -> Result<()> {
    if context.out.format == OutputFormat::Json {
        return context.out.print_json(&format!("{:#}\n", json!(report)));
    }
    let mut list = context.out.begin_findings(&CHECK)?;
    let checks: Vec<Value> = report.checks.iter().map(|check| json!(check)).collect();
    list.print_page(&checks)?;
    list.finish_list()
}

async fn copy_catalog(args: &CatalogCopyArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let to = secret_in(&context.absolute_path(&args.to_url_file))?;
    let config = context.settings.control_plane_config(ProcessRole::Embedded)?;
    super::serve::require_unserved(&config.data_dir)?;
    let copied = catalog_admin::copy_catalog(&config, &to).await?;
    print_copy_result(context, &copied)?;
    context.out.print_note(&format!(
        "The catalog is now at {}. Next: set FLEET_CATALOG_URL (or catalog_url_file in fleet.toml) wherever fleetctl runs.",
        copied.location
    ));
    Ok(CommandExit::Done)
}

fn print_copy_result(context: &mut CommandContext, copied: &CatalogCopySummary) -> Result<()> {
    if context.out.format == OutputFormat::Json {
        return context.out.print_json(&format!("{:#}\n", json!(copied)));
    }
    let mut list = context.out.begin_list(&COPIED)?;
    let rows: Vec<Value> = copied.rows.iter().map(|(table, rows)| json!({"table": table, "rows": rows})).collect();
    list.print_page(&rows)?;
    list.finish_list()
}
