//! `fleetctl init`: a new fleet in a data directory.

use clap::Args;
use control_plane::app::Initialised;
use control_plane::config::Role;
use control_plane::home::Home;
use control_plane::{App, Config};
use serde_json::json;

use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::table::{Column, View};

const MADE: View = View {
    name: "/data_dir",
    columns: &[
        Column::text("DATA DIRECTORY", "/data_dir"),
        Column::text("OPERATOR TOKEN", "/operator_token_file"),
        Column::text("KEY", "/key_file"),
        Column::text("NEW", "/created"),
    ],
};

/// Flags of `init`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl init
  fleetctl init --data-dir /var/lib/fleet

Doing it again changes nothing.")]
pub(crate) struct Init {
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs `fleetctl init`.
pub(crate) async fn run(args: &Init, context: &mut Context) -> Result<Exit> {
    if context.settings.get("url").is_some() {
        return Err(Failure::usage(
            "init makes a fleet in a data directory, but a url is set: that control plane has its fleet",
        )
        .try_next("fleetctl config show --origin      # says who set it"));
    }
    let config = context.settings.config(Role::Embedded)?;
    if args.dry_run {
        let what = if is_there(&config).await? { "nothing: a fleet is there" } else { "a new fleet would be made" };
        context.out.note(&format!("dry run: {what} in {}", config.data_dir.display()));
        return Ok(Exit::Done);
    }
    let initialised = App::init(&config).await?;
    let key_file = config.fleet_key.is_none().then(|| config.data_dir.join("fleet.key"));
    let item = json!({
        "data_dir": config.data_dir,
        "operator_token_file": config.data_dir.join("operator.token"),
        "key_file": key_file,
        "created": initialised == Initialised::Created,
    });
    context.out.facts(&MADE, &item)?;
    advise(context, initialised, &config);
    Ok(Exit::Done)
}

/// Whether there is a fleet; a directory where `init` would refuse is refused here too.
async fn is_there(config: &Config) -> Result<bool> {
    Home::require_local(config)?;
    if !config.data_dir.exists() {
        return Ok(false);
    }
    Ok(Home::at(config)?.look_for_catalog().await?)
}

fn advise(context: &mut Context, initialised: Initialised, config: &Config) {
    let elsewhere = config.catalog_url.is_some();
    match (initialised, elsewhere) {
        (Initialised::Found, false) => return context.out.note("A fleet is here already; nothing was changed."),
        (Initialised::Found, true) => {
            return context
                .out
                .note("This directory belongs to the fleet that is in the catalog. Next: fleetctl serve");
        }
        (Initialised::Created, _) => {}
    }
    if config.fleet_key.is_none() {
        context.out.note("Back this up: without fleet.key the sealed secrets of this fleet cannot be read again.");
    }
    context.out.note(match elsewhere {
        false => "Next: fleetctl tenant create acme",
        true => "Next: fleetctl server add      # where tenants' databases live: every control plane must reach it",
    });
}
