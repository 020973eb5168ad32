//! `fleetctl audit`: the checklist of isolation, with evidence for each line.

use std::path::{Path, PathBuf};

use clap::Args;
use fleet_api::isolation::{IsolationCheck, IsolationReport, IsolationVerdict};
use fleet_api::pointer;
use fleet_client::ApiRequest;
use serde_json::{Value, json};

use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::output::OutputFormat;
use crate::table::{TableColumn, TableView};

const CHECK: TableView = TableView {
    name: pointer!(IsolationCheck: check),
    columns: &[
        TableColumn::of_text("VERDICT", pointer!(IsolationCheck: verdict)),
        TableColumn::of_text("AREA", pointer!(IsolationCheck: area)),
        TableColumn::of_text("CHECK", pointer!(IsolationCheck: check)),
        TableColumn::of_text("EVIDENCE", pointer!(IsolationCheck: evidence)),
        TableColumn::of_text("TRY", pointer!(IsolationCheck: next_step)),
    ],
};

/// Maximum size of a report of a leak test, in bytes.
const REPORT_BYTES_MAX: u64 = 64 << 20;
/// The command that makes the report.
const TEST_FIRST: &str =
    "fleetctl leaktest --url APPLICATION -o json > leaktest.json; fleetctl audit --leaktest leaktest.json";

/// The areas of an application, and the probes of the leak test that look at them.
const AREAS: [(&str, &[&str]); 7] = [
    ("resolution", &["name-variants", "tenant-override"]),
    ("scoping", &["foreign-address", "foreign-ids", "foreign-writes"]),
    ("apis", &["error-texts", "taken-values", "idempotency-keys", "replayed-values", "operator-routes", "outputs"]),
    ("caching", &["colliding-keys", "shared-caching", "lifecycle"]),
    ("jobs", &["interference", "concurrency"]),
    ("webhooks", &["webhook-payloads"]),
    ("realtime", &["live-messages"]),
];

/// Flags of `audit`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl audit --leaktest leaktest.json
  fleetctl audit -o json

The fleet is looked at now. The application is known by the report of a leak test: without it, its lines
say that the audit could not look. Exit codes: 0 every line passes or does not apply, 4 otherwise.")]
pub(crate) struct AuditArgs {
    /// Report of `fleetctl leaktest -o json`, for the lines about the application; - is standard input
    #[arg(long, value_name = "FILE")]
    leaktest: Option<PathBuf>,
}

/// Runs `fleetctl audit`.
pub(crate) async fn run_audit_command(args: &AuditArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let tested = read_report(args.leaktest.as_deref(), context)?;
    let client = context.api_client().await?;
    let answer = client.send_request(&ApiRequest::get("/v1/isolation")).await?;
    let mut report: IsolationReport = answer.read_as().await?;
    report.checks.extend(application_checks(tested.as_ref()));
    let is_good =
        |check: &IsolationCheck| matches!(check.verdict, IsolationVerdict::Pass | IsolationVerdict::NotApplicable);
    let found = !report.checks.iter().all(is_good);
    // Success is silent and findings are printed, so that cron mails only findings.
    context.out.silent &= !found;
    print_report(context, &report)?;
    Ok(if found { CommandExit::Found } else { CommandExit::Done })
}

fn print_report(context: &mut CommandContext, report: &IsolationReport) -> Result<()> {
    let answer = json!(report);
    if context.out.format == OutputFormat::Json {
        return context.out.print_json(&format!("{answer:#}\n"));
    }
    let mut list = context.out.begin_findings(&CHECK)?;
    list.print_page(answer["checks"].as_array().map_or(&[][..], Vec::as_slice))?;
    list.finish_list()
}

fn read_report(file: Option<&Path>, context: &mut CommandContext) -> Result<Option<Value>> {
    let Some(file) = file else { return Ok(None) };
    let bytes = crate::input::read_input(file, REPORT_BYTES_MAX, context)?;
    let report: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    match report["probes"].is_array() && report["clean"].is_boolean() {
        true => Ok(Some(report)),
        false => Err(CommandFailure::usage_error(format!("{} is not a report of a leak test", file.display()))
            .try_next(TEST_FIRST)),
    }
}

/// PURE: the lines about the application.
fn application_checks(tested: Option<&Value>) -> Vec<IsolationCheck> {
    let mut checks: Vec<IsolationCheck> = AREAS.iter().map(|(area, probes)| area_check(area, probes, tested)).collect();
    let line = |verdict, evidence: String| {
        let next_step = if verdict == IsolationVerdict::Pass { "" } else { TEST_FIRST };
        let (area, check) = ("tests".to_owned(), "leak test".to_owned());
        IsolationCheck { area, check, verdict, evidence, next_step: next_step.to_owned() }
    };
    checks.push(match tested {
        None => line(IsolationVerdict::NotLooked, "no report of a leak test was given".to_owned()),
        Some(report) => {
            let count = |key: &str| report["counts"][key].as_u64().unwrap_or_default();
            let uncovered = report["uncovered"].as_object().map_or(0, serde_json::Map::len);
            let evidence = format!(
                "{} routes, {} left out, {uncovered} not covered, {} requests",
                count("routes"),
                count("routes_left_out"),
                count("requests")
            );
            let is_clean = report["clean"] == json!(true);
            line(if is_clean { IsolationVerdict::Pass } else { IsolationVerdict::Fail }, evidence)
        }
    });
    checks
}

/// PURE: the line of one area. A probe that did not run, or could not look, makes the line one that could not look.
fn area_check(area: &str, probes: &[&str], tested: Option<&Value>) -> IsolationCheck {
    let ran = tested.and_then(|report| report["probes"].as_array()).map_or(&[][..], Vec::as_slice);
    let outcome = |name: &str| ran.iter().find(|probe| probe["probe"] == json!(name));
    let findings = |probe: &Value| probe["findings"].as_array().map_or(0, Vec::len);
    let describe = |name: &str| match outcome(name) {
        None => format!("{name}: did not run"),
        Some(probe) if findings(probe) > 0 => format!("{name}: {} findings", findings(probe)),
        Some(probe) if probe["skipped"].is_string() => {
            format!("{name}: not applicable, {}", probe["skipped"].as_str().unwrap_or_default())
        }
        Some(probe) if probe["inconclusive"] == json!(true) => format!("{name}: could not look"),
        Some(probe) => format!("{name}: {} routes, {} controls", probe["routes_tried"], probe["controls"]),
    };
    let outcomes: Vec<Option<&Value>> = probes.iter().map(|name| outcome(name)).collect();
    let is_skipped = |probe: &Value| probe["skipped"].is_string() && findings(probe) == 0;
    let could_look = |probe: &Option<&Value>| probe.is_some_and(|probe| probe["inconclusive"] != json!(true));
    let verdict = if outcomes.iter().flatten().any(|probe| findings(probe) > 0) {
        IsolationVerdict::Fail
    } else if !outcomes.iter().all(could_look) {
        IsolationVerdict::NotLooked
    } else if outcomes.iter().flatten().all(|probe| is_skipped(probe)) {
        IsolationVerdict::NotApplicable
    } else {
        IsolationVerdict::Pass
    };
    let evidence = match tested {
        None => "no report of a leak test was given".to_owned(),
        Some(_) => probes.iter().map(|name| describe(name)).collect::<Vec<_>>().join("; "),
    };
    let next_step = match verdict {
        IsolationVerdict::Pass | IsolationVerdict::NotApplicable => String::new(),
        IsolationVerdict::Fail | IsolationVerdict::NotLooked => TEST_FIRST.to_owned(),
    };
    IsolationCheck { area: area.to_owned(), check: "application".to_owned(), verdict, evidence, next_step }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(name: &str, findings: usize, skipped: Option<&str>, inconclusive: bool) -> Value {
        json!({ "probe": name, "findings": vec![0; findings], "skipped": skipped, "inconclusive": inconclusive,
                "routes_tried": 3, "controls": 2 })
    }

    #[test]
    fn the_application_is_known_only_by_its_leak_test() {
        let verdicts = |report: Option<Value>| -> Vec<(String, IsolationVerdict)> {
            application_checks(report.as_ref()).into_iter().map(|check| (check.area, check.verdict)).collect()
        };
        assert!(verdicts(None).iter().all(|(_, verdict)| *verdict == IsolationVerdict::NotLooked));
        let probes = |live: Value, hook: Value| {
            let names = AREAS[..5].iter().flat_map(|(_, names)| names.iter());
            let all: Vec<Value> = names.map(|name| probe(name, 0, None, false)).chain([live, hook]).collect();
            json!({ "clean": true, "probes": all, "counts": {}, "uncovered": {} })
        };
        let good = probes(probe("live-messages", 0, None, false), probe("webhook-payloads", 0, Some("none"), false));
        let found = verdicts(Some(good));
        let not_pass: Vec<_> = found.iter().filter(|(_, verdict)| *verdict != IsolationVerdict::Pass).collect();
        assert_eq!(not_pass, [&("webhooks".to_owned(), IsolationVerdict::NotApplicable)]);
        let bad = probes(probe("live-messages", 2, None, false), probe("webhook-payloads", 0, None, true));
        let found = verdicts(Some(bad));
        assert!(found.contains(&("realtime".to_owned(), IsolationVerdict::Fail)));
        assert!(found.contains(&("webhooks".to_owned(), IsolationVerdict::NotLooked)));
    }
}
