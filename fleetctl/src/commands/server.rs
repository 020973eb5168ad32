//! `fleetctl server`: the servers that hold databases.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use fleet_api::changes::ChangeOptions;
use fleet_api::operations::FailureDetail;
use fleet_api::servers::{ConnectionChange, ServerDrain, ServerPreparation, ServerToAdd, ServerView};
use fleet_api::{field, pointer};
use fleet_client::{ApiRequest, path_segment};
use serde_json::{Value, json};

use super::{PageWalker, change_and_print};
use crate::args::{ChangeArgs, WaitArgs, in_range};
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::table::{TableColumn, TableView, plain_text};
use crate::{input, operation};

const SERVER: TableView = TableView {
    name: pointer!(ServerView: name),
    columns: &[
        TableColumn::of_text("NAME", pointer!(ServerView: name)),
        TableColumn::of_text("ENGINE", pointer!(ServerView: engine)),
        TableColumn::of_text("STATE", pointer!(ServerView: state)),
        TableColumn::of_text("TENANTS", pointer!(ServerView: tenants)),
        TableColumn::of_text("MAX", pointer!(ServerView: tenants_max)),
        TableColumn::of_text("HEALTHY", pointer!(ServerView: healthy)),
        TableColumn::of_text("FUNCTIONS", pointer!(ServerView: function_rights)).only_wide(),
        TableColumn::of_text("CONNECTIONS", pointer!(ServerView: connections_used)),
        TableColumn::of_text("BUDGET", pointer!(ServerView: connections_budget)),
        TableColumn::of_bytes("USED", pointer!(ServerView: databases_bytes)),
        TableColumn::of_bytes("FREE", pointer!(ServerView: disk_free_bytes)),
        TableColumn::of_bytes("DISK", pointer!(ServerView: disk_total_bytes)),
        TableColumn::of_text("BASE", pointer!(ServerView: base)).may_cut(),
        TableColumn::of_text("MAX CONNECTIONS", pointer!(ServerView: connections_max)).only_wide(),
        TableColumn::of_text("VERSION", pointer!(ServerView: version)).only_wide(),
        TableColumn::of_text("PROBLEM", pointer!(ServerView: problem, FailureDetail: detail)).only_wide(),
        TableColumn::of_text("ID", pointer!(ServerView: id)).only_wide(),
    ],
};

/// Commands of servers.
#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Add a server
    Add(ServerAddArgs),
    /// List servers
    List,
    /// Show one server
    Get {
        /// The server's name
        server: String,
    },
    /// Change a server's password, address or directory
    Set(ServerSetArgs),
    /// Print the SQL with which a superuser prepares a Postgres server
    #[command(after_help = PREPARE_HELP)]
    Prepare {
        /// The server's name
        server: String,
    },
    /// Accept no more tenants
    Cordon(ServerChangeArgs),
    /// Accept tenants again
    Uncordon(ServerChangeArgs),
    /// Accept no more tenants, and move existing ones to other servers
    Drain(ServerDrainArgs),
    /// Remove an empty server from the fleet
    Remove(ServerChangeArgs),
}

const PREPARE_HELP: &str = "Example:
  fleetctl server prepare pg1 | psql postgres://postgres@db1/postgres

By default every login of a PostgreSQL server may run functions that name other
databases, roles and sessions. Only a superuser can take that right away. The
script does so in the database fleet_template, from which later databases are made,
and in the tenants' databases that exist. It may run again. Run it again after an
upgrade of PostgreSQL or of fleetctl, and after the fleet's role on the server has
changed. An extension that only a superuser may create is created in fleet_template,
too. Without it, the check of each request's SQL stands alone.";

/// Flags of `server add`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  fleetctl server add disk2 --base /mnt/disk2/tenants --tenants-max 5000
  fleetctl server add pg1 --engine postgres --dsn-file pg1.dsn

The file contains one line: postgres://user:password@host:port/database. The role must
be allowed to create databases and roles; it should not be a superuser.")]
pub(crate) struct ServerAddArgs {
    /// The server's name
    name: String,
    /// The engine: sqlite or postgres
    #[arg(long, default_value = "sqlite")]
    engine: String,
    /// sqlite: the directory that holds its databases
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// postgres: a file with the connection string (- is standard input)
    #[arg(long, value_name = "FILE")]
    dsn_file: Option<PathBuf>,
    /// Maximum number of tenants
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    tenants_max: Option<u64>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Flags of `server set`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  fleetctl server set pg1 --dsn-file pg1.dsn
  fleetctl server set disk2 --base /mnt/new/tenants      # after: mv /mnt/disk2/tenants /mnt/new/tenants")]
pub(crate) struct ServerSetArgs {
    /// The server's name
    server: String,
    /// postgres: a file with the connection string (- is standard input)
    #[arg(long, value_name = "FILE", required_unless_present = "base", conflicts_with = "base")]
    dsn_file: Option<PathBuf>,
    /// sqlite: the directory that its databases were moved to
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// The flags of a command that changes one server.
#[derive(Debug, Args)]
pub(crate) struct ServerChangeArgs {
    /// The server's name
    server: String,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Flags of `server drain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl server drain pg1 --to pg2 --max-parallel 8
  fleetctl server drain disk1                      # spread over all others of its engine")]
pub(crate) struct ServerDrainArgs {
    /// The server's name
    server: String,
    /// The new server; by default any server of the same engine that takes tenants
    #[arg(long, value_name = "SERVER")]
    to: Option<String>,
    /// Maximum number of tenants at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_parallel: Option<u32>,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

async fn drain_server(args: ServerDrainArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let max_parallel = in_range("--max-parallel", args.max_parallel.map(u64::from))?;
    let drain = ServerDrain { to: args.to, max_parallel, ..ServerDrain::default() };
    let request = ApiRequest::post(format!("/v1/servers/{}/drain", path_segment(&args.server)?), &drain);
    operation::run_operation(context, request, &args.change, &args.wait).await
}

/// Prints the servers, and the problems of those that could not be reached.
async fn list_servers(context: &mut CommandContext) -> Result<CommandExit> {
    let client = context.api_client().await?;
    let mut pages = PageWalker::for_request(ApiRequest::get("/v1/servers"));
    let mut servers = Vec::new();
    while let Some(page) = pages.next_page(&client).await? {
        servers.extend(page);
    }
    let mut list = context.out.begin_list(&SERVER)?;
    list.print_page(&servers)?;
    list.finish_list()?;
    Ok(report_unreachable(context, &servers))
}

async fn get_server(server: &str, context: &mut CommandContext) -> Result<CommandExit> {
    let client = context.api_client().await?;
    let server = client.send_for_json(&ApiRequest::get(format!("/v1/servers/{}", path_segment(server)?))).await?;
    context.out.print_facts(&SERVER, &server)?;
    Ok(report_unreachable(context, std::slice::from_ref(&server)))
}

/// Prints the names of servers that do not answer, with the cause. Their other columns come from the catalog.
fn report_unreachable(context: &mut CommandContext, servers: &[Value]) -> CommandExit {
    let mut exit = CommandExit::Done;
    for server in servers.iter().filter(|server| server[field!(ServerView: healthy)] == json!(false)) {
        let [name, code, detail] = ["/name", "/problem/code", "/problem/detail"]
            .map(|at| server.pointer(at).map(plain_text).unwrap_or_default());
        let failure =
            CommandFailure::new(CommandExit::Found, format!("the server {name} could not be checked: {detail}"))
                .code(code)
                .try_next("fleetctl doctor");
        context.out.print_failure(&failure);
        exit = CommandExit::Found;
    }
    exit
}

/// Runs `fleetctl server …`.
pub(crate) async fn run_server_command(verb: ServerCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match verb {
        ServerCommand::Add(args) => add_server(args, context).await,
        ServerCommand::List => list_servers(context).await,
        ServerCommand::Get { server } => get_server(&server, context).await,
        ServerCommand::Set(args) => change_server(args, context).await,
        ServerCommand::Prepare { server } => prepare_server(&server, context).await,
        ServerCommand::Cordon(one) => switch_state(context, &one, "cordon").await,
        ServerCommand::Uncordon(one) => switch_state(context, &one, "uncordon").await,
        ServerCommand::Drain(args) => drain_server(args, context).await,
        ServerCommand::Remove(one) => {
            let request = ApiRequest::delete(format!("/v1/servers/{}", path_segment(&one.server)?));
            change_and_print(context, request, &one.change, &SERVER).await
        }
    }
}

async fn add_server(args: ServerAddArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let base = match &args.base {
        Some(path) => Some(base_directory(path, context).await?),
        None => None,
    };
    let dsn = args.dsn_file.as_deref().map(|file| input::read_secret(file, context)).transpose()?;
    if args.base.is_none() && args.dsn_file.is_none() {
        return Err(CommandFailure::usage_error(
            "a server is a directory (--base DIR) or a Postgres server (--engine postgres --dsn-file FILE)",
        ));
    }
    let tenants_max = in_range("--tenants-max", args.tenants_max)?;
    let new = ServerToAdd { name: args.name, engine: args.engine, base, dsn, tenants_max, ..ServerToAdd::default() };
    change_and_print(context, ApiRequest::post("/v1/servers", &new), &args.change, &SERVER).await
}

async fn change_server(args: ServerSetArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let new = match (&args.base, &args.dsn_file) {
        (Some(path), _) => {
            ConnectionChange { base: Some(base_directory(path, context).await?), ..ConnectionChange::default() }
        }
        (None, Some(file)) => {
            ConnectionChange { dsn: Some(input::read_secret(file, context)?), ..ConnectionChange::default() }
        }
        (None, None) => return Err(CommandFailure::usage_error("use --base DIR or --dsn-file FILE")),
    };
    let request = ApiRequest::post(format!("/v1/servers/{}/entry", path_segment(&args.server)?), &new);
    change_and_print(context, request, &args.change, &SERVER).await
}

async fn prepare_server(server: &str, context: &mut CommandContext) -> Result<CommandExit> {
    let request = ApiRequest::get(format!("/v1/servers/{}/preparation", path_segment(server)?));
    let answer = context.api_client().await?.send_for_json(&request).await?;
    let Some(script) = answer[field!(ServerPreparation: script)].as_str() else {
        return Err(CommandFailure::usage_error("only Postgres servers need preparation"));
    };
    context.out.print_text(script)?;
    Ok(CommandExit::Done)
}

/// A relative directory is on this machine. So it is allowed only for a control plane in this process.
async fn base_directory(path: &Path, context: &mut CommandContext) -> Result<String> {
    let embedded = context.api_client().await?.is_embedded();
    if path.is_relative() && !embedded {
        return Err(CommandFailure::usage_error("--base must be absolute: it is a directory of the server's machine"));
    }
    let absolute = context.absolute_path(path);
    let text = absolute.to_str().ok_or_else(|| CommandFailure::usage_error("--base is not UTF-8"))?;
    Ok(text.to_owned())
}

async fn switch_state(context: &mut CommandContext, one: &ServerChangeArgs, verb: &str) -> Result<CommandExit> {
    let request =
        ApiRequest::post(format!("/v1/servers/{}/{verb}", path_segment(&one.server)?), &ChangeOptions::default());
    change_and_print(context, request, &one.change, &SERVER).await
}
