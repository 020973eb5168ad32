//! `fleetctl release`: migration sets the fleet knows.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{change_and_print, print_one, print_pages};
use crate::args::Change;
use crate::client::{Request, segment};
use crate::context::Context;
use crate::error::{Exit, Result};
use crate::input;
use crate::table::{Column, View};

const RELEASE: View = View {
    name: "/id",
    columns: &[
        Column::text("ID", "/id"),
        Column::text("HEAD", "/head_version"),
        Column::text("CURRENT", "/current"),
        Column::text("ENGINE", "/engine"),
        Column::time("CREATED", "/created_at"),
        Column::text("BY", "/created_by").wide(),
        Column::text("DIGEST", "/digest").wide(),
    ],
};

/// What can be done with releases.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List releases
    List,
    /// Show one release with its files
    Get {
        /// Its id (`rel_…`)
        release: String,
    },
    /// Store a migration directory without running it
    Add(Add),
    /// Make new tenants start with this release
    Activate(Activate),
}

/// Flags of `release add`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  fleetctl release add ./migrations/app -o name")]
pub(crate) struct Add {
    /// A sqlx migration directory
    directory: PathBuf,
    #[command(flatten)]
    change: Change,
}

/// Flags of `release activate`.
#[derive(Debug, Args)]
pub(crate) struct Activate {
    /// Its id (`rel_…`)
    release: String,
    #[command(flatten)]
    change: Change,
}

/// Runs `fleetctl release …`.
pub(crate) async fn run(verb: Verb, context: &mut Context) -> Result<Exit> {
    match verb {
        Verb::List => print_pages(context, Request::get("/v1/releases"), &RELEASE).await,
        Verb::Get { release } => {
            print_one(context, Request::get(format!("/v1/releases/{}", segment(&release)?)), &RELEASE).await
        }
        Verb::Add(args) => {
            let files = input::migration_files(&args.directory, context)?;
            let request = Request::post("/v1/releases", json!({"files": files}));
            change_and_print(context, request, &args.change, &RELEASE).await
        }
        Verb::Activate(args) => {
            let request = Request::post(format!("/v1/releases/{}/activate", segment(&args.release)?), json!({}));
            change_and_print(context, request, &args.change, &RELEASE).await
        }
    }
}
