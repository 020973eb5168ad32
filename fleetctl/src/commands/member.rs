//! `fleetctl member`: who may do what in a tenant.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{change_and_print, print_pages};
use crate::args::Change;
use crate::client::{Request, segment};
use crate::context::Context;
use crate::error::{Exit, Result};
use crate::table::{Column, View};

const MEMBER: View = View {
    name: "/principal",
    columns: &[
        Column::text("PRINCIPAL", "/principal"),
        Column::text("ROLE", "/role"),
        Column::time("SINCE", "/created_at"),
    ],
};

/// What a member or a token may do; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// SELECT
    Reader,
    /// SELECT and changes of rows
    Writer,
    /// Also members and settings of the tenant
    Manager,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Manager => "manager",
        }
    }
}

/// What can be done with members.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Add a member, or change the role
    Add(Add),
    /// List a tenant's members
    List {
        /// The tenant's name or id
        tenant: String,
    },
    /// Remove a member
    Remove(Remove),
}

/// Flags of `member add`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  fleetctl member add acme user-17 --role writer")]
pub(crate) struct Add {
    /// The tenant's name or id
    tenant: String,
    /// The application's own name for a person or program
    principal: String,
    /// What it may do
    #[arg(long, value_enum)]
    role: Role,
    #[command(flatten)]
    change: Change,
}

/// Flags of `member remove`.
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The tenant's name or id
    tenant: String,
    /// Who is to go
    principal: String,
    #[command(flatten)]
    change: Change,
}

/// Runs `fleetctl member …`.
pub(crate) async fn run(verb: Verb, context: &mut Context) -> Result<Exit> {
    match verb {
        Verb::Add(args) => {
            let body = json!({"principal": args.principal, "role": args.role.as_str()});
            change_and_print(context, Request::post(members(&args.tenant)?, body), &args.change, &MEMBER).await
        }
        Verb::List { tenant } => print_pages(context, Request::get(members(&tenant)?), &MEMBER).await,
        Verb::Remove(args) => {
            let path = format!("{}/{}", members(&args.tenant)?, segment(&args.principal)?);
            change_and_print(context, Request::delete(path), &args.change, &MEMBER).await
        }
    }
}

fn members(tenant: &str) -> Result<String> {
    Ok(format!("/v1/tenants/{}/members", segment(tenant)?))
}
