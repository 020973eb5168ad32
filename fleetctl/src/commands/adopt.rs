//! `fleetctl tenant adopt`: a database that exists already becomes a tenant.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::tenant::finish_created;
use crate::args::{Change, Labels, Wait, labels, pairs};
use crate::client::Request;
use crate::context::Context;
use crate::error::{Exit, Result};
use crate::input;
use crate::operation::{self, Started};

/// Flags of `tenant adopt`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  fleetctl tenant adopt acme --dsn-file acme.dsn --server pg1

The file holds one line: postgres://user:password@host:port/database. The database is
copied as it is at one moment and is not changed; stop its writers first.")]
pub(crate) struct Adopt {
    /// The new tenant's name
    name: String,
    /// A file with the connection string of the database (- is standard input)
    #[arg(long, value_name = "FILE")]
    dsn_file: PathBuf,
    /// Where the copy lives; the Postgres server with most room if not given
    #[arg(long)]
    server: Option<String>,
    /// Labels of the tenant
    #[arg(short = 'l', long = "label", value_name = "K=V,…", value_parser = labels)]
    labels: Option<Labels>,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    wait: Wait,
}

/// Runs `fleetctl tenant adopt`.
pub(crate) async fn run(args: Adopt, context: &mut Context) -> Result<Exit> {
    let mut body = json!({"name": args.name, "dsn": input::secret(&args.dsn_file, context)?});
    if let Some(server) = &args.server {
        body["server"] = json!(server);
    }
    if let Some(labels) = &args.labels {
        body["labels"] = pairs(labels);
    }
    let request = Request::post("/v1/tenants/adopt", body);
    match operation::start(context, request, &args.change, &args.wait).await? {
        Started::Answer(answer) => finish_created(context, &answer, &args.name, &args.wait).await,
        Started::Planned => Ok(Exit::Done),
    }
}
