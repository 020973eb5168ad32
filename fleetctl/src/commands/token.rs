//! `fleetctl token`: secrets that give access to tenants or the admin API.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::member::MemberRole;
use super::{change_and_print, print_pages};
use crate::args::ChangeArgs;
use crate::client::{ApiRequest, path_segment};
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::operation;
use crate::table::{TableColumn, TableView};

const TOKEN: TableView = TableView {
    name: "/id",
    columns: &[
        TableColumn::of_text("ID", "/id"),
        TableColumn::of_text("KIND", "/kind"),
        TableColumn::of_text("TENANT", "/tenant").may_cut(),
        TableColumn::of_text("PRINCIPAL", "/principal").may_cut(),
        TableColumn::of_text("ROLE", "/role"),
        TableColumn::of_text("LABEL", "/label").may_cut(),
        TableColumn::of_time("EXPIRES", "/expires_at"),
        TableColumn::of_time("REVOKED", "/revoked_at"),
        TableColumn::of_time("CREATED", "/created_at").only_wide(),
    ],
};

/// A new token: its secret is shown only here.
const CREATED: TableView = TableView {
    name: "/secret",
    columns: &[
        TableColumn::of_text("SECRET", "/secret"),
        TableColumn::of_text("ID", "/token/id"),
        TableColumn::of_text("KIND", "/token/kind"),
        TableColumn::of_text("TENANT", "/token/tenant").may_cut(),
        TableColumn::of_text("PRINCIPAL", "/token/principal").may_cut(),
        TableColumn::of_text("ROLE", "/token/role"),
        TableColumn::of_time("EXPIRES", "/token/expires_at"),
    ],
};

/// Commands of tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token; its secret is printed once
    Create(TokenCreateArgs),
    /// List tokens, never their secrets
    List {
        /// Only of this tenant
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Revoke a token
    Revoke {
        /// The token's id (`tok_…`)
        token: String,
        #[command(flatten)]
        change: ChangeArgs,
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
pub(crate) struct TokenCreateArgs {
    /// Give access to this tenant
    #[arg(long, requires = "role")]
    tenant: Option<String>,
    /// Give access to every tenant of which this principal is a member, with the role in that tenant
    #[arg(long, value_name = "PRINCIPAL", conflicts_with = "role")]
    member: Option<String>,
    /// Give access to every tenant, for an application that names the tenant itself
    #[arg(long, requires = "role")]
    service: bool,
    /// Give access to the admin API
    #[arg(long, value_enum, value_name = "ROLE", conflicts_with = "role")]
    operator: Option<OperatorRoleArg>,
    /// The token's role in a tenant
    #[arg(long, value_enum)]
    role: Option<MemberRole>,
    /// A note that is shown in lists
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// Time until the token expires
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::parse_duration)]
    expires_in: Option<std::time::Duration>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// The rights of an operator; each role includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OperatorRoleArg {
    /// Read, without changes
    Viewer,
    /// Also run operations
    Operator,
    /// Also tokens, servers, deletion
    Admin,
}

impl OperatorRoleArg {
    fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Runs `fleetctl token …`.
pub(crate) async fn run_token_command(verb: TokenCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match verb {
        TokenCommand::Create(args) => create_token(args, context).await,
        TokenCommand::List { tenant } => {
            let mut request = ApiRequest::get("/v1/tokens");
            if let Some(tenant) = tenant {
                request = request.with_query("tenant", &tenant);
            }
            print_pages(context, request, &TOKEN).await
        }
        TokenCommand::Revoke { token, change } => {
            let request = ApiRequest::delete(format!("/v1/tokens/{}", path_segment(&token)?));
            change_and_print(context, request, &change, &TOKEN).await
        }
    }
}

async fn create_token(args: TokenCreateArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let request = ApiRequest::post("/v1/tokens", token_spec(&args)?);
    let Some(made) = operation::send_change(context, request, &args.change).await? else {
        return Ok(CommandExit::Done);
    };
    // Printed even with `--quiet`, because the secret cannot be shown again.
    context.out.silent = false;
    context.out.print_facts(&CREATED, &made)?;
    context.out.print_note("The secret is shown only once.");
    Ok(CommandExit::Done)
}

fn token_spec(args: &TokenCreateArgs) -> Result<Value> {
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
            .map_err(|e| CommandFailure::usage_error("--expires-in is too long").with_cause(e))?;
        body["expires_at"] = json!(at.to_string());
    }
    Ok(body)
}
