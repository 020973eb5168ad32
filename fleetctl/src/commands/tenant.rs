//! `fleetctl tenant`: create, list, label, protect and delete tenants. Other commands of tenants are in `lifecycle.rs`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use control_plane::ErrorKind;
use serde_json::{Map, Value, json};

use super::adopt::AdoptArgs;
use super::{ExitTally, PageWalker, filter_request, note_pin, selected_names};
use crate::args::{ChangeArgs, ConfirmArgs, LabelPairs, SelectionArgs, WaitArgs, labels_to_json, parse_labels};
use crate::client::{ApiClient, ApiRequest, path_segment};
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result, is_code_of};
use crate::input;
use crate::operation::{self, OPERATION, ResultPrinting, StartedOperation};
use crate::output::OutputFormat;
use crate::table::{TableColumn, TableView};

/// The API's maximum for one batch.
const BATCH_MAX: usize = 50_000;

/// How tenants are listed.
pub(crate) const TENANT: TableView = TableView {
    name: "/name",
    columns: &[
        TableColumn::of_text("NAME", "/name"),
        TableColumn::of_text("STATE", "/status"),
        TableColumn::of_text("ENGINE", "/engine"),
        TableColumn::of_text("SERVER", "/server").may_cut(),
        TableColumn::of_text("VERSION", "/schema_version"),
        TableColumn::of_text("PINNED BELOW", "/pin/head_version").only_wide(),
        TableColumn::of_time("PINNED SINCE", "/pin/since_at").only_wide(),
        TableColumn::of_text("PINNED BY", "/pin/operation_id").only_wide(),
        TableColumn::of_bytes("SIZE", "/size_bytes"),
        TableColumn::of_labels("LABELS", "/labels").may_cut(),
        TableColumn::of_time("CREATED", "/created_at"),
        TableColumn::of_text("ID", "/id").only_wide(),
        TableColumn::of_text("GENERATION", "/generation").only_wide(),
        TableColumn::of_text("PROTECTED", "/protected").only_wide(),
        TableColumn::of_text("BLOCKED", "/block_writes").only_wide(),
        TableColumn::of_text("WHY", "/state_reason").only_wide(),
        TableColumn::of_text("OPERATION", "/operation_id").only_wide(),
        TableColumn::of_time("PURGED AFTER", "/purge_after_at").only_wide(),
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
    /// Protect tenants from deletion, or allow it again
    Protect(TenantProtectArgs),
    /// Delete tenants after a final verified backup; the names stay reserved
    Delete(TenantDeleteArgs),
    #[command(flatten)]
    Lifecycle(super::lifecycle::LifecycleCommand),
}

/// Flags of `tenant create`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant create acme
  fleetctl tenant create acme globex -l plan=pro,region=eu
  fleetctl tenant create --from-file names.txt
  cut -d, -f1 customers.csv | fleetctl tenant create --from-file - --if-exists skip")]
pub(crate) struct TenantCreateArgs {
    /// Names: 1 to 63 of a-z, 0-9 and hyphen
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Names from this file, one per line; - is standard input
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Labels of every new tenant
    #[arg(short = 'l', long = "label", value_name = "K=V,…", value_parser = parse_labels)]
    labels: Option<LabelPairs>,
    /// Server of the databases; by default the one with the most free space
    #[arg(long)]
    server: Option<String>,
    /// What to do if a name is taken
    #[arg(long, value_enum, default_value_t = WhenNameExists::Error)]
    if_exists: WhenNameExists,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// What `tenant create` does when a name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WhenNameExists {
    /// Refuse, and create no tenant
    Error,
    /// Leave the existing tenants unchanged
    Skip,
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
            note_pin(context, &item["name"], &item["pin"]);
            Ok(CommandExit::Done)
        }
        TenantCommand::Describe(args) => super::describe::run_describe_command(&args, context).await,
        TenantCommand::Label(args) => label_tenants(args, context).await,
        TenantCommand::Protect(args) => {
            let names = selected_names(context, &args.names, &args.selection).await?;
            patch_tenants(context, &names, &json!({"protected": !args.off}), &args.change).await
        }
        TenantCommand::Delete(args) => delete_tenants(args, context).await,
        TenantCommand::Lifecycle(verb) => super::lifecycle::run_lifecycle_command(verb, context).await,
    }
}

fn tenant_request(tenant: &str) -> Result<ApiRequest> {
    Ok(ApiRequest::get(format!("/v1/tenants/{}", path_segment(tenant)?)))
}

async fn create_tenants(args: TenantCreateArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let mut names = args.names.clone();
    if let Some(file) = &args.from_file {
        names.extend(input::read_required_names(file, context)?);
    }
    let created =
        match names.as_slice() {
            [] => Err(CommandFailure::usage_error("no name was given for the new tenant")
                .try_next("fleetctl tenant create acme")),
            [name] if args.from_file.is_none() && args.if_exists == WhenNameExists::Error => {
                create_one(name, &args, context).await
            }
            _ => {
                // A name that an interrupted run reserved has no tenant yet. Skipping it would report an unfinished
                // tenant as done.
                let client = context.api_client().await?;
                if args.if_exists == WhenNameExists::Skip && client.is_embedded() && !args.change.dry_run {
                    crate::run_lock::finish_leftovers(context, &client, "create").await?;
                }
                create_many(&names, &args, context).await
            }
        };
    match created {
        Err(failure) if is_code_of(&failure.code, &[ErrorKind::AlreadyExists]) => {
            resume_own_creation(failure, &names, &args, context).await
        }
        other => other,
    }
}

/// Handles names that are taken. If this user's interrupted run of the same command took them, that run is continued.
async fn resume_own_creation(
    failure: CommandFailure,
    names: &[String],
    args: &TenantCreateArgs,
    context: &mut CommandContext,
) -> Result<CommandExit> {
    let client = context.api_client().await?;
    let Some(left) = crate::run_lock::open_operation(&client, "create").await? else { return Err(failure) };
    let mine = client.is_embedded() && left["requested_by"] == json!(context.environment.actor_name());
    if !mine || args.change.dry_run || !makes_exactly(&client, &left, names).await? {
        let id = operation::id_of(&left)?;
        return Err(failure.try_first(format!("fleetctl op wait {id}      # finishes a creation that has not ended")));
    }
    context.out.print_note(&format!("continuing {}, which was interrupted", operation::id_of(&left)?));
    operation::finish_operation(context, &left, &args.wait, ResultPrinting::Operation).await
}

/// True when the operation's tenants are exactly these names.
async fn makes_exactly(client: &ApiClient, operation: &Value, names: &[String]) -> Result<bool> {
    let mut wanted: BTreeSet<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let steps = format!("/v1/operations/{}/steps", path_segment(operation::id_of(operation)?)?);
    let mut pages = PageWalker::for_request(ApiRequest::get(steps));
    while let Some(page) = pages.next_page(client).await? {
        if page.iter().any(|step| !step["tenant"].as_str().is_some_and(|name| wanted.remove(name))) {
            return Ok(false);
        }
    }
    Ok(wanted.is_empty())
}

fn tenant_spec(name: &str, args: &TenantCreateArgs) -> Value {
    let mut out = json!({"name": name});
    if let Some(labels) = &args.labels {
        out["labels"] = labels_to_json(labels);
    }
    out
}

async fn create_one(name: &str, args: &TenantCreateArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let mut body = tenant_spec(name, args);
    if let Some(server) = &args.server {
        body["server"] = json!(server);
    }
    let request = ApiRequest::post("/v1/tenants", body);
    let StartedOperation::Answer(answer) =
        operation::start_operation(context, request, &args.change, &args.wait).await?
    else {
        return Ok(CommandExit::Done);
    };
    let (exit, tenant) = wait_until_created(context, &answer, name, &args.wait).await?;
    if let Some(mut tenant) = tenant {
        // Converted to the format of a list, so that one name and several names print alike.
        if let Some(fields) = tenant.as_object_mut() {
            fields.remove("names");
        }
        let mut list = context.out.begin_list(&TENANT)?;
        list.print_page(&[tenant])?;
        list.finish_list()?;
    }
    Ok(exit)
}

/// Waits for the operation that creates a tenant, and prints the tenant.
pub(super) async fn finish_created(
    context: &mut CommandContext,
    answer: &Value,
    name: &str,
    wait: &WaitArgs,
) -> Result<CommandExit> {
    let (exit, tenant) = wait_until_created(context, answer, name, wait).await?;
    if let Some(tenant) = tenant {
        context.out.print_item(&TENANT, &tenant)?;
    }
    Ok(exit)
}

/// Waits for the operation that creates a tenant; returns the tenant if it was created.
async fn wait_until_created(
    context: &mut CommandContext,
    answer: &Value,
    name: &str,
    wait: &WaitArgs,
) -> Result<(CommandExit, Option<Value>)> {
    let exit = operation::finish_operation(context, &answer["operation"], wait, ResultPrinting::Nothing).await?;
    if exit != CommandExit::Done || wait.no_wait {
        return Ok((exit, None));
    }
    let client = context.api_client().await?;
    let id = answer["tenant"]["id"].as_str().unwrap_or(name);
    Ok((exit, Some(client.send_for_json(&tenant_request(id)?).await?)))
}

async fn create_many(names: &[String], args: &TenantCreateArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let mut tally = ExitTally::default();
    // People get one line about many tenants. Programs get the tenants, as for one name.
    let for_humans = matches!(context.out.format, OutputFormat::Table | OutputFormat::Wide);
    let ends = !args.wait.no_wait && !args.change.dry_run;
    let print = if for_humans || !ends { ResultPrinting::Operation } else { ResultPrinting::Nothing };
    for batch in names.chunks(BATCH_MAX) {
        let tenants: Vec<_> = batch.iter().map(|name| tenant_spec(name, args)).collect();
        let if_exists = if args.if_exists == WhenNameExists::Skip { "skip" } else { "error" };
        let mut body = json!({"tenants": tenants, "if_exists": if_exists});
        if let Some(server) = &args.server {
            body["server"] = json!(server);
        }
        let request = ApiRequest::post("/v1/tenants/batch", body);
        let exit = match operation::start_operation(context, request, &args.change, &args.wait).await? {
            StartedOperation::Planned => CommandExit::Done,
            StartedOperation::Answer(operation) => {
                operation::finish_operation(context, &operation, &args.wait, print).await?
            }
        };
        tally.add_exit(exit);
        if exit == CommandExit::Interrupted {
            break;
        }
    }
    let exit = tally.combined_exit();
    if print == ResultPrinting::Nothing && matches!(exit, CommandExit::Done | CommandExit::Partial) {
        print_created(context, names).await?;
    }
    Ok(exit)
}

/// Prints the tenants of these names that exist. Reads the list of all tenants page by page, because the API filters by
/// only one name.
async fn print_created(context: &mut CommandContext, names: &[String]) -> Result<()> {
    let wanted: BTreeSet<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let client = context.api_client().await?;
    let mut pages = PageWalker::for_request(ApiRequest::get("/v1/tenants"));
    let mut list = context.out.begin_list(&TENANT)?;
    let is_made = |tenant: &Value| {
        tenant["state"] != "provisioning" && tenant["name"].as_str().is_some_and(|name| wanted.contains(name))
    };
    while let Some(mut page) = pages.next_page(&client).await? {
        page.retain(is_made);
        list.print_page(&page)?;
    }
    list.finish_list()
}

async fn list_tenants(args: TenantListArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let selection = args.selection.to_selection(&args.names, context, crate::args::WhenEmpty::All)?;
    let mut request = filter_request(ApiRequest::get("/v1/tenants"), &args.selection);
    if let Some(state) = &args.state {
        request = request.with_query("state", state);
    }
    match selection.get("names").and_then(Value::as_array) {
        None => super::print_pages(context, request, &TENANT).await,
        Some(names) => list_named(context, request, names).await,
    }
}

/// Lists the named tenants one by one, because the API filters by one name at a time.
async fn list_named(context: &mut CommandContext, request: ApiRequest, names: &[Value]) -> Result<CommandExit> {
    let client = context.api_client().await?;
    let mut items = Vec::new();
    let mut tally = ExitTally::default();
    for name in names.iter().filter_map(Value::as_str) {
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
        Some((key, value)) => (key.to_owned(), json!(value)),
        None => (word.trim_end_matches('-').to_owned(), Value::Null),
    };
    let labels: Map<_, _> = changes.iter().map(change).collect();
    if labels.keys().any(String::is_empty) {
        return Err(CommandFailure::usage_error("a label needs a key").try_next("fleetctl tenant label acme plan=pro"));
    }
    let names = selected_names(context, &names, &args.selection).await?;
    patch_tenants(context, &names, &json!({"labels": labels}), &args.change).await
}

/// Applies the same change to each tenant. Failures are printed by name; the other tenants are changed.
async fn patch_tenants(
    context: &mut CommandContext,
    names: &[String],
    body: &Value,
    change: &ChangeArgs,
) -> Result<CommandExit> {
    let mut tally = ExitTally::default();
    let mut changed = Vec::new();
    for name in names {
        let request = ApiRequest::patch(format!("/v1/tenants/{}", path_segment(name)?), body.clone());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::plain_text;

    #[test]
    fn a_tenant_is_described_with_its_labels() {
        let args = TenantCreateArgs {
            names: vec![],
            from_file: None,
            labels: Some(vec![("plan".into(), "pro".into())]),
            server: None,
            if_exists: WhenNameExists::Error,
            change: ChangeArgs::default(),
            wait: WaitArgs::default(),
        };
        assert_eq!(tenant_spec("acme", &args), json!({"name": "acme", "labels": {"plan": "pro"}}));
        assert_eq!(plain_text(&tenant_spec("acme", &args)["labels"]), "plan=pro");
    }
}
