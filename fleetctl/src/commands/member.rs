//! `fleetctl member`: the members of a tenant and their roles.

use clap::{Args, Subcommand, ValueEnum};
use fleet_api::members::{MemberView, NewMember};
use fleet_api::pointer;
use fleet_client::{ApiRequest, path_segment};

use super::{change_and_print, print_pages};
use crate::args::ChangeArgs;
use crate::context::CommandContext;
use crate::error::{CommandExit, Result};
use crate::table::{TableColumn, TableView};

const MEMBER: TableView = TableView {
    name: pointer!(MemberView: principal),
    columns: &[
        TableColumn::of_text("PRINCIPAL", pointer!(MemberView: principal)).may_cut(),
        TableColumn::of_text("ROLE", pointer!(MemberView: role)),
        TableColumn::of_time("SINCE", pointer!(MemberView: created_at)),
    ],
};

/// The rights of a member or a token; each role includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MemberRole {
    /// SELECT only
    Reader,
    /// SELECT and changes of rows
    Writer,
    /// Also members and settings of the tenant
    Manager,
}

impl MemberRole {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Manager => "manager",
        }
    }
}

/// Commands of members.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// Add a member, or change the role
    Add(MemberAddArgs),
    /// List a tenant's members
    List {
        /// The tenant's name or id
        tenant: String,
    },
    /// Remove a member
    Remove(MemberRemoveArgs),
}

/// Flags of `member add`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  fleetctl member add acme user-17 --role writer")]
pub(crate) struct MemberAddArgs {
    /// The tenant's name or id
    tenant: String,
    /// The application's own name for a person or program
    principal: String,
    /// The member's role
    #[arg(long, value_enum)]
    role: MemberRole,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Flags of `member remove`.
#[derive(Debug, Args)]
pub(crate) struct MemberRemoveArgs {
    /// The tenant's name or id
    tenant: String,
    /// The member to remove
    principal: String,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Runs `fleetctl member …`.
pub(crate) async fn run_member_command(verb: MemberCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match verb {
        MemberCommand::Add(args) => {
            let role = args.role.as_str().to_owned();
            let new = NewMember { principal: args.principal, role, ..NewMember::default() };
            change_and_print(context, ApiRequest::post(members_path(&args.tenant)?, &new), &args.change, &MEMBER).await
        }
        MemberCommand::List { tenant } => print_pages(context, ApiRequest::get(members_path(&tenant)?), &MEMBER).await,
        MemberCommand::Remove(args) => {
            let path = format!("{}/{}", members_path(&args.tenant)?, path_segment(&args.principal)?);
            change_and_print(context, ApiRequest::delete(path), &args.change, &MEMBER).await
        }
    }
}

fn members_path(tenant: &str) -> Result<String> {
    Ok(format!("/v1/tenants/{}/members", path_segment(tenant)?))
}
