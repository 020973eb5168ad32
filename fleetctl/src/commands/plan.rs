//! `fleetctl plan`: named sets of limits that tenants share. `tenant set --plan` gives a tenant one.

use std::str::FromStr;

use clap::{Args, Subcommand};
use fleet_api::bounded_number::BoundedNumber;
use fleet_api::plans::{LimitPlan, NewPlanRequest, PlanLimitChanges, PlanLimits, PlanPatch};
use fleet_api::pointer;
use fleet_client::{ApiRequest, path_segment};

use super::{change_and_print, print_pages};
use crate::args::ChangeArgs;
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::table::{TableColumn, TableView};

const PLAN: TableView = TableView {
    name: pointer!(LimitPlan: name),
    columns: &[
        TableColumn::of_text("NAME", pointer!(LimitPlan: name)),
        TableColumn::of_text("TENANTS", pointer!(LimitPlan: tenants)),
        TableColumn::of_text("PER SECOND", pointer!(LimitPlan: limits, PlanLimits: requests_per_second)),
        TableColumn::of_text("BURST", pointer!(LimitPlan: limits, PlanLimits: burst)),
        TableColumn::of_text("CONCURRENCY", pointer!(LimitPlan: limits, PlanLimits: concurrency)),
        TableColumn::of_text("STATEMENT MS", pointer!(LimitPlan: limits, PlanLimits: statement_ms)),
        TableColumn::of_text("ROWS", pointer!(LimitPlan: limits, PlanLimits: rows_max)),
        TableColumn::of_bytes("ANSWER", pointer!(LimitPlan: limits, PlanLimits: answer_bytes_max)),
        TableColumn::of_bytes("STORAGE", pointer!(LimitPlan: limits, PlanLimits: storage_bytes_max)),
        TableColumn::of_text("CONNECTIONS", pointer!(LimitPlan: limits, PlanLimits: connections_max)),
        TableColumn::of_time("CHANGED", pointer!(LimitPlan: updated_at)).only_wide(),
    ],
};

/// Commands of plans.
#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// Add a plan; it limits nobody until a tenant has it
    Add(PlanChangeArgs),
    /// Change limits of a plan; limits that are not named stay
    Set(PlanChangeArgs),
    /// List plans
    List,
    /// Show one plan
    Get {
        /// The plan's name
        plan: String,
    },
    /// Remove a plan that no tenant has
    Remove(PlanRemoveArgs),
}

/// Flags of `plan add` and `plan set`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl plan add free --requests-per-second 50 --burst 100 --concurrency 20
  fleetctl plan set free --statement-ms 2000 --burst none
  fleetctl tenant set acme --plan free")]
pub(crate) struct PlanChangeArgs {
    /// The plan's name
    plan: String,
    /// Requests per second, in the whole fleet
    #[arg(long, value_name = "LIMIT", help_heading = "Limits (a number, or none)")]
    requests_per_second: Option<LimitWord>,
    /// Requests that may come at once after a pause [default: those of one second]
    #[arg(long, value_name = "LIMIT", help_heading = "Limits (a number, or none)")]
    burst: Option<LimitWord>,
    /// Requests and open transactions at once, in the whole fleet
    #[arg(long, value_name = "LIMIT", help_heading = "Limits (a number, or none)")]
    concurrency: Option<LimitWord>,
    /// Milliseconds of one statement
    #[arg(long, value_name = "LIMIT", help_heading = "Limits (a number, or none)")]
    statement_ms: Option<LimitWord>,
    /// Rows of one answer
    #[arg(long, value_name = "LIMIT", help_heading = "Limits (a number, or none)")]
    rows: Option<LimitWord>,
    /// Bytes of one answer
    #[arg(long, value_name = "LIMIT", help_heading = "Limits (a number, or none)")]
    answer_bytes: Option<LimitWord>,
    /// Bytes of the tenant's database
    #[arg(long, value_name = "LIMIT", help_heading = "Limits (a number, or none)")]
    storage_bytes: Option<LimitWord>,
    /// Connections of one process to the tenant's database
    #[arg(long, value_name = "LIMIT", help_heading = "Limits (a number, or none)")]
    connections: Option<LimitWord>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Flags of `plan remove`.
#[derive(Debug, Args)]
pub(crate) struct PlanRemoveArgs {
    /// The plan's name
    plan: String,
    #[command(flatten)]
    change: ChangeArgs,
}

/// A limit on the command line: a number, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LimitWord(Option<u64>);

impl FromStr for LimitWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            text => text.parse().map(|number| Self(Some(number))).map_err(|_| "expected a whole number or none".into()),
        }
    }
}

impl PlanChangeArgs {
    fn limit_changes(&self) -> Result<PlanLimitChanges> {
        Ok(PlanLimitChanges {
            requests_per_second: bounded("--requests-per-second", self.requests_per_second)?,
            burst: bounded("--burst", self.burst)?,
            concurrency: bounded("--concurrency", self.concurrency)?,
            statement_ms: bounded("--statement-ms", self.statement_ms)?,
            rows_max: bounded("--rows", self.rows)?,
            answer_bytes_max: bounded("--answer-bytes", self.answer_bytes)?,
            storage_bytes_max: bounded("--storage-bytes", self.storage_bytes)?,
            connections_max: bounded("--connections", self.connections)?,
        })
    }
}

/// A limit in the range of its field. `Some(None)` removes it.
fn bounded<const MIN: u64, const MAX: u64>(
    flag: &str,
    word: Option<LimitWord>,
) -> Result<Option<Option<BoundedNumber<MIN, MAX>>>> {
    word.map(|LimitWord(number)| crate::args::in_range(flag, number)).transpose()
}

/// Runs `fleetctl plan …`.
pub(crate) async fn run_plan_command(verb: PlanCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match verb {
        PlanCommand::Add(args) => {
            let limits = args.limit_changes()?.applied_to(PlanLimits::default());
            let new = NewPlanRequest { name: args.plan, limits, ..NewPlanRequest::default() };
            change_and_print(context, ApiRequest::post("/v1/plans", &new), &args.change, &PLAN).await
        }
        PlanCommand::Set(args) => set_plan(&args, context).await,
        PlanCommand::List => print_pages(context, ApiRequest::get("/v1/plans"), &PLAN).await,
        PlanCommand::Get { plan } => {
            let client = context.api_client().await?;
            let item = client.send_for_json(&ApiRequest::get(plan_path(&plan)?)).await?;
            context.out.print_facts(&PLAN, &item)?;
            Ok(CommandExit::Done)
        }
        PlanCommand::Remove(args) => {
            change_and_print(context, ApiRequest::delete(plan_path(&args.plan)?), &args.change, &PLAN).await
        }
    }
}

async fn set_plan(args: &PlanChangeArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let limits = args.limit_changes()?;
    if limits.is_empty() {
        let next = format!("fleetctl plan set {} --requests-per-second 50", args.plan);
        return Err(CommandFailure::usage_error("no limit is given").try_next(next));
    }
    let request = ApiRequest::patch(plan_path(&args.plan)?, &PlanPatch { limits, ..PlanPatch::default() });
    change_and_print(context, request, &args.change, &PLAN).await
}

fn plan_path(plan: &str) -> Result<String> {
    Ok(format!("/v1/plans/{}", path_segment(plan)?))
}
