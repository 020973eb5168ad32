//! `fleetctl tenant create`: one tenant or many, and an interrupted run that is continued.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use control_plane::ErrorKind;
use fleet_api::field;
use fleet_api::operations::{OperationView, StepView};
use fleet_api::tenants::{
    ExistingNameChoice, NewTenantOfMany, NewTenantRequest, NewTenants, TenantCreated, TenantView,
};
use fleet_client::{ApiRequest, path_segment};
use serde_json::{Value, json};

use super::tenant::{TENANT, tenant_request};
use super::{ExitTally, PageWalker};
use crate::args::{ChangeArgs, LabelPairs, WaitArgs, label_map, parse_labels};
use crate::client::ApiClient;
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result, is_code_of};
use crate::input;
use crate::operation::{self, ResultPrinting, StartedOperation};
use crate::output::OutputFormat;

/// The API's maximum for one batch.
const BATCH_MAX: usize = 50_000;

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
    /// Plan that limits every new tenant
    #[arg(long, value_name = "PLAN")]
    plan: Option<String>,
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

/// Runs `fleetctl tenant create`.
pub(super) async fn create_tenants(args: TenantCreateArgs, context: &mut CommandContext) -> Result<CommandExit> {
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
    let mine =
        client.is_embedded() && left[field!(OperationView: requested_by)] == json!(context.environment.actor_name());
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
        if page.iter().any(|step| !step[field!(StepView: tenant)].as_str().is_some_and(|name| wanted.remove(name))) {
            return Ok(false);
        }
    }
    Ok(wanted.is_empty())
}

fn new_tenant(name: &str, args: &TenantCreateArgs) -> NewTenantRequest {
    NewTenantRequest {
        name: name.to_owned(),
        labels: label_map(args.labels.as_ref()),
        server: args.server.clone(),
        plan: args.plan.clone(),
        ..NewTenantRequest::default()
    }
}

async fn create_one(name: &str, args: &TenantCreateArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let request = ApiRequest::post("/v1/tenants", &new_tenant(name, args));
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
    let exit =
        operation::finish_operation(context, &answer[field!(TenantCreated: operation)], wait, ResultPrinting::Nothing)
            .await?;
    if exit != CommandExit::Done || wait.no_wait {
        return Ok((exit, None));
    }
    let client = context.api_client().await?;
    let id = answer[field!(TenantCreated: tenant)][field!(TenantView: id)].as_str().unwrap_or(name);
    Ok((exit, Some(client.send_for_json(&tenant_request(id)?).await?)))
}

async fn create_many(names: &[String], args: &TenantCreateArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let mut tally = ExitTally::default();
    // People get one line about many tenants. Programs get the tenants, as for one name.
    let for_humans = matches!(context.out.format, OutputFormat::Table | OutputFormat::Wide);
    let ends = !args.wait.no_wait && !args.change.dry_run;
    let print = if for_humans || !ends { ResultPrinting::Operation } else { ResultPrinting::Nothing };
    for batch in names.chunks(BATCH_MAX) {
        let labels = label_map(args.labels.as_ref());
        let tenant = |name: &String| NewTenantOfMany { name: name.clone(), labels: labels.clone() };
        let new = NewTenants {
            tenants: batch.iter().map(tenant).collect(),
            server: args.server.clone(),
            plan: args.plan.clone(),
            if_exists: match args.if_exists {
                WhenNameExists::Skip => ExistingNameChoice::Skip,
                WhenNameExists::Error => ExistingNameChoice::Error,
            },
            ..NewTenants::default()
        };
        let request = ApiRequest::post("/v1/tenants/batch", &new);
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
        tenant[field!(TenantView: state)] != "provisioning"
            && tenant[field!(TenantView: name)].as_str().is_some_and(|name| wanted.contains(name))
    };
    while let Some(mut page) = pages.next_page(&client).await? {
        page.retain(is_made);
        list.print_page(&page)?;
    }
    list.finish_list()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_described_with_its_labels() {
        let args = TenantCreateArgs {
            names: vec![],
            from_file: None,
            labels: Some(vec![("plan".into(), "pro".into())]),
            server: None,
            plan: None,
            if_exists: WhenNameExists::Error,
            change: ChangeArgs::default(),
            wait: WaitArgs::default(),
        };
        let new = serde_json::to_value(new_tenant("acme", &args)).unwrap();
        assert_eq!(new, json!({"name": "acme", "labels": {"plan": "pro"}}));
    }
}
