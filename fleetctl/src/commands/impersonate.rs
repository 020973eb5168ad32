//! `fleetctl tenant impersonate`: a ticket to act as a member of a tenant.

use clap::Args;
use fleet_api::impersonations::{ImpersonationRequest, ImpersonationTicket};
use fleet_api::pointer;
use fleet_client::{ApiRequest, path_segment};

use crate::args::ChangeArgs;
use crate::context::CommandContext;
use crate::error::{CommandExit, Result};
use crate::operation;
use crate::table::{TableColumn, TableView};

const TICKET: TableView = TableView {
    name: pointer!(ImpersonationTicket: ticket),
    columns: &[
        TableColumn::of_text("TENANT", pointer!(ImpersonationTicket: tenant)),
        TableColumn::of_text("MEMBER", pointer!(ImpersonationTicket: member)),
        TableColumn::of_text("TICKET", pointer!(ImpersonationTicket: ticket)),
        TableColumn::of_time("EXPIRES", pointer!(ImpersonationTicket: expires_at)),
    ],
};

/// Flags of `tenant impersonate`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  fleetctl tenant impersonate acme user-17 --reason 'ticket 4711: the export is empty'")]
pub(crate) struct ImpersonateArgs {
    /// The tenant's name or id
    tenant: String,
    /// The member to act as
    member: String,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Makes a ticket. The application exchanges it for a session.
pub(super) async fn impersonate_member(args: ImpersonateArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let path = format!("/v1/tenants/{}/impersonations", path_segment(&args.tenant)?);
    let wanted = ImpersonationRequest { member: args.member, ..ImpersonationRequest::default() };
    let Some(made) = operation::send_change(context, ApiRequest::post(path, &wanted), &args.change).await? else {
        return Ok(CommandExit::Done);
    };
    // Printed even with `--quiet`, because the ticket cannot be shown again.
    context.out.silent = false;
    context.out.print_facts(&TICKET, &made)?;
    context.out.print_note("The ticket is valid for a minute, and once. The tenant sees the reason in its audit log.");
    Ok(CommandExit::Done)
}
