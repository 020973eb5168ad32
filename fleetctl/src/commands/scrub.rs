//! `fleetctl scrub`: compares the servers with the catalog, and quarantines databases without an owner.

use std::path::{Path, PathBuf};

use clap::Args;
use fleet_api::operations::FailureDetail;
use fleet_api::scrub::{QuarantineItem, QuarantineReport, ScrubFinding, ScrubReport};
use fleet_api::{field, pointer};
use fleet_client::ApiRequest;
use serde_json::{Value, json};

use super::ExitTally;
use crate::args::ChangeArgs;
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::input;
use crate::output::OutputFormat;
use crate::table::{TableColumn, TableView};

const FINDING: TableView = TableView {
    name: pointer!(ScrubFinding: name),
    columns: &[
        TableColumn::of_text("SEVERITY", pointer!(ScrubFinding: severity)),
        TableColumn::of_text("KIND", pointer!(ScrubFinding: kind)),
        TableColumn::of_text("SERVER", pointer!(ScrubFinding: server)),
        TableColumn::of_text("TENANT", pointer!(ScrubFinding: tenant)),
        TableColumn::of_text("NAME", pointer!(ScrubFinding: name)),
        TableColumn::of_text("DETAIL", pointer!(ScrubFinding: detail)),
        TableColumn::of_bytes("SIZE", pointer!(ScrubFinding: size_bytes)).only_wide(),
        TableColumn::of_text("TENANT ID", pointer!(ScrubFinding: tenant_id)).only_wide(),
        TableColumn::of_text("PHYSICAL", pointer!(ScrubFinding: physical)).only_wide(),
        TableColumn::of_text("TRY", pointer!(ScrubFinding: next_step)).only_wide(),
    ],
};

const ITEM: TableView = TableView {
    name: pointer!(QuarantineItem: name),
    columns: &[
        TableColumn::of_text("OUTCOME", pointer!(QuarantineItem: outcome)),
        TableColumn::of_text("SERVER", pointer!(QuarantineItem: server)),
        TableColumn::of_text("NAME", pointer!(QuarantineItem: name)),
        TableColumn::of_text("MOVED TO", pointer!(QuarantineItem: moved_to)),
        TableColumn::of_text("WHY", pointer!(QuarantineItem: error, FailureDetail: detail)),
    ],
};

/// The size of a report with some hundred thousand findings, more than a person can read.
const REPORT_BYTES_MAX: u64 = 64 << 20;
/// Findings per request. Each may wait some seconds for users that are leaving a database, and the answer must arrive
/// before the client's timeout.
const FINDINGS_MAX: usize = 10;

/// Flags of `scrub`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  fleetctl scrub
  fleetctl scrub --out report.json          # look at it, take out what shall stay
  fleetctl scrub --quarantine report.json --yes

Exit codes: 0 the servers match the catalog, 4 there are findings. Quarantine never deletes anything:
files move to quarantine/DATE under the server's directory; Postgres databases are closed and
renamed to quarantine_DATE_NAME; logins are disabled.")]
pub(crate) struct ScrubArgs {
    /// Also write the report to this file
    #[arg(long, value_name = "FILE", conflicts_with = "quarantine")]
    out: Option<PathBuf>,
    /// Quarantine the unowned objects in this report; - is standard input
    #[arg(long, value_name = "FILE")]
    quarantine: Option<PathBuf>,
    /// Confirm that the report was read
    #[arg(short = 'y', long, requires = "quarantine", help_heading = "Confirmation")]
    yes: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Runs `fleetctl scrub`.
pub(crate) async fn run_scrub_command(args: ScrubArgs, context: &mut CommandContext) -> Result<CommandExit> {
    match &args.quarantine {
        Some(file) => quarantine_orphans(file, &args, context).await,
        None if args.change.dry_run || args.change.reason.is_some() => Err(CommandFailure::usage_error(
            "--dry-run and --reason need --quarantine: without it, scrub changes nothing",
        )),
        None => scrub_fleet(&args, context).await,
    }
}

async fn scrub_fleet(args: &ScrubArgs, context: &mut CommandContext) -> Result<CommandExit> {
    if args.out.as_deref() == Some(Path::new("-")) {
        return Err(CommandFailure::usage_error(
            "--out needs a file; use -o json to print the report on standard output",
        ));
    }
    let client = context.api_client().await?;
    let report = client.send_for_json(&ApiRequest::post("/v1/scrub", &json!({}))).await?;
    let findings = report[field!(ScrubReport: findings)].as_array().cloned().unwrap_or_default();
    if let Some(file) = &args.out {
        write_report(&context.absolute_path(file), &report)?;
    }
    // Success is silent and findings are printed, so that cron mails only findings.
    context.out.silent &= findings.is_empty();
    match context.out.format {
        OutputFormat::Json => context.out.print_json(&format!("{report:#}\n"))?,
        _ => {
            let mut list = context.out.begin_findings(&FINDING)?;
            list.print_page(&findings)?;
            list.finish_list()?;
        }
    }
    context.out.print_note(&scrub_summary(&report, findings.len()));
    Ok(if findings.is_empty() { CommandExit::Done } else { CommandExit::Found })
}

/// PURE: the summary of a report in one line.
fn scrub_summary(report: &Value, findings: usize) -> String {
    let number = |key: &str| report[key].as_u64().unwrap_or_default();
    let mut text = format!(
        "{findings} findings: {} databases on {} servers, {} opened, {} tenants",
        number("databases"),
        number("servers"),
        number("opened"),
        number("tenants")
    );
    for (key, words) in
        [("busy", "left out because an operation works on them"), ("foreign", "databases of other fleets left out")]
    {
        if number(key) > 0 {
            text += &format!("; {} {words}", number(key));
        }
    }
    text
}

/// Writes the whole report or nothing, because an operator might act on a truncated report.
fn write_report(file: &Path, report: &Value) -> Result<()> {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let written = std::fs::write(&part, format!("{report:#}\n")).and_then(|()| std::fs::rename(&part, file));
    written.map_err(|e| {
        CommandFailure::new(CommandExit::Failed, format!("cannot write '{}'", file.display()))
            .with_cause(e)
            .try_next("name a file in a directory that exists and that this user may write to")
    })
}

async fn quarantine_orphans(file: &Path, args: &ScrubArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let (report, orphans) = read_report(file, context)?;
    if orphans.is_empty() {
        context.out.print_note("the report names nothing that can be quarantined");
        return Ok(CommandExit::Done);
    }
    if !args.yes && !args.change.dry_run {
        let what = format!("this would quarantine {} objects", orphans.len());
        return Err(CommandFailure::usage_error(what)
            .code("confirmation_required")
            .try_next("check the report, remove the findings that shall stay, then run the same command with --yes"));
    }
    let client = context.api_client().await?;
    let mut items = Vec::new();
    for some in orphans.chunks(FINDINGS_MAX) {
        let body = json!({
            "version": report[field!(ScrubReport: version)], "fleet_id": report[field!(ScrubReport: fleet_id)], "findings": some,
            "dry_run": args.change.dry_run, "reason": args.change.reason,
        });
        match client.send_for_json(&ApiRequest::post("/v1/scrub/quarantine", &body)).await {
            Ok(answer) => items.extend(answer[field!(QuarantineReport: items)].as_array().cloned().unwrap_or_default()),
            Err(failure) if items.is_empty() => return Err(failure),
            Err(failure) => {
                // Completed changes are reported, even if a later request fails.
                context.out.silent = false;
                print_outcomes(context, &items)?;
                return Err(failure);
            }
        }
    }
    let mut tally = ExitTally::default();
    for item in &items {
        tally.add_exit(if item[field!(QuarantineItem: outcome)] == json!("refused") {
            CommandExit::Conflict
        } else {
            CommandExit::Done
        });
    }
    context.out.silent &= tally.combined_exit() == CommandExit::Done;
    print_outcomes(context, &items)?;
    Ok(tally.combined_exit())
}

fn print_outcomes(context: &mut CommandContext, items: &[Value]) -> Result<()> {
    let mut list = context.out.begin_findings(&ITEM)?;
    list.print_page(items)?;
    list.finish_list()
}

/// The report, and those of its findings that can be quarantined.
fn read_report(file: &Path, context: &mut CommandContext) -> Result<(Value, Vec<Value>)> {
    let bytes = input::read_input(file, REPORT_BYTES_MAX, context)?;
    let unreadable = || CommandFailure::usage_error(format!("{} is not a report of fleetctl scrub", file.display()));
    let report: Value = serde_json::from_slice(&bytes).map_err(|e| unreadable().with_cause(e))?;
    let findings = report[field!(ScrubReport: findings)]
        .as_array()
        .filter(|_| report[field!(ScrubReport: version)].is_u64() && report[field!(ScrubReport: fleet_id)].is_string());
    let findings = findings.ok_or_else(|| unreadable().try_next("fleetctl scrub --out report.json"))?;
    let (orphans, others): (Vec<Value>, Vec<Value>) = findings.iter().cloned().partition(is_orphan);
    if !others.is_empty() {
        context.out.print_note(&format!(
            "{} findings are not unowned objects; quarantine does not resolve them",
            others.len()
        ));
    }
    Ok((report, orphans))
}

/// PURE: true for findings that can be quarantined.
fn is_orphan(finding: &Value) -> bool {
    finding[field!(ScrubFinding: kind)].as_str().is_some_and(|kind| kind.starts_with("orphan_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_what_was_left_out() {
        let report = json!({"databases": 3, "servers": 1, "opened": 2, "tenants": 3, "busy": 1, "foreign": 0});
        assert_eq!(
            scrub_summary(&report, 0),
            "0 findings: 3 databases on 1 servers, 2 opened, 3 tenants; 1 left out because an operation works on them"
        );
    }
}
