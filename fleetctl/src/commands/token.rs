//! `fleetctl token`: secrets that open tenants or the admin API.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::member::Role;
use super::{change_and_print, print_pages};
use crate::args::Change;
use crate::client::{Request, segment};
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::operation;
use crate::table::{Column, View};

const TOKEN: View = View {
    name: "/id",
    columns: &[
        Column::text("ID", "/id"),
        Column::text("KIND", "/kind"),
        Column::text("TENANT", "/tenant"),
        Column::text("PRINCIPAL", "/principal"),
        Column::text("ROLE", "/role"),
        Column::text("LABEL", "/label"),
        Column::time("EXPIRES", "/expires_at"),
        Column::time("REVOKED", "/revoked_at"),
        Column::time("CREATED", "/created_at").wide(),
    ],
};

/// A token just made: the only time its secret is seen.
const CREATED: View = View {
    name: "/secret",
    columns: &[
        Column::text("SECRET", "/secret"),
        Column::text("ID", "/token/id"),
        Column::text("KIND", "/token/kind"),
        Column::text("TENANT", "/token/tenant"),
        Column::text("PRINCIPAL", "/token/principal"),
        Column::text("ROLE", "/token/role"),
        Column::time("EXPIRES", "/token/expires_at"),
    ],
};

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a token; its secret is printed once
    Create(Create),
    /// List tokens, never their secrets
    List {
        /// Only those of this tenant
        #[arg(long)]
        tenant: Option<String>,
    },
    /// End a token
    Revoke {
        /// Its id (`tok_…`)
        token: String,
        #[command(flatten)]
        change: Change,
    },
}

/// Flags of `token create`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("opens").required(true).args(["tenant", "member", "service", "operator"]),
    after_help = "Examples:
  fleetctl token create --tenant acme --role writer -o name
  fleetctl token create --member user-17
  fleetctl token create --service --role reader
  fleetctl token create --operator viewer --label dashboard --expires-in 90d"
)]
pub(crate) struct Create {
    /// Opens this tenant
    #[arg(long, requires = "role")]
    tenant: Option<String>,
    /// Opens every tenant that this principal is a member of, with the role it has there
    #[arg(long, value_name = "PRINCIPAL", conflicts_with = "role")]
    member: Option<String>,
    /// Opens every tenant, for an application that names the tenant itself
    #[arg(long, requires = "role")]
    service: bool,
    /// Opens the admin API
    #[arg(long, value_enum, value_name = "ROLE", conflicts_with = "role")]
    operator: Option<OperatorRole>,
    /// What it may do in a tenant
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// A note for lists
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// It stops working after this long
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::duration)]
    expires_in: Option<std::time::Duration>,
    #[command(flatten)]
    change: Change,
}

/// What an operator may do; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OperatorRole {
    /// Look
    Viewer,
    /// Run operations
    Operator,
    /// Also tokens, servers, deletion
    Admin,
}

impl OperatorRole {
    fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Runs `fleetctl token …`.
pub(crate) async fn run(verb: Verb, context: &mut Context) -> Result<Exit> {
    match verb {
        Verb::Create(args) => create(args, context).await,
        Verb::List { tenant } => {
            let mut request = Request::get("/v1/tokens");
            if let Some(tenant) = tenant {
                request = request.query("tenant", &tenant);
            }
            print_pages(context, request, &TOKEN).await
        }
        Verb::Revoke { token, change } => {
            let request = Request::delete(format!("/v1/tokens/{}", segment(&token)?));
            change_and_print(context, request, &change, &TOKEN).await
        }
    }
}

async fn create(args: Create, context: &mut Context) -> Result<Exit> {
    let request = Request::post("/v1/tokens", body(&args)?);
    let Some(made) = operation::change(context, request, &args.change).await? else { return Ok(Exit::Done) };
    // Even when quiet: it cannot be had again.
    context.out.silent = false;
    context.out.facts(&CREATED, &made)?;
    context.out.note("The secret is shown only now.");
    Ok(Exit::Done)
}

fn body(args: &Create) -> Result<Value> {
    let mut body = json!({});
    for (key, value) in [("tenant", &args.tenant), ("member", &args.member), ("label", &args.label)] {
        if let Some(value) = value {
            body[key] = json!(value);
        }
    }
    if args.service {
        body["service"] = json!(true);
    }
    if let Some(role) = args.role {
        body["role"] = json!(role.as_str());
    }
    if let Some(role) = args.operator {
        body["operator"] = json!(role.as_str());
    }
    if let Some(after) = args.expires_in {
        let at = jiff::Timestamp::now()
            .checked_add(after)
            .map_err(|e| Failure::usage("--expires-in is too long").because(e))?;
        body["expires_at"] = json!(at.to_string());
    }
    Ok(body)
}
