//! `fleetctl server`: the places databases live.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Pages, change_and_print};
use crate::args::{Change, Wait};
use crate::client::{Request, segment};
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::table::{Column, View, plain};
use crate::{input, operation};

const SERVER: View = View {
    name: "/name",
    columns: &[
        Column::text("NAME", "/name"),
        Column::text("ENGINE", "/engine"),
        Column::text("STATE", "/state"),
        Column::text("TENANTS", "/tenants"),
        Column::text("MAX", "/tenants_max"),
        Column::text("HEALTHY", "/healthy"),
        Column::text("FUNCTIONS", "/function_rights").wide(),
        Column::text("CONNECTIONS", "/connections_used"),
        Column::text("BUDGET", "/connections_budget"),
        Column::bytes("USED", "/databases_bytes"),
        Column::bytes("FREE", "/disk_free_bytes"),
        Column::bytes("DISK", "/disk_total_bytes"),
        Column::text("BASE", "/base"),
        Column::text("MAX CONNECTIONS", "/connections_max").wide(),
        Column::text("VERSION", "/version").wide(),
        Column::text("PROBLEM", "/problem/detail").wide(),
        Column::text("ID", "/id").wide(),
    ],
};

/// What can be done with servers.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Add a place for databases
    Add(Add),
    /// List servers
    List,
    /// Show one server
    Get {
        /// Its name
        server: String,
    },
    /// Change how a server is entered: a new password, another address, another directory
    Set(Set),
    /// Print the SQL by which a superuser prepares a Postgres server
    #[command(after_help = PREPARE_HELP)]
    Prepare {
        /// Its name
        server: String,
    },
    /// Take no more tenants
    Cordon(One),
    /// Take tenants again
    Uncordon(One),
    /// Take no more tenants, and move those that are there
    Drain(Drain),
    /// Forget an empty server
    Remove(One),
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

The file holds one line: postgres://user:password@host:port/database. The role may
create databases and roles; it should be no superuser.")]
pub(crate) struct Add {
    /// What operators call it
    name: String,
    /// What it runs: sqlite or postgres
    #[arg(long, default_value = "sqlite")]
    engine: String,
    /// sqlite: the directory that holds its databases
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// postgres: a file with the connection string (- is standard input)
    #[arg(long, value_name = "FILE")]
    dsn_file: Option<PathBuf>,
    /// Take at most this many tenants
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    tenants_max: Option<u64>,
    #[command(flatten)]
    change: Change,
}

/// Flags of `server set`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  fleetctl server set pg1 --dsn-file pg1.dsn
  fleetctl server set disk2 --base /mnt/new/tenants      # after: mv /mnt/disk2/tenants /mnt/new/tenants")]
pub(crate) struct Set {
    /// Its name
    server: String,
    /// postgres: a file with the connection string (- is standard input)
    #[arg(long, value_name = "FILE", required_unless_present = "base", conflicts_with = "base")]
    dsn_file: Option<PathBuf>,
    /// sqlite: the directory that its databases were moved to
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    #[command(flatten)]
    change: Change,
}

/// One server to be changed.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Its name
    server: String,
    #[command(flatten)]
    change: Change,
}

/// Flags of `server drain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl server drain pg1 --to pg2 --max-parallel 8
  fleetctl server drain disk1                      # spread over all others of its engine")]
pub(crate) struct Drain {
    /// Its name
    server: String,
    /// Where to; any server of the same engine that takes tenants if not given
    #[arg(long, value_name = "SERVER")]
    to: Option<String>,
    /// Tenants at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_parallel: Option<u32>,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    wait: Wait,
}

async fn drain(args: Drain, context: &mut Context) -> Result<Exit> {
    let body = json!({"to": args.to, "max_parallel": args.max_parallel});
    let request = Request::post(format!("/v1/servers/{}/drain", segment(&args.server)?), body);
    operation::run(context, request, &args.change, &args.wait).await
}

/// The servers; one that could not be looked at is told, too.
async fn list(context: &mut Context) -> Result<Exit> {
    let client = context.client().await?;
    let mut pages = Pages::of(Request::get("/v1/servers"));
    let mut servers = Vec::new();
    while let Some(page) = pages.next(&client).await? {
        servers.extend(page);
    }
    let mut list = context.out.list(&SERVER)?;
    list.page(&servers)?;
    list.finish()?;
    Ok(tell_unseen(context, &servers))
}

async fn get(server: &str, context: &mut Context) -> Result<Exit> {
    let client = context.client().await?;
    let server = client.json(&Request::get(format!("/v1/servers/{}", segment(server)?))).await?;
    context.out.facts(&SERVER, &server)?;
    Ok(tell_unseen(context, std::slice::from_ref(&server)))
}

/// Names the servers that do not answer, with the cause: what is shown of them is what the catalog says.
fn tell_unseen(context: &mut Context, servers: &[Value]) -> Exit {
    let mut exit = Exit::Done;
    for server in servers.iter().filter(|server| server["healthy"] == json!(false)) {
        let [name, code, detail] =
            ["/name", "/problem/code", "/problem/detail"].map(|at| server.pointer(at).map(plain).unwrap_or_default());
        let failure = Failure::new(Exit::Found, format!("the server {name} could not be looked at: {detail}"))
            .code(code)
            .try_next("fleetctl doctor");
        context.out.failure(&failure);
        exit = Exit::Found;
    }
    exit
}

/// Runs `fleetctl server …`.
pub(crate) async fn run(verb: Verb, context: &mut Context) -> Result<Exit> {
    match verb {
        Verb::Add(args) => add(args, context).await,
        Verb::List => list(context).await,
        Verb::Get { server } => get(&server, context).await,
        Verb::Set(args) => set(args, context).await,
        Verb::Prepare { server } => prepare(&server, context).await,
        Verb::Cordon(one) => switch(context, &one, "cordon").await,
        Verb::Uncordon(one) => switch(context, &one, "uncordon").await,
        Verb::Drain(args) => drain(args, context).await,
        Verb::Remove(one) => {
            let request = Request::delete(format!("/v1/servers/{}", segment(&one.server)?));
            change_and_print(context, request, &one.change, &SERVER).await
        }
    }
}

async fn add(args: Add, context: &mut Context) -> Result<Exit> {
    let mut body = json!({"name": args.name, "engine": args.engine});
    if let Some(path) = &args.base {
        body["base"] = json!(base(path, context).await?);
    }
    if let Some(file) = &args.dsn_file {
        body["dsn"] = json!(input::secret(file, context)?);
    }
    if args.base.is_none() && args.dsn_file.is_none() {
        return Err(Failure::usage(
            "a server is a directory (--base DIR) or a Postgres server (--engine postgres --dsn-file FILE)",
        ));
    }
    if let Some(max) = args.tenants_max {
        body["tenants_max"] = json!(max);
    }
    change_and_print(context, Request::post("/v1/servers", body), &args.change, &SERVER).await
}

async fn set(args: Set, context: &mut Context) -> Result<Exit> {
    let body = match (&args.base, &args.dsn_file) {
        (Some(path), _) => json!({"base": base(path, context).await?}),
        (None, Some(file)) => json!({"dsn": input::secret(file, context)?}),
        (None, None) => return Err(Failure::usage("give --base DIR or --dsn-file FILE")),
    };
    let request = Request::post(format!("/v1/servers/{}/entry", segment(&args.server)?), body);
    change_and_print(context, request, &args.change, &SERVER).await
}

async fn prepare(server: &str, context: &mut Context) -> Result<Exit> {
    let request = Request::get(format!("/v1/servers/{}/preparation", segment(server)?));
    let answer = context.client().await?.json(&request).await?;
    let Some(script) = answer["script"].as_str() else {
        return Err(Failure::usage("this server needs no preparation: it is no Postgres server"));
    };
    context.out.text(script)?;
    Ok(Exit::Done)
}

/// A relative directory means one of this machine, so it may only be given to a control plane in this process.
async fn base(path: &Path, context: &mut Context) -> Result<String> {
    let embedded = context.client().await?.is_embedded();
    if path.is_relative() && !embedded {
        return Err(Failure::usage("--base must be absolute: it is a directory of the server's machine"));
    }
    let absolute = context.absolute(path);
    let text = absolute.to_str().ok_or_else(|| Failure::usage("--base is not UTF-8"))?;
    Ok(text.to_owned())
}

async fn switch(context: &mut Context, one: &One, verb: &str) -> Result<Exit> {
    let request = Request::post(format!("/v1/servers/{}/{verb}", segment(&one.server)?), json!({}));
    change_and_print(context, request, &one.change, &SERVER).await
}
