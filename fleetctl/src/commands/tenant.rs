//! `fleetctl tenant`: create, list, label, protect and delete tenants. Other commands of tenants are in `lifecycle.rs`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use fleet_api::migrations::TenantPin;
use fleet_api::tenants::{TenantPatch, TenantView};
use fleet_api::{field, pointer};
use fleet_client::{ApiRequest, path_segment};

use super::adopt::AdoptArgs;
use super::create::{TenantCreateArgs, create_tenants};
use super::{ExitTally, PageWalker, filter_request, note_pin, selected_names};
use crate::args::{ChangeArgs, ConfirmArgs, SelectionArgs, WaitArgs};
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::input;
use crate::operation::{self, OPERATION};
use crate::table::{TableColumn, TableView};

/// How tenants are listed.
pub(crate) const TENANT: TableView = TableView {
    name: pointer!(TenantView: name),
    columns: &[
        TableColumn::of_text("NAME", pointer!(TenantView: name)),
        TableColumn::of_text("STATE", pointer!(TenantView: status)),
        TableColumn::of_text("ENGINE", pointer!(TenantView: engine)),
        TableColumn::of_text("SERVER", pointer!(TenantView: server)).may_cut(),
        TableColumn::of_text("VERSION", pointer!(TenantView: schema_version)),
        TableColumn::of_text("PINNED BELOW", pointer!(TenantView: pin, TenantPin: head_version)).only_wide(),
        TableColumn::of_time("PINNED SINCE", pointer!(TenantView: pin, TenantPin: since_at)).only_wide(),
        TableColumn::of_text("PINNED BY", pointer!(TenantView: pin, TenantPin: operation_id)).only_wide(),
        TableColumn::of_bytes("SIZE", pointer!(TenantView: size_bytes)),
        TableColumn::of_text("PLAN", pointer!(TenantView: plan)).only_wide(),
        TableColumn::of_labels("LABELS", pointer!(TenantView: labels)).may_cut(),
        TableColumn::of_time("CREATED", pointer!(TenantView: created_at)),
        TableColumn::of_text("ID", pointer!(TenantView: id)).only_wide(),
        TableColumn::of_text("GENERATION", pointer!(TenantView: generation)).only_wide(),
        TableColumn::of_text("PROTECTED", pointer!(TenantView: protected)).only_wide(),
        TableColumn::of_text("BLOCKED", pointer!(TenantView: block_writes)).only_wide(),
        TableColumn::of_text("WHY", pointer!(TenantView: state_reason)).only_wide(),
        TableColumn::of_text("OPERATION", pointer!(TenantView: operation_id)).only_wide(),
        TableColumn::of_time("PURGED AFTER", pointer!(TenantView: purge_after_at)).only_wide(),
    ],
};

/// Commands of tenants.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Create tenants
    Create(TenantCreateArgs),
    /// Create a tenant from a copy of an existing Postgres database
    Adopt(AdoptArgs),
    /// List tenants
    List(TenantListArgs),
    /// Show one tenant
    Get {
        /// The tenant's name or id
        tenant: String,
    },
    /// Show everything known about each tenant
    Describe(super::describe::TenantDescribeArgs),
    /// Set or remove labels
    Label(TenantLabelArgs),
    /// Give tenants a plan, or none
    Set(TenantSetArgs),
    /// Protect tenants from deletion, or allow it again
    Protect(TenantProtectArgs),
    /// Delete tenants after a final verified backup; the names stay reserved
    Delete(TenantDeleteArgs),
    /// Make a ticket to act as a member of a tenant, for support
    Impersonate(super::impersonate::ImpersonateArgs),
    /// Accounts of a tenant with other services, which send webhooks: link, list, unlink
    #[command(subcommand)]
    Account(super::account::AccountCommand),
    /// Custom domains of a tenant: add, verify, list, remove
    #[command(subcommand)]
    Domain(super::domain::DomainCommand),
    #[command(flatten)]
    Lifecycle(super::lifecycle::LifecycleCommand),
}

/// Flags of `tenant list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant list
  fleetctl tenant list -l plan=pro -o name
  fleetctl tenant list --state deleted -o wide")]
pub(crate) struct TenantListArgs {
    /// Only tenants with these names
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Only tenants in this state (active, suspended, deleted, …)
    #[arg(long)]
    state: Option<String>,
}

/// Flags of `tenant label`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant label acme plan=pro region=eu
  fleetctl tenant label acme region-              # removes it
  fleetctl tenant label -l plan=trial tier=free")]
pub(crate) struct TenantLabelArgs {
    /// Tenants and changes: names, `key=value`, `key-`
    #[arg(value_name = "TENANT|KEY=VALUE|KEY-", required = true)]
    words: Vec<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Flags of `tenant set`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant set acme --plan pro
  fleetctl tenant set -l tier=free --plan free
  fleetctl tenant set acme --no-plan")]
pub(crate) struct TenantSetArgs {
    /// Tenants by name or id
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Plan that limits the tenants
    #[arg(long, value_name = "PLAN", required_unless_present = "no_plan", conflicts_with = "no_plan")]
    plan: Option<String>,
    /// No plan: only the limits of the processes
    #[arg(long)]
    no_plan: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Flags of `tenant protect`.
#[derive(Debug, Args)]
pub(crate) struct TenantProtectArgs {
    /// Tenants by name or id
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Allow deletion again
    #[arg(long)]
    off: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Flags of `tenant delete`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant delete acme --yes
  fleetctl tenant delete -l plan=trial --yes --expect-count 12")]
pub(crate) struct TenantDeleteArgs {
    /// Tenants by name or id
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    /// Take no final backup; `undelete` works until the purge
    #[arg(long)]
    no_backup: bool,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    confirm: ConfirmArgs,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Runs `fleetctl tenant …`.
pub(crate) async fn run_tenant_command(verb: TenantCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match verb {
        TenantCommand::Create(args) => create_tenants(args, context).await,
        TenantCommand::Adopt(args) => super::adopt::run_adopt_command(args, context).await,
        TenantCommand::List(args) => list_tenants(args, context).await,
        TenantCommand::Get { tenant } => {
            let client = context.api_client().await?;
            let item = client.send_for_json(&tenant_request(&tenant)?).await?;
            context.out.print_facts(&TENANT, &item)?;
            note_pin(context, &item[field!(TenantView: name)], &item[field!(TenantView: pin)]);
            Ok(CommandExit::Done)
        }
        TenantCommand::Describe(args) => super::describe::run_describe_command(&args, context).await,
        TenantCommand::Label(args) => label_tenants(args, context).await,
        TenantCommand::Set(args) => {
            let names = selected_names(context, &args.names, &args.selection).await?;
            // Without a name, the flag is --no-plan.
            let patch = TenantPatch { plan: Some(args.plan), ..TenantPatch::default() };
            patch_tenants(context, &names, &patch, &args.change).await
        }
        TenantCommand::Protect(args) => {
            let names = selected_names(context, &args.names, &args.selection).await?;
            patch_tenants(
                context,
                &names,
                &TenantPatch { protected: Some(!args.off), ..TenantPatch::default() },
                &args.change,
            )
            .await
        }
        TenantCommand::Delete(args) => delete_tenants(args, context).await,
        TenantCommand::Impersonate(args) => super::impersonate::impersonate_member(args, context).await,
        TenantCommand::Account(verb) => super::account::run_account_command(verb, context).await,
        TenantCommand::Domain(verb) => super::domain::run_domain_command(verb, context).await,
        TenantCommand::Lifecycle(verb) => super::lifecycle::run_lifecycle_command(verb, context).await,
    }
}

/// The request that reads one tenant.
pub(super) fn tenant_request(tenant: &str) -> Result<ApiRequest> {
    Ok(ApiRequest::get(format!("/v1/tenants/{}", path_segment(tenant)?)))
}

async fn list_tenants(args: TenantListArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let selection = args.selection.to_selection(&args.names, context, crate::args::WhenEmpty::All)?;
    let mut request = filter_request(ApiRequest::get("/v1/tenants"), &args.selection);
    if let Some(state) = &args.state {
        request = request.with_query("state", state);
    }
    match selection.names.as_slice() {
        [] => super::print_pages(context, request, &TENANT).await,
        names => list_named(context, request, names).await,
    }
}

/// Lists the named tenants one by one, because the API filters by one name at a time.
async fn list_named(context: &mut CommandContext, request: ApiRequest, names: &[String]) -> Result<CommandExit> {
    let client = context.api_client().await?;
    let mut items = Vec::new();
    let mut tally = ExitTally::default();
    for name in names {
        match PageWalker::for_request(request.clone().with_query("name", name)).next_page(&client).await {
            Ok(Some(found)) if !found.is_empty() => {
                items.extend(found);
                tally.add_exit(CommandExit::Done);
            }
            Ok(_) => {
                context.out.print_message(&format!("error: the tenant {name:?} does not match the other filters"));
                context.out.print_message(&format!("try:   fleetctl tenant get {name}"));
                tally.add_exit(CommandExit::NotFound);
            }
            Err(failure) if failure.exit == CommandExit::NotFound => {
                context.out.print_failure(&failure);
                tally.add_exit(CommandExit::NotFound);
            }
            Err(failure) => return Err(failure),
        }
    }
    let mut list = context.out.begin_list(&TENANT)?;
    list.print_page(&items)?;
    list.finish_list()?;
    Ok(tally.combined_exit())
}

async fn label_tenants(args: TenantLabelArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let (changes, names): (Vec<_>, Vec<_>) = args.words.into_iter().partition(|w| w.contains('=') || w.ends_with('-'));
    if changes.is_empty() {
        return Err(CommandFailure::usage_error("no label is given").try_next("fleetctl tenant label acme plan=pro"));
    }
    let change = |word: &String| match word.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (word.trim_end_matches('-').to_owned(), None),
    };
    let labels: BTreeMap<_, _> = changes.iter().map(change).collect();
    if labels.keys().any(String::is_empty) {
        return Err(CommandFailure::usage_error("a label needs a key").try_next("fleetctl tenant label acme plan=pro"));
    }
    let names = selected_names(context, &names, &args.selection).await?;
    patch_tenants(context, &names, &TenantPatch { labels, ..TenantPatch::default() }, &args.change).await
}

/// Applies the same change to each tenant. Failures are printed by name; the other tenants are changed.
async fn patch_tenants(
    context: &mut CommandContext,
    names: &[String],
    patch: &TenantPatch,
    change: &ChangeArgs,
) -> Result<CommandExit> {
    let mut tally = ExitTally::default();
    let mut changed = Vec::new();
    for name in names {
        let request = ApiRequest::patch(format!("/v1/tenants/{}", path_segment(name)?), patch);
        match operation::send_one_change(context, request, change).await {
            Ok(tenant) => {
                changed.extend(tenant);
                tally.add_exit(CommandExit::Done);
            }
            Err(failure) if names.len() > 1 && failure.exit != CommandExit::Unreachable => {
                context.out.print_message(&format!("error: {name}: {}", failure.what));
                tally.add_exit(failure.exit);
            }
            Err(failure) => return Err(failure),
        }
    }
    if !change.dry_run || operation::is_one_document(context) {
        let mut list = context.out.begin_list(&TENANT)?;
        list.print_page(&changed)?;
        list.finish_list()?;
    }
    Ok(tally.combined_exit())
}

async fn delete_tenants(args: TenantDeleteArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let names = selected_names(context, &args.names, &args.selection).await?;
    input::check_expected_count(&args.confirm, &names)?;
    if !args.change.dry_run {
        input::confirm_tenants(context, &args.confirm, "delete", &names)?;
    }
    let (mut tally, mut documents) = (ExitTally::default(), Vec::new());
    for name in &names {
        let query = if args.no_backup { "?no_backup=true" } else { "" };
        let request = ApiRequest::delete(format!("/v1/tenants/{}{query}", path_segment(name)?));
        match operation::run_one_operation(context, request, (&args.change, &args.wait), &mut documents).await {
            Ok(exit) => tally.add_exit(exit),
            Err(failure) if names.len() > 1 && failure.exit != CommandExit::Unreachable => {
                context.out.print_message(&format!("error: {name}: {}", failure.what));
                tally.add_exit(failure.exit);
            }
            Err(failure) => return Err(failure),
        }
        if tally.combined_exit() == CommandExit::Interrupted {
            break;
        }
    }
    operation::print_documents(context, &OPERATION, &documents)?;
    Ok(tally.combined_exit())
}
