//! `fleetctl token`: secrets that give access to tenants or the admin API.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use fleet_api::field;
use fleet_api::pointer;
use fleet_api::tokens::{TokenFilters, TokenMade, TokenView, TokenWanted};
use fleet_client::{ApiRequest, path_segment};

use super::member::MemberRole;
use super::{change_and_print, print_pages};
use crate::args::ChangeArgs;
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::operation;
use crate::table::{TableColumn, TableView};

const TOKEN: TableView = TableView {
    name: pointer!(TokenView: id),
    columns: &[
        TableColumn::of_text("ID", pointer!(TokenView: id)),
        TableColumn::of_text("KIND", pointer!(TokenView: kind)),
        TableColumn::of_text("TENANT", pointer!(TokenView: tenant)).may_cut(),
        TableColumn::of_text("PRINCIPAL", pointer!(TokenView: principal)).may_cut(),
        TableColumn::of_text("ROLE", pointer!(TokenView: role)),
        TableColumn::of_text("LABEL", pointer!(TokenView: label)).may_cut(),
        TableColumn::of_time("EXPIRES", pointer!(TokenView: expires_at)),
        TableColumn::of_time("REVOKED", pointer!(TokenView: revoked_at)),
        TableColumn::of_time("CREATED", pointer!(TokenView: created_at)).only_wide(),
    ],
};

/// A new token: its secret is shown only here.
const CREATED: TableView = TableView {
    name: pointer!(TokenMade: secret),
    columns: &[
        TableColumn::of_text("SECRET", pointer!(TokenMade: secret)),
        TableColumn::of_text("ID", pointer!(TokenMade: token, TokenView: id)),
        TableColumn::of_text("KIND", pointer!(TokenMade: token, TokenView: kind)),
        TableColumn::of_text("TENANT", pointer!(TokenMade: token, TokenView: tenant)).may_cut(),
        TableColumn::of_text("PRINCIPAL", pointer!(TokenMade: token, TokenView: principal)).may_cut(),
        TableColumn::of_text("ROLE", pointer!(TokenMade: token, TokenView: role)),
        TableColumn::of_time("EXPIRES", pointer!(TokenMade: token, TokenView: expires_at)),
    ],
};

/// Commands of tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token; its secret is printed once
    Create(TokenCreateArgs),
    /// List tokens, never their secrets
    List {
        /// Only tokens that are limited to this tenant
        #[arg(long)]
        tenant: Option<String>,
        /// Only tokens that act as this principal
        #[arg(long)]
        principal: Option<String>,
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
    group = ArgGroup::new("opens").required(true).multiple(true).args(["tenant", "member", "service", "operator"]),
    after_help = "Examples:
  fleetctl token create --tenant acme --role writer -o name
  fleetctl token create --member user-17 --tenant acme
  fleetctl token create --member user-17
  fleetctl token create --service --role reader
  fleetctl token create --operator viewer --label dashboard --expires-in 90d"
)]
pub(crate) struct TokenCreateArgs {
    /// Give access to this tenant
    #[arg(long, conflicts_with_all = ["service", "operator"])]
    tenant: Option<String>,
    /// Give access to every tenant of which this principal is a member, with the role in that tenant; with --tenant, to
    /// that tenant only
    #[arg(long, value_name = "PRINCIPAL", conflicts_with_all = ["role", "service", "operator"])]
    member: Option<String>,
    /// Give access to every tenant, for an application that names the tenant itself
    #[arg(long, conflicts_with = "operator")]
    service: bool,
    /// Give access to the admin API
    #[arg(long, value_enum, value_name = "ROLE", conflicts_with = "role")]
    operator: Option<OperatorRoleArg>,
    /// The token's role in a tenant
    #[arg(long, value_enum, required_unless_present_any = ["member", "operator"])]
    role: Option<MemberRole>,
    /// A note that is shown in lists
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// Time until the token expires
    #[arg(long, value_name = "DURATION", value_parser = crate::setting_values::parse_duration)]
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
        TokenCommand::List { tenant, principal } => {
            let conditions = [(field!(TokenFilters: tenant), tenant), (field!(TokenFilters: principal), principal)];
            let request = conditions.into_iter().fold(ApiRequest::get("/v1/tokens"), |request, (name, value)| {
                value.map_or(request.clone(), |value| request.with_query(name, &value))
            });
            print_pages(context, request, &TOKEN).await
        }
        TokenCommand::Revoke { token, change } => {
            let request = ApiRequest::delete(format!("/v1/tokens/{}", path_segment(&token)?));
            change_and_print(context, request, &change, &TOKEN).await
        }
    }
}

async fn create_token(args: TokenCreateArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let request = ApiRequest::post("/v1/tokens", &token_spec(&args)?);
    let Some(made) = operation::send_change(context, request, &args.change).await? else {
        return Ok(CommandExit::Done);
    };
    // Printed even with `--quiet`, because the secret cannot be shown again.
    context.out.silent = false;
    context.out.print_facts(&CREATED, &made)?;
    context.out.print_note("The secret is shown only once.");
    Ok(CommandExit::Done)
}

fn token_spec(args: &TokenCreateArgs) -> Result<TokenWanted> {
    let expires_at = match args.expires_in {
        Some(after) => Some(
            jiff::Timestamp::now()
                .checked_add(after)
                .map_err(|e| CommandFailure::usage_error("--expires-in is too long").with_cause(e))?,
        ),
        None => None,
    };
    Ok(TokenWanted {
        tenant: args.tenant.clone(),
        member: args.member.clone(),
        service: args.service,
        role: args.role.map(|role| role.as_str().to_owned()),
        operator: args.operator.map(|role| role.as_str().to_owned()),
        label: args.label.clone(),
        expires_at: expires_at.map(|at| at.to_string()),
        ..TokenWanted::default()
    })
}
