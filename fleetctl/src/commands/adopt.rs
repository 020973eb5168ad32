//! `fleetctl tenant adopt`: creates a tenant from an existing database.

use std::path::PathBuf;

use clap::Args;
use fleet_api::tenants::AdoptionRequest;
use fleet_client::ApiRequest;

use super::create::finish_created;
use crate::args::{ChangeArgs, LabelPairs, WaitArgs, label_map, parse_labels};
use crate::context::CommandContext;
use crate::error::{CommandExit, Result};
use crate::input;
use crate::operation::{self, StartedOperation};

/// Flags of `tenant adopt`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  fleetctl tenant adopt acme --dsn-file acme.dsn --server pg1

The file contains one line: postgres://user:password@host:port/database. The
database is copied and not changed. Stop its writers first: later changes are not copied.")]
pub(crate) struct AdoptArgs {
    /// The new tenant's name
    name: String,
    /// A file with the connection string of the database (- is standard input)
    #[arg(long, value_name = "FILE")]
    dsn_file: PathBuf,
    /// Server of the copy; by default the Postgres server with the most free space
    #[arg(long)]
    server: Option<String>,
    /// Labels of the tenant
    #[arg(short = 'l', long = "label", value_name = "K=V,…", value_parser = parse_labels)]
    labels: Option<LabelPairs>,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Runs `fleetctl tenant adopt`.
pub(crate) async fn run_adopt_command(args: AdoptArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let adoption = AdoptionRequest {
        name: args.name.clone(),
        dsn: input::read_secret(&args.dsn_file, context)?,
        labels: label_map(args.labels.as_ref()),
        server: args.server,
        dry_run: false,
        reason: None,
    };
    let request = ApiRequest::post("/v1/tenants/adopt", &adoption);
    match operation::start_operation(context, request, &args.change, &args.wait).await? {
        StartedOperation::Answer(answer) => finish_created(context, &answer, &args.name, &args.wait).await,
        StartedOperation::Planned => Ok(CommandExit::Done),
    }
}
