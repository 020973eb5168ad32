//! `fleetctl tenant domain`: the custom domains of a tenant, and the proof that it controls them.

use clap::{Args, Subcommand};
use fleet_api::changes::ChangeOptions;
use fleet_api::domains::{DomainView, NewDomain};
use fleet_api::{field, pointer};
use fleet_client::{ApiRequest, path_segment};
use serde_json::Value;

use super::{change_and_print, print_pages};
use crate::args::ChangeArgs;
use crate::context::CommandContext;
use crate::error::{CommandExit, Result};
use crate::operation;
use crate::table::{TableColumn, TableView, escape_text, plain_text};

const DOMAIN: TableView = TableView {
    name: pointer!(DomainView: host),
    columns: &[
        TableColumn::of_text("HOST", pointer!(DomainView: host)),
        TableColumn::of_text("STATE", pointer!(DomainView: state)),
        TableColumn::of_text("TXT NAME", pointer!(DomainView: txt_name)),
        TableColumn::of_text("TXT VALUE", pointer!(DomainView: txt_value)),
        TableColumn::of_time("CHECKED", pointer!(DomainView: checked_at)),
        TableColumn::of_text("ERROR", pointer!(DomainView: check_error)).may_cut(),
        TableColumn::of_time("VERIFIED", pointer!(DomainView: verified_at)).only_wide(),
        TableColumn::of_time("ADDED", pointer!(DomainView: created_at)).only_wide(),
    ],
};

/// Commands of custom domains.
#[derive(Debug, Subcommand)]
pub(crate) enum DomainCommand {
    /// Add a domain, and print the DNS record that proves control of it
    #[command(after_help = "Example:
  fleetctl tenant domain add acme shop.example")]
    Add(DomainArgs),
    /// Look up the DNS record, and make the domain active if it is there
    Verify(DomainArgs),
    /// List a tenant's domains, their DNS records and their last checks
    List {
        /// The tenant's name or id
        tenant: String,
    },
    /// Remove a domain; the host leads nowhere from now on
    Remove(DomainArgs),
}

/// Flags of a change of one domain.
#[derive(Debug, Args)]
pub(crate) struct DomainArgs {
    /// The tenant's name or id
    tenant: String,
    /// The host, for instance shop.example
    host: String,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Runs `fleetctl tenant domain …`.
pub(crate) async fn run_domain_command(verb: DomainCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match verb {
        DomainCommand::Add(args) => add_domain(&args, context).await,
        DomainCommand::Verify(args) => {
            let path = format!("{}/verify", domain_path(&args)?);
            let request = ApiRequest::post(path, &ChangeOptions::default());
            print_change(context, request, &args.change).await.map(|_| CommandExit::Done)
        }
        DomainCommand::List { tenant } => print_pages(context, ApiRequest::get(domains_path(&tenant)?), &DOMAIN).await,
        DomainCommand::Remove(args) => {
            change_and_print(context, ApiRequest::delete(domain_path(&args)?), &args.change, &DOMAIN).await
        }
    }
}

async fn add_domain(args: &DomainArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let new = NewDomain { host: args.host.clone(), ..NewDomain::default() };
    let request = ApiRequest::post(domains_path(&args.tenant)?, &new);
    if let Some(domain) = print_change(context, request, &args.change).await? {
        let [tenant, host] = [field!(DomainView: tenant), field!(DomainView: host)].map(|key| plain_text(&domain[key]));
        let next = format!("Set this TXT record in the DNS, then: fleetctl tenant domain verify {tenant} {host}");
        context.out.print_note(&escape_text(&next));
    }
    Ok(CommandExit::Done)
}

/// Sends a change and prints the domain as a column of facts. `None` when it was only planned.
async fn print_change(context: &mut CommandContext, request: ApiRequest, change: &ChangeArgs) -> Result<Option<Value>> {
    let domain = operation::send_change(context, request, change).await?;
    if let Some(domain) = &domain {
        context.out.print_facts(&DOMAIN, domain)?;
    }
    Ok(domain)
}

fn domains_path(tenant: &str) -> Result<String> {
    Ok(format!("/v1/tenants/{}/domains", path_segment(tenant)?))
}

fn domain_path(args: &DomainArgs) -> Result<String> {
    Ok(format!("{}/{}", domains_path(&args.tenant)?, path_segment(&args.host)?))
}
