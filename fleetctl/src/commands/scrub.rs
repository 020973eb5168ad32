//! `fleetctl scrub`: what is on the servers against what the catalog says, and putting aside what nobody owns.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::Tally;
use crate::args::Change;
use crate::client::Request;
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::input;
use crate::output::Format;
use crate::table::{Column, View};

const FINDING: View = View {
    name: "/name",
    columns: &[
        Column::text("SEVERITY", "/severity"),
        Column::text("KIND", "/kind"),
        Column::text("SERVER", "/server"),
        Column::text("TENANT", "/tenant"),
        Column::text("NAME", "/name"),
        Column::text("DETAIL", "/detail"),
        Column::bytes("SIZE", "/size_bytes").wide(),
        Column::text("TENANT ID", "/tenant_id").wide(),
        Column::text("PHYSICAL", "/physical").wide(),
        Column::text("TRY", "/next_step").wide(),
    ],
};

const ITEM: View = View {
    name: "/name",
    columns: &[
        Column::text("OUTCOME", "/outcome"),
        Column::text("SERVER", "/server"),
        Column::text("NAME", "/name"),
        Column::text("MOVED TO", "/moved_to"),
        Column::text("WHY", "/error/detail"),
    ],
};

/// A report of some hundred thousand findings; more is not one that a human has looked at.
const REPORT_BYTES_MAX: u64 = 64 << 20;
/// Sent at once: each may wait some seconds for whoever is just leaving a database, and an answer must come while a
/// client waits for it.
const FINDINGS_MAX: usize = 10;

/// Flags of `scrub`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  fleetctl scrub
  fleetctl scrub --out report.json          # look at it, take out what shall stay
  fleetctl scrub --quarantine report.json --yes

Exit codes: 0 all is as the catalog says, 4 there are findings. Putting aside deletes nothing:
files move to quarantine/DATE under the server's directory; databases of Postgres are closed and
renamed to quarantine_DATE_NAME; logins may not log in any more.")]
pub(crate) struct Scrub {
    /// Write the report to this file, too
    #[arg(long, value_name = "FILE", conflicts_with = "quarantine")]
    out: Option<PathBuf>,
    /// Put aside the orphans in this report; - is standard input
    #[arg(long, value_name = "FILE")]
    quarantine: Option<PathBuf>,
    /// Do it: the report was looked at
    #[arg(short = 'y', long, requires = "quarantine", help_heading = "Confirmation")]
    yes: bool,
    #[command(flatten)]
    change: Change,
}

/// Runs `fleetctl scrub`.
pub(crate) async fn run(args: Scrub, context: &mut Context) -> Result<Exit> {
    match &args.quarantine {
        Some(file) => quarantine(file, &args, context).await,
        None if args.change.dry_run || args.change.reason.is_some() => {
            Err(Failure::usage("--dry-run and --reason go with --quarantine: looking changes nothing"))
        }
        None => look(&args, context).await,
    }
}

async fn look(args: &Scrub, context: &mut Context) -> Result<Exit> {
    if args.out.as_deref() == Some(Path::new("-")) {
        return Err(Failure::usage("--out names a file; on standard output the report is printed with -o json"));
    }
    let client = context.client().await?;
    let report = client.json(&Request::post("/v1/scrub", json!({}))).await?;
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    if let Some(file) = &args.out {
        write(&context.absolute(file), &report)?;
    }
    // A silent success, a loud failure: what cron should mail.
    context.out.silent &= findings.is_empty();
    match context.out.format {
        Format::Json => context.out.json(&format!("{report:#}\n"))?,
        _ => {
            let mut list = context.out.list(&FINDING)?;
            list.page(&findings)?;
            list.finish()?;
        }
    }
    context.out.note(&summary(&report, findings.len()));
    Ok(if findings.is_empty() { Exit::Done } else { Exit::Found })
}

/// PURE.
fn summary(report: &Value, findings: usize) -> String {
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

/// Whole or not at all: a report that is cut off would be acted on in part.
fn write(file: &Path, report: &Value) -> Result<()> {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let written = std::fs::write(&part, format!("{report:#}\n")).and_then(|()| std::fs::rename(&part, file));
    written.map_err(|e| {
        Failure::new(Exit::Failed, format!("cannot write '{}'", file.display()))
            .because(e)
            .try_next("name a file in a directory that exists and that this user may write to")
    })
}

async fn quarantine(file: &Path, args: &Scrub, context: &mut Context) -> Result<Exit> {
    let (report, orphans) = read(file, context)?;
    if orphans.is_empty() {
        context.out.note("the report names nothing that could be put aside");
        return Ok(Exit::Done);
    }
    if !args.yes && !args.change.dry_run {
        let what = format!("this would put aside {} things", orphans.len());
        return Err(Failure::usage(what)
            .code("confirmation_required")
            .try_next("look at the report, take out what shall stay, then the same command with --yes"));
    }
    let client = context.client().await?;
    let mut items = Vec::new();
    for some in orphans.chunks(FINDINGS_MAX) {
        let body = json!({
            "version": report["version"], "fleet_id": report["fleet_id"], "findings": some,
            "dry_run": args.change.dry_run, "reason": args.change.reason,
        });
        match client.json(&Request::post("/v1/scrub/quarantine", body)).await {
            Ok(answer) => items.extend(answer["items"].as_array().cloned().unwrap_or_default()),
            Err(failure) if items.is_empty() => return Err(failure),
            Err(failure) => {
                // What has been done is told, whatever came then.
                context.out.silent = false;
                show(context, &items)?;
                return Err(failure);
            }
        }
    }
    let mut tally = Tally::default();
    for item in &items {
        tally.add(if item["outcome"] == json!("refused") { Exit::Conflict } else { Exit::Done });
    }
    context.out.silent &= tally.exit() == Exit::Done;
    show(context, &items)?;
    Ok(tally.exit())
}

fn show(context: &mut Context, items: &[Value]) -> Result<()> {
    let mut list = context.out.list(&ITEM)?;
    list.page(items)?;
    list.finish()
}

/// The report, and the findings in it that can be acted on.
fn read(file: &Path, context: &mut Context) -> Result<(Value, Vec<Value>)> {
    let bytes = input::read(file, REPORT_BYTES_MAX, context)?;
    let unreadable = || Failure::usage(format!("{} is no report of fleetctl scrub", file.display()));
    let report: Value = serde_json::from_slice(&bytes).map_err(|e| unreadable().because(e))?;
    let findings =
        report["findings"].as_array().filter(|_| report["version"].is_u64() && report["fleet_id"].is_string());
    let findings = findings.ok_or_else(|| unreadable().try_next("fleetctl scrub --out report.json"))?;
    let (orphans, others): (Vec<Value>, Vec<Value>) = findings.iter().cloned().partition(is_orphan);
    if !others.is_empty() {
        context.out.note(&format!("{} findings are about no orphan and are left to you", others.len()));
    }
    Ok((report, orphans))
}

/// PURE.
fn is_orphan(finding: &Value) -> bool {
    finding["kind"].as_str().is_some_and(|kind| kind.starts_with("orphan_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_what_was_left_out() {
        let report = json!({"databases": 3, "servers": 1, "opened": 2, "tenants": 3, "busy": 1, "foreign": 0});
        assert_eq!(
            summary(&report, 0),
            "0 findings: 3 databases on 1 servers, 2 opened, 3 tenants; 1 left out because an operation works on them"
        );
    }
}
