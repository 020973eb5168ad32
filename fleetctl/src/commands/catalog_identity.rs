//! `fleetctl catalog new-identity` and `take-over`: commands for two copies of one data directory.

use clap::Args;
use control_plane::config::ProcessRole;
use control_plane::new_identity::{self, ExclusiveDataDirectory, InSpiteOf, NewIdentityReport as Report};
use serde_json::json;

use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::input;
use crate::output::OutputFormat;

/// Maximum number of names shown of a long list.
const SHOWN: usize = 20;

/// Flags of `catalog new-identity`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cp -a fleet-data staging
  fleetctl catalog new-identity --data-dir staging

The tenants inside the directory belong to the new fleet. Servers outside it (other directories, Postgres) stay with the
original, and so do their tenants, archived tenants and backups: they are removed from this catalog, but not changed.
Tokens stay valid in both fleets. No server may run on the directory. A copy of the previous catalog is kept beside it.")]
pub(crate) struct NewIdentityArgs {
    /// Do not ask for confirmation
    #[arg(short = 'y', long, help_heading = "Confirmation")]
    yes: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Continue without proof that this is a copy: it may be the only one
    #[arg(long)]
    not_a_copy: bool,
    /// Finish without the databases that cannot get the new identity: this directory no longer serves them
    #[arg(long)]
    skip_failed: bool,
}

/// Flags of `catalog take-over`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl catalog take-over --data-dir /srv/fleet-data

Use this to go back to the original after its copy was used. After that, servers outside the directory refuse the copy.
Changes that the copy made there stay.")]
pub(crate) struct TakeOverArgs {
    /// Do not ask for confirmation
    #[arg(short = 'y', long, help_heading = "Confirmation")]
    yes: bool,
    /// Continue although this user cannot see whether the original still exists
    #[arg(long)]
    original_is_gone: bool,
}

/// Runs `fleetctl catalog new-identity`.
pub(super) async fn give_new_identity(args: &NewIdentityArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let alone = open_data_directory(context).await?;
    let done = give_identity_exclusively(args, &alone, context).await;
    alone.close().await;
    done
}

async fn give_identity_exclusively(
    args: &NewIdentityArgs,
    alone: &ExclusiveDataDirectory,
    context: &mut CommandContext,
) -> Result<CommandExit> {
    let planned = alone.preview_identity().await?;
    if context.out.format != OutputFormat::Json || !args.yes {
        describe_new_identity(context, &planned);
    }
    if args.dry_run {
        return print_identity_report(context, &planned, "Nothing was changed.");
    }
    confirm_directory_change(context, args.yes, "give it its own identity", &planned.data_dir)?;
    let in_spite_of = InSpiteOf { no_original: args.not_a_copy, failures: args.skip_failed };
    let given = alone.assign_identity(&context.environment.actor_name(), in_spite_of).await?;
    for failure in &given.failed {
        context.out.print_note(&format!("Without the new identity: {failure}"));
    }
    if let Some(before) = &given.catalog_before {
        context.out.print_note(&format!(
            "Copy of the previous catalog, with its secrets: {before} (readable only by its owner)"
        ));
    }
    let said = match &given.fleet_id {
        Some(id) => format!("{} is the fleet {id} now.", given.data_dir),
        None => "Not finished. Repair these databases and repeat the command, or continue without them: --skip-failed"
            .to_owned(),
    };
    print_identity_report(context, &given, &said)?;
    Ok(if given.failed.is_empty() { CommandExit::Done } else { CommandExit::Found })
}

/// Runs `fleetctl catalog take-over`.
pub(super) async fn take_over(args: &TakeOverArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let config = context.settings.control_plane_config(ProcessRole::Embedded)?;
    let shown = config.data_dir.display().to_string();
    confirm_directory_change(context, args.yes, "make it use the servers outside it", &shown)?;
    let alone = open_data_directory(context).await?;
    let taken = alone.take_over(&context.environment.actor_name(), args.original_is_gone).await;
    alone.close().await;
    let taken = taken?;
    if context.out.format == OutputFormat::Json {
        context.out.print_json(&format!("{:#}\n", json!(taken)))?;
    }
    context.out.print_note(&format!("Servers that {shown} uses from now on: {}.", short_list(&taken.servers)));
    for server in &taken.unreached {
        context.out.print_note(&format!("Not reachable; repeat the command when it answers: {server}"));
    }
    Ok(if taken.unreached.is_empty() { CommandExit::Done } else { CommandExit::Found })
}

async fn open_data_directory(context: &CommandContext) -> Result<ExclusiveDataDirectory> {
    let config = context.settings.control_plane_config(ProcessRole::Embedded)?;
    super::serve::require_unserved(&config.data_dir)?;
    Ok(new_identity::lock_data_directory(&config).await?)
}

fn describe_new_identity(context: &mut CommandContext, planned: &Report) {
    let lines = [
        format!(
            "The data directory {} becomes its own fleet. Its current fleet is {}.",
            planned.data_dir, planned.fleet_before
        ),
        format!("Databases inside it, which become the new fleet's: {}", planned.databases),
        format!("Servers that stay with the original: {}", short_list(&planned.servers_left)),
        format!("Tenants that stay with the original: {}", short_list(&planned.tenants_left)),
        format!("Backups that stay with the original: {}", planned.backups_left),
        format!("Operations that are cancelled here: {}", planned.operations_cancelled),
    ];
    lines.iter().for_each(|line| context.out.print_note(line));
}

fn short_list(names: &[String]) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match (names.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => shown,
        (false, more) => format!("{shown} and {more} more"),
    }
}

fn confirm_directory_change(context: &mut CommandContext, yes: bool, what: &str, directory: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !context.asks {
        return Err(CommandFailure::usage_error(format!(
            "this would change {directory}: {what}, and there is no terminal to confirm it"
        ))
        .code("confirmation_required")
        .try_next("the same command with --yes"));
    }
    input::confirm_typed(context, &format!("This will change {directory}: {what}"), "yes")
}

fn print_identity_report(context: &mut CommandContext, report: &Report, note: &str) -> Result<CommandExit> {
    if context.out.format == OutputFormat::Json {
        context.out.print_json(&format!("{:#}\n", json!(report)))?;
    }
    context.out.print_note(note);
    Ok(CommandExit::Done)
}
