//! `fleetctl tenant …`: commands that change the state, name or server of existing tenants.

use clap::{Args, Subcommand};
use fleet_api::bounded_number::{StepConcurrency, TenantCount};
use fleet_api::selection::SelectionRequest;
use fleet_api::tenants::{
    LifecycleChange, LifecycleClone, LifecycleMove, LifecycleReadOnly, LifecycleSettle, TenantPatch,
};
use fleet_client::{ApiRequest, path_segment};
use serde::Serialize;
use serde_json::json;

use super::create::finish_created;
use super::selected_in_state;
use super::tenant::TENANT;
use crate::args::{ChangeArgs, ConfirmArgs, SelectionArgs, WaitArgs, WhenEmpty, in_range, is_open_ended};
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::operation::{self, StartedOperation};
use crate::{input, run_lock};

/// Changes of existing tenants.
#[derive(Debug, Subcommand)]
pub(crate) enum LifecycleCommand {
    /// Give a tenant another name; the old name continues to work
    Rename(TenantRenameArgs),
    /// Stop answering requests of tenants, for a reason
    Suspend(ManyTenantsArgs),
    /// Resume suspended tenants
    Resume(ManyTenantsArgs),
    /// Block tenants' writes, or allow them again; reads continue
    ReadOnly(ReadOnlyArgs),
    /// Move tenants to another server of the same engine; reads continue
    Move(TenantMoveArgs),
    /// Create a tenant from a copy of another tenant's data
    Clone(TenantCloneArgs),
    /// Drop the database after a verified backup; the next request wakes the tenant
    Archive(ConfirmedTenantsArgs),
    /// Restore the databases of archived tenants
    Unarchive(ManyTenantsArgs),
    /// Restore deleted tenants
    Undelete(ManyTenantsArgs),
    /// Drop the databases of deleted tenants permanently
    Purge(ConfirmedTenantsArgs),
    /// Repair tenants after an operation failed halfway
    #[command(name = "repair", alias = "settle")]
    Settle(TenantRepairArgs),
}

/// Flags of `tenant rename`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant rename acme acme-corp")]
pub(crate) struct TenantRenameArgs {
    /// The tenant's name or id
    tenant: String,
    /// The new name
    name: String,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Selection of tenants, with the usual flags of changes.
#[derive(Debug, Args)]
pub(crate) struct ManyTenantsArgs {
    /// Tenants by name or id
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Maximum number of tenants at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// As [`ManyTenantsArgs`], with a confirmation.
#[derive(Debug, Args)]
pub(crate) struct ConfirmedTenantsArgs {
    #[command(flatten)]
    many: ManyTenantsArgs,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// Flags of `tenant read-only`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant read-only acme --reason 'the invoice is three months late'
  fleetctl tenant read-only acme --off")]
pub(crate) struct ReadOnlyArgs {
    /// Allow writes again
    #[arg(long)]
    off: bool,
    #[command(flatten)]
    many: ManyTenantsArgs,
}

/// Flags of `tenant move`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant move acme --to pg2
  fleetctl tenant move -l plan=pro --to disk2 --concurrency 2")]
pub(crate) struct TenantMoveArgs {
    /// The new server; by default any server of the same engine that takes tenants
    #[arg(long, value_name = "SERVER")]
    to: Option<String>,
    #[command(flatten)]
    many: ManyTenantsArgs,
}

/// Flags of `tenant repair`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant repair acme
  fleetctl tenant repair acme --use-current       # after you have checked that nothing was written to the newer database
  fleetctl tenant repair --all --find-latest      # after the catalog was restored from an older copy")]
pub(crate) struct TenantRepairArgs {
    /// Use the database that the catalog names, even if a newer one replaced it
    #[arg(long = "use-current", alias = "back")]
    back: bool,
    /// Find each tenant's newest database on all servers, after the catalog was restored from an older copy
    #[arg(long = "find-latest", alias = "newest", conflicts_with = "back")]
    newest: bool,
    #[command(flatten)]
    many: ManyTenantsArgs,
}

/// Flags of `tenant clone`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant clone acme acme-staging

The new tenant has no members and no tokens.")]
pub(crate) struct TenantCloneArgs {
    /// The tenant to copy
    tenant: String,
    /// The new tenant's name
    name: String,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Runs a lifecycle command.
pub(crate) async fn run_lifecycle_command(verb: LifecycleCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match verb {
        LifecycleCommand::Rename(args) => rename_tenant(args, context).await,
        LifecycleCommand::Suspend(args) => submit_operation("suspend", plain_change, args, context).await,
        LifecycleCommand::Resume(args) => submit_operation("resume", plain_change, args, context).await,
        LifecycleCommand::ReadOnly(args) => {
            let change = |selection, concurrency| LifecycleReadOnly {
                selection,
                concurrency,
                on: !args.off,
                ..LifecycleReadOnly::default()
            };
            submit_operation("read-only", change, args.many, context).await
        }
        LifecycleCommand::Move(args) => move_tenants(args, context).await,
        LifecycleCommand::Clone(args) => clone_tenant(args, context).await,
        LifecycleCommand::Archive(args) => submit_confirmed("archive", "active", args, context).await,
        LifecycleCommand::Unarchive(args) => submit_operation("unarchive", plain_change, args, context).await,
        LifecycleCommand::Undelete(args) => submit_operation("undelete", plain_change, args, context).await,
        LifecycleCommand::Purge(args) => submit_confirmed("purge", "deleted", args, context).await,
        LifecycleCommand::Settle(args) => {
            let change = |selection, concurrency| LifecycleSettle {
                selection,
                concurrency,
                back: args.back,
                newest: args.newest,
                ..LifecycleSettle::default()
            };
            submit_operation("settle", change, args.many, context).await
        }
    }
}

async fn rename_tenant(args: TenantRenameArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let patch = TenantPatch { name: Some(args.name), ..TenantPatch::default() };
    let request = ApiRequest::patch(format!("/v1/tenants/{}", path_segment(&args.tenant)?), &patch);
    super::change_and_print(context, request, &args.change, &TENANT).await
}

async fn move_tenants(args: TenantMoveArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let last = args.many.names.last().cloned().filter(|_| args.to.is_none());
    let before = args.many.names.len().saturating_sub(1);
    let others = args.many.names.get(..before).unwrap_or_default().join(" ");
    let change =
        |selection, concurrency| LifecycleMove { selection, concurrency, to: args.to, ..LifecycleMove::default() };
    match submit_operation("move", change, args.many, context).await {
        // `tenant move acme pg2`: the new server needs a flag.
        Err(failure) if failure.exit == CommandExit::NotFound => match last {
            Some(last) if is_server(context, &last).await => {
                Err(CommandFailure::usage_error(format!("{last} is a server, not a tenant"))
                    .with_cause("the new server must be named with --to")
                    .try_next(format!("fleetctl tenant move {others} --to {last}")))
            }
            _ => Err(failure),
        },
        other => other,
    }
}

async fn is_server(context: &mut CommandContext, name: &str) -> bool {
    let Ok(path) = path_segment(name) else { return false };
    let Ok(client) = context.api_client().await else { return false };
    client.send_for_json(&ApiRequest::get(format!("/v1/servers/{path}"))).await.is_ok()
}

/// A change without options of its own.
fn plain_change(selection: SelectionRequest, concurrency: Option<StepConcurrency>) -> LifecycleChange {
    LifecycleChange { selection, concurrency, ..LifecycleChange::default() }
}

/// Starts one operation for all selected tenants. `change` makes the request's body.
async fn submit_operation<B: Serialize>(
    verb: &'static str,
    change: impl FnOnce(SelectionRequest, Option<StepConcurrency>) -> B,
    args: ManyTenantsArgs,
    context: &mut CommandContext,
) -> Result<CommandExit> {
    let selection = args.selection.to_selection(&args.names, context, WhenEmpty::Refuse)?;
    let scope = is_open_ended(&selection).then_some(verb);
    let concurrency = in_range("--concurrency", args.concurrency.map(u64::from))?;
    let request = ApiRequest::post(format!("/v1/lifecycle/{verb}"), &change(selection, concurrency));
    run_lock::run_exclusively(context, scope, request, &args.change, &args.wait).await
}

/// As [`submit_operation`], after the user has confirmed the number of tenants.
async fn submit_confirmed(
    verb: &'static str,
    state: &str,
    args: ConfirmedTenantsArgs,
    context: &mut CommandContext,
) -> Result<CommandExit> {
    let ConfirmedTenantsArgs { many, confirm } = args;
    let names = selected_in_state(context, &many.names, &many.selection, state).await?;
    input::check_expected_count(&confirm, &names)?;
    if !many.change.dry_run {
        input::confirm_tenants(context, &confirm, verb, &names)?;
    }
    if names.is_empty() {
        context.out.print_note(&format!("no selected tenant is {state}; nothing was done"));
        return Ok(CommandExit::Done);
    }
    let change = LifecycleChange {
        expect_count: TenantCount::new(names.len() as u64),
        concurrency: in_range("--concurrency", many.concurrency.map(u64::from))?,
        selection: SelectionRequest { names, ..SelectionRequest::default() },
        ..LifecycleChange::default()
    };
    operation::run_operation(
        context,
        ApiRequest::post(format!("/v1/lifecycle/{verb}"), &change),
        &many.change,
        &many.wait,
    )
    .await
}

async fn clone_tenant(args: TenantCloneArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let copy = LifecycleClone { tenant: args.tenant, as_name: args.name.clone(), ..LifecycleClone::default() };
    let request = ApiRequest::post("/v1/lifecycle/clone", &copy);
    let StartedOperation::Answer(answer) =
        operation::start_operation(context, request, &args.change, &args.wait).await?
    else {
        return Ok(CommandExit::Done);
    };
    finish_created(context, &json!({"operation": answer}), &args.name, &args.wait).await
}
