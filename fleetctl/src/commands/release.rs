//! `fleetctl release`: the migration sets that the fleet knows.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{change_and_print, print_one, print_pages};
use crate::args::ChangeArgs;
use crate::client::{ApiRequest, path_segment};
use crate::context::CommandContext;
use crate::error::{CommandExit, Result};
use crate::input::{self, MigrationDirectory};
use crate::operation;
use crate::table::{TableColumn, TableView, escape_text};

const RELEASE: TableView = TableView {
    name: "/id",
    columns: &[
        TableColumn::of_text("ID", "/id"),
        TableColumn::of_text("HEAD", "/head_version"),
        TableColumn::of_text("CURRENT", "/current"),
        TableColumn::of_text("ENGINE", "/engine"),
        TableColumn::of_time("CREATED", "/created_at"),
        TableColumn::of_text("BY", "/created_by").only_wide(),
        TableColumn::of_text("DIGEST", "/digest").only_wide(),
    ],
};

/// Commands of releases.
#[derive(Debug, Subcommand)]
pub(crate) enum ReleaseCommand {
    /// List releases
    List,
    /// Show one release with its files
    Get {
        /// The release's id (`rel_…`)
        release: String,
    },
    /// Store a migration directory without running it
    Add(ReleaseAddArgs),
    /// Make new tenants start with this release
    Activate(ReleaseActivateArgs),
}

/// Flags of `release add`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  fleetctl release add ./migrations/app -o name")]
pub(crate) struct ReleaseAddArgs {
    /// A sqlx migration directory
    directory: PathBuf,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Flags of `release activate`.
#[derive(Debug, Args)]
pub(crate) struct ReleaseActivateArgs {
    /// The release's id (`rel_…`)
    release: String,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Runs `fleetctl release …`.
pub(crate) async fn run_release_command(verb: ReleaseCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match verb {
        ReleaseCommand::List => print_pages(context, ApiRequest::get("/v1/releases"), &RELEASE).await,
        ReleaseCommand::Get { release } => {
            print_one(context, ApiRequest::get(format!("/v1/releases/{}", path_segment(&release)?)), &RELEASE).await
        }
        ReleaseCommand::Add(args) => {
            let found = input::migration_files(&args.directory, context)?;
            let request = ApiRequest::post("/v1/releases", json!({"files": found.files}));
            add_release(context, request, &args.change, &found).await
        }
        ReleaseCommand::Activate(args) => {
            let request =
                ApiRequest::post(format!("/v1/releases/{}/activate", path_segment(&args.release)?), json!({}));
            change_and_print(context, request, &args.change, &RELEASE).await
        }
    }
}

async fn add_release(
    context: &mut CommandContext,
    request: ApiRequest,
    change: &ChangeArgs,
    found: &MigrationDirectory,
) -> Result<CommandExit> {
    if let Some(mut release) = operation::send_change(context, request, change).await? {
        for note in release["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            context.out.print_message(&format!("warning: {}", escape_text(note)));
        }
        found.add_ignored(&mut release);
        context.out.print_item(&RELEASE, &release)?;
    }
    Ok(CommandExit::Done)
}
