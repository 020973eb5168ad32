//! `fleetctl server`: the places databases live.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{change_and_print, print_one, print_pages};
use crate::args::Change;
use crate::client::{Request, segment};
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::table::{Column, View};

const SERVER: View = View {
    name: "/name",
    columns: &[
        Column::text("NAME", "/name"),
        Column::text("ENGINE", "/engine"),
        Column::text("STATE", "/state"),
        Column::text("TENANTS", "/tenants"),
        Column::text("MAX", "/tenants_max"),
        Column::bytes("FREE", "/disk_free_bytes"),
        Column::bytes("DISK", "/disk_total_bytes"),
        Column::text("BASE", "/base"),
        Column::text("ID", "/id").wide(),
    ],
};

/// What can be done with servers.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Add a place for databases
    Add(Add),
    /// List servers
    List,
    /// Show one server
    Get {
        /// Its name
        server: String,
    },
    /// Take no more tenants
    Cordon(One),
    /// Take tenants again
    Uncordon(One),
    /// Forget an empty server
    Remove(One),
}

/// Flags of `server add`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  fleetctl server add disk2 --base /mnt/disk2/tenants --tenants-max 5000")]
pub(crate) struct Add {
    /// What operators call it
    name: String,
    /// What it runs
    #[arg(long, default_value = "sqlite")]
    engine: String,
    /// The directory that holds its databases
    #[arg(long, value_name = "DIR")]
    base: PathBuf,
    /// Take at most this many tenants
    #[arg(long, value_name = "N")]
    tenants_max: Option<u64>,
    #[command(flatten)]
    change: Change,
}

/// One server to be changed.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Its name
    server: String,
    #[command(flatten)]
    change: Change,
}

/// Runs `fleetctl server …`.
pub(crate) async fn run(verb: Verb, context: &mut Context) -> Result<Exit> {
    match verb {
        Verb::Add(args) => add(args, context).await,
        Verb::List => print_pages(context, Request::get("/v1/servers"), &SERVER).await,
        Verb::Get { server } => {
            print_one(context, Request::get(format!("/v1/servers/{}", segment(&server)?)), &SERVER).await
        }
        Verb::Cordon(one) => switch(context, &one, "cordon").await,
        Verb::Uncordon(one) => switch(context, &one, "uncordon").await,
        Verb::Remove(one) => {
            let request = Request::delete(format!("/v1/servers/{}", segment(&one.server)?));
            change_and_print(context, request, &one.change, &SERVER).await
        }
    }
}

async fn add(args: Add, context: &mut Context) -> Result<Exit> {
    let base = base(&args.base, context).await?;
    let mut body = json!({"name": args.name, "engine": args.engine, "base": base});
    if let Some(max) = args.tenants_max {
        body["tenants_max"] = json!(max);
    }
    change_and_print(context, Request::post("/v1/servers", body), &args.change, &SERVER).await
}

/// A relative directory means one of this machine, so it may only be given to a control plane in this process.
async fn base(path: &Path, context: &mut Context) -> Result<String> {
    let embedded = context.client().await?.is_embedded();
    if path.is_relative() && !embedded {
        return Err(Failure::usage("--base must be absolute: it is a directory of the server's machine"));
    }
    let absolute = context.absolute(path);
    let text = absolute.to_str().ok_or_else(|| Failure::usage("--base is not UTF-8"))?;
    Ok(text.to_owned())
}

async fn switch(context: &mut Context, one: &One, verb: &str) -> Result<Exit> {
    let request = Request::post(format!("/v1/servers/{}/{verb}", segment(&one.server)?), json!({}));
    change_and_print(context, request, &one.change, &SERVER).await
}
