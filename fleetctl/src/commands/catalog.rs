//! `fleetctl catalog`: where the fleet is written down, checked and moved. Works on the data directory by itself, because
//! these are what helps when no control plane can run.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use control_plane::catalog_care::{self, Copied, Report};
use control_plane::config::Role;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::output::Format;
use crate::settings::secret_in;
use crate::table::{Column, View};

const CHECK: View = View {
    name: "/name",
    columns: &[
        Column::text("STATUS", "/status"),
        Column::text("CHECK", "/name"),
        Column::text("DETAIL", "/detail"),
        Column::text("TRY", "/next_step"),
    ],
};

const COPIED: View =
    View { name: "/table", columns: &[Column::text("TABLE", "/table"), Column::text("ROWS", "/rows")] };

/// What can be done with a catalog.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Look whether it is reachable, whole and quick; exits 4 when something is wrong
    Check,
    /// Copy the one in the data directory to an empty Postgres database
    Copy(Copy),
}

/// Flags of `catalog copy`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl catalog copy --to-url-file /etc/fleet/catalog.url
  FLEET_CATALOG_URL=\"$(cat /etc/fleet/catalog.url)\" fleetctl serve

The way up from one machine. No server may run on the data directory. The file stays as it is, and catalog.moved beside
it keeps everybody from going on with it; to go back to the file, remove catalog.moved.")]
pub(crate) struct Copy {
    /// A file that holds postgres://user:password@host:5432/database; the database must be empty
    #[arg(long, value_name = "FILE")]
    to_url_file: PathBuf,
}

/// Runs `fleetctl catalog …`.
pub(crate) async fn run(verb: &Verb, context: &mut Context) -> Result<Exit> {
    if let Some(origin) = context.settings.origin("url") {
        return Err(Failure::usage("the catalog is looked at from its own data directory, but a url is set")
            .because(format!("it was set by: {origin}"))
            .try_next("unset it, and name the directory with --data-dir"));
    }
    match verb {
        Verb::Check => check(context).await,
        Verb::Copy(args) => copy(args, context).await,
    }
}

async fn check(context: &mut Context) -> Result<Exit> {
    let report = catalog_care::check(&context.settings.config(Role::Embedded)?).await?;
    // A silent success, a loud failure: what cron should mail.
    context.out.silent &= report.is_sound();
    print_report(context, &report)?;
    Ok(if report.is_sound() { Exit::Done } else { Exit::Found })
}

fn print_report(context: &mut Context, report: &Report) -> Result<()> {
    if context.out.format == Format::Json {
        return context.out.json(&format!("{:#}\n", json!(report)));
    }
    let mut list = context.out.list(&CHECK)?;
    let checks: Vec<Value> = report.checks.iter().map(|check| json!(check)).collect();
    list.page(&checks)?;
    list.finish()
}

async fn copy(args: &Copy, context: &mut Context) -> Result<Exit> {
    let to = secret_in(&context.absolute(&args.to_url_file))?;
    let config = context.settings.config(Role::Embedded)?;
    super::serve::free(&config.data_dir)?;
    let copied = catalog_care::copy(&config, &to).await?;
    print_copied(context, &copied)?;
    context.out.note(&format!(
        "The catalog is at {} now. Next: set FLEET_CATALOG_URL (or catalog_url_file in fleet.toml) wherever fleetctl runs.",
        copied.location
    ));
    Ok(Exit::Done)
}

fn print_copied(context: &mut Context, copied: &Copied) -> Result<()> {
    if context.out.format == Format::Json {
        return context.out.json(&format!("{:#}\n", json!(copied)));
    }
    let mut list = context.out.list(&COPIED)?;
    let rows: Vec<Value> = copied.rows.iter().map(|(table, rows)| json!({"table": table, "rows": rows})).collect();
    list.page(&rows)?;
    list.finish()
}
