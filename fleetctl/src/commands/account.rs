//! `fleetctl tenant account`: a tenant's accounts with other services, which send webhooks.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fleet_api::accounts::{AccountView, NewAccount};
use fleet_api::pointer;
use fleet_client::{ApiRequest, path_segment};

use super::{change_and_print, print_pages};
use crate::args::ChangeArgs;
use crate::context::CommandContext;
use crate::error::{CommandExit, Result};
use crate::input;
use crate::table::{TableColumn, TableView};

const ACCOUNT: TableView = TableView {
    name: pointer!(AccountView: account),
    columns: &[
        TableColumn::of_text("PROVIDER", pointer!(AccountView: provider)),
        TableColumn::of_text("ACCOUNT", pointer!(AccountView: account)),
        TableColumn::of_text("OWN SECRET", pointer!(AccountView: has_secret)),
        TableColumn::of_time("LINKED", pointer!(AccountView: created_at)),
    ],
};

/// Commands of accounts with other services.
#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Link an account; its webhooks then change this tenant
    #[command(after_help = "Examples:
  fleetctl tenant account link acme stripe acct_1 --secret-file secret.txt
  fleetctl tenant account link acme github 4711")]
    Link(AccountLinkArgs),
    /// List a tenant's accounts
    List {
        /// The tenant's name or id
        tenant: String,
    },
    /// Unlink an account; its webhooks are refused from now on
    Unlink(AccountArgs),
}

/// Flags of a change of one account.
#[derive(Debug, Args)]
pub(crate) struct AccountArgs {
    /// The tenant's name or id
    tenant: String,
    /// The service, as the application names it, for instance stripe
    provider: String,
    /// The account's id, as the service names it
    account: String,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Flags of `tenant account link`.
#[derive(Debug, Args)]
pub(crate) struct AccountLinkArgs {
    #[command(flatten)]
    account: AccountArgs,
    /// File with the secret that signs the account's webhooks; - is standard input
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

/// Runs `fleetctl tenant account …`.
pub(crate) async fn run_account_command(verb: AccountCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match verb {
        AccountCommand::Link(args) => link_account(args, context).await,
        AccountCommand::List { tenant } => {
            print_pages(context, ApiRequest::get(accounts_path(&tenant)?), &ACCOUNT).await
        }
        AccountCommand::Unlink(args) => {
            let (provider, account) = (path_segment(&args.provider)?, path_segment(&args.account)?);
            let path = format!("{}/{provider}/{account}", accounts_path(&args.tenant)?);
            change_and_print(context, ApiRequest::delete(path), &args.change, &ACCOUNT).await
        }
    }
}

async fn link_account(args: AccountLinkArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let AccountArgs { tenant, provider, account, change } = args.account;
    let secret = args.secret_file.as_deref().map(|file| input::read_secret(file, context)).transpose()?;
    let new = NewAccount { provider, account, secret, ..NewAccount::default() };
    change_and_print(context, ApiRequest::post(accounts_path(&tenant)?, &new), &change, &ACCOUNT).await
}

fn accounts_path(tenant: &str) -> Result<String> {
    Ok(format!("/v1/tenants/{}/accounts", path_segment(tenant)?))
}
