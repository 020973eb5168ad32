//! `fleetctl init`: creates a new fleet in a data directory.

use clap::Args;
use control_plane::app::InitOutcome;
use control_plane::config::ProcessRole;
use control_plane::data_dir::DataDirectory;
use control_plane::{App, Config};
use serde_json::json;

use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::table::{TableColumn, TableView};

const MADE: TableView = TableView {
    name: "/data_dir",
    columns: &[
        TableColumn::of_text("DATA DIRECTORY", "/data_dir"),
        TableColumn::of_text("OPERATOR TOKEN", "/operator_token_file"),
        TableColumn::of_text("KEY", "/key_file"),
        TableColumn::of_text("NEW", "/created"),
    ],
};

/// Flags of `init`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl init
  fleetctl init --data-dir /var/lib/fleet

Running it again changes nothing.")]
pub(crate) struct InitArgs {
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs `fleetctl init`.
pub(crate) async fn run_init_command(args: &InitArgs, context: &mut CommandContext) -> Result<CommandExit> {
    if context.settings.get("url").is_some() {
        return Err(CommandFailure::usage_error(
            "init creates a fleet in a data directory, but a url is set: that control plane already has a fleet",
        )
        .try_next("fleetctl config show --origin      # shows where it is set"));
    }
    let config = context.settings.control_plane_config(ProcessRole::Embedded)?;
    if args.dry_run {
        let what = if fleet_exists(&config).await? {
            "nothing would be done: there is a fleet"
        } else {
            "a new fleet would be created"
        };
        context.out.print_note(&format!("dry run: {what} in {}", config.data_dir.display()));
        return Ok(CommandExit::Done);
    }
    let initialised = App::init_fleet(&config).await?;
    let key_file = config.fleet_key.is_none().then(|| config.data_dir.join("fleet.key"));
    let item = json!({
        "data_dir": config.data_dir,
        "operator_token_file": config.data_dir.join("operator.token"),
        "key_file": key_file,
        "created": initialised == InitOutcome::Created,
    });
    context.out.print_facts(&MADE, &item)?;
    advise_next_steps(context, initialised, &config);
    Ok(CommandExit::Done)
}

/// True when there is a fleet. Refuses the directories that `init` would refuse.
async fn fleet_exists(config: &Config) -> Result<bool> {
    DataDirectory::require_local(config)?;
    if !config.data_dir.exists() {
        return Ok(false);
    }
    Ok(DataDirectory::open_existing(config)?.find_catalog().await?)
}

fn advise_next_steps(context: &mut CommandContext, initialised: InitOutcome, config: &Config) {
    let elsewhere = config.catalog_url.is_some();
    match (initialised, elsewhere) {
        (InitOutcome::Found, false) => return context.out.print_note("There is already a fleet; nothing was changed."),
        (InitOutcome::Found, true) => {
            return context.out.print_note("This directory now belongs to the catalog's fleet. Next: fleetctl serve");
        }
        (InitOutcome::Created, _) => {}
    }
    if config.fleet_key.is_none() {
        context
            .out
            .print_note("Back this up: without fleet.key the sealed secrets of this fleet cannot be read again.");
    }
    context.out.print_note(match elsewhere {
        false => "Next: fleetctl tenant create acme",
        true => {
            "Next: fleetctl server add      # a server for tenants' databases, which every control plane must reach"
        }
    });
}
