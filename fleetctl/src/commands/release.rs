//! `fleetctl release`: the migration sets that the fleet knows.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fleet_api::changes::ChangeOptions;
use fleet_api::releases::{NewRelease, ReleaseView};
use fleet_api::{field, pointer};
use fleet_client::{ApiRequest, path_segment};
use serde_json::Value;

use super::{change_and_print, print_one, print_pages};
use crate::args::ChangeArgs;
use crate::context::CommandContext;
use crate::error::{CommandExit, Result};
use crate::ignored::IgnoredEntry;
use crate::input::{self, add_ignored};
use crate::operation;
use crate::table::{TableColumn, TableView, escape_text};

const RELEASE: TableView = TableView {
    name: pointer!(ReleaseView: id),
    columns: &[
        TableColumn::of_text("ID", pointer!(ReleaseView: id)),
        TableColumn::of_text("HEAD", pointer!(ReleaseView: head_version)),
        TableColumn::of_text("CURRENT", pointer!(ReleaseView: current)),
        TableColumn::of_text("ENGINE", pointer!(ReleaseView: engine)),
        TableColumn::of_time("CREATED", pointer!(ReleaseView: created_at)),
        TableColumn::of_text("BY", pointer!(ReleaseView: created_by)).only_wide(),
        TableColumn::of_text("DIGEST", pointer!(ReleaseView: digest)).only_wide(),
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
            let new = NewRelease { files: found.files, ..NewRelease::default() };
            add_release(context, ApiRequest::post("/v1/releases", &new), &args.change, &found.ignored).await
        }
        ReleaseCommand::Activate(args) => {
            let request = ApiRequest::post(
                format!("/v1/releases/{}/activate", path_segment(&args.release)?),
                &ChangeOptions::default(),
            );
            change_and_print(context, request, &args.change, &RELEASE).await
        }
    }
}

async fn add_release(
    context: &mut CommandContext,
    request: ApiRequest,
    change: &ChangeArgs,
    ignored: &[IgnoredEntry],
) -> Result<CommandExit> {
    if let Some(mut release) = operation::send_change(context, request, change).await? {
        for note in release[field!(ReleaseView: notes)].as_array().into_iter().flatten().filter_map(Value::as_str) {
            context.out.print_message(&format!("warning: {}", escape_text(note)));
        }
        add_ignored(ignored, &mut release);
        context.out.print_item(&RELEASE, &release)?;
    }
    Ok(CommandExit::Done)
}
