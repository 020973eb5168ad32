//! The report of a run: text, JSON or JUnit.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use crate::findings::{Finding, ProbeOutcome};
use crate::route::RouteClass;
use crate::session::Session;

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For the test reports of build servers.
    Junit,
}

/// What a run found.
#[derive(Debug)]
pub struct LeakReport {
    outcomes: Vec<ProbeOutcome>,
    uncovered: BTreeMap<String, &'static str>,
    needless: Vec<String>,
    counts: ReportCounts,
}

/// Numbers of a run.
#[derive(Debug, Clone, Copy, Serialize)]
struct ReportCounts {
    routes: usize,
    routes_of_tenants: usize,
    routes_left_out: usize,
    requests: u64,
}

impl LeakReport {
    pub(crate) fn new(
        session: &Session,
        outcomes: Vec<ProbeOutcome>,
        uncovered: BTreeMap<String, &'static str>,
        needless: Vec<String>,
        routes_left_out: usize,
    ) -> Self {
        let counts = ReportCounts {
            routes: session.all_routes().len() + routes_left_out,
            routes_of_tenants: session.routes(RouteClass::Tenant).chain(session.routes(RouteClass::Live)).count(),
            routes_left_out,
            requests: session.request_count(),
        };
        Self { outcomes, uncovered, needless, counts }
    }

    /// All findings, in the order of the probes.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.outcomes.iter().flat_map(ProbeOutcome::findings)
    }

    /// What each probe did.
    #[must_use]
    pub fn outcomes(&self) -> &[ProbeOutcome] {
        &self.outcomes
    }

    /// Routes that no probe could try, with the reason.
    #[must_use]
    pub fn uncovered(&self) -> &BTreeMap<String, &'static str> {
        &self.uncovered
    }

    /// How many requests were sent.
    #[must_use]
    pub fn request_count(&self) -> u64 {
        self.counts.requests
    }

    /// Whether nothing was found, and the kit could look everywhere.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings().next().is_none()
            && self.uncovered.is_empty()
            && self.needless.is_empty()
            && !self.outcomes.iter().any(ProbeOutcome::is_inconclusive)
    }

    /// The report in a form.
    #[must_use]
    pub fn render(&self, format: ReportFormat) -> String {
        match format {
            ReportFormat::Text => self.text(),
            ReportFormat::Json => format!("{:#}\n", self.json()),
            ReportFormat::Junit => self.junit(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for outcome in &self.outcomes {
            let _ = writeln!(text, "{:17} {}", outcome.probe(), verdict_of(outcome));
            for finding in outcome.findings() {
                let _ = writeln!(text, "  {}: {}", finding.route, finding.text);
                let shown = [("request", &finding.request), ("answer", &finding.evidence)];
                for (name, value) in shown.into_iter().filter(|(_, value)| !value.is_empty()) {
                    let _ = writeln!(text, "    {name}: {}", one_line(value));
                }
            }
        }
        for (route, reason) in &self.uncovered {
            let _ = writeln!(text, "not covered: {route}: {reason}");
        }
        for route in &self.needless {
            let _ = writeln!(text, "exception without a use: {route}: remove it from the list");
        }
        let ReportCounts { routes, routes_left_out, requests, .. } = self.counts;
        let findings = self.findings().count();
        let _ = writeln!(
            text,
            "{findings} findings, {} routes not covered; {routes} routes, {routes_left_out} left out, {requests} requests",
            self.uncovered.len()
        );
        text
    }

    fn json(&self) -> serde_json::Value {
        let probe = |outcome: &ProbeOutcome| {
            json!({
                "probe": outcome.probe(), "findings": outcome.findings(), "routes_tried": outcome.attempt_count(),
                "controls": outcome.control_count(), "skipped": outcome.skipped(), "inconclusive": outcome.is_inconclusive(),
            })
        };
        json!({
            "clean": self.is_clean(), "counts": self.counts, "probes": self.outcomes.iter().map(probe).collect::<Vec<_>>(),
            "uncovered": self.uncovered, "needless_exceptions": self.needless,
        })
    }

    fn junit(&self) -> String {
        let failed = self.outcomes.iter().filter(|outcome| !outcome.findings().is_empty() || outcome.is_inconclusive());
        let uncovered = usize::from(!self.uncovered.is_empty() || !self.needless.is_empty());
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let (tests, failures) = (self.outcomes.len() + 1, failed.count() + uncovered);
        let skipped = self.outcomes.iter().filter(|outcome| outcome.skipped().is_some()).count();
        let _ = writeln!(
            text,
            "<testsuite name=\"leaktest\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\">"
        );
        for outcome in &self.outcomes {
            text.push_str(&junit_case(outcome));
        }
        let lines: Vec<String> = self
            .uncovered
            .iter()
            .map(|(route, reason)| format!("{route}: {reason}"))
            .chain(self.needless.iter().map(|route| format!("{route}: exception without a use")))
            .collect();
        text.push_str(&case_with_failure("coverage", (!lines.is_empty()).then(|| lines.join("\n"))));
        text + "</testsuite>\n"
    }
}

fn verdict_of(outcome: &ProbeOutcome) -> String {
    match (outcome.skipped(), outcome.findings().len()) {
        (Some(reason), 0) => format!("not applicable: {reason}"),
        (_, 0) if outcome.is_inconclusive() => {
            format!("could not look: none of {} routes gave its owner the answer it needs", outcome.attempt_count())
        }
        (_, 0) => format!("ok: {} routes, {} controls", outcome.attempt_count(), outcome.control_count()),
        (_, count) => format!("FAILED: {count} findings"),
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn junit_case(outcome: &ProbeOutcome) -> String {
    if let (Some(reason), true) = (outcome.skipped(), outcome.findings().is_empty()) {
        let (name, reason) = (outcome.probe(), escape_xml(reason));
        return format!(
            "  <testcase classname=\"leaktest\" name=\"{name}\"><skipped message=\"{reason}\"/></testcase>\n"
        );
    }
    let lines: Vec<String> = outcome
        .findings()
        .iter()
        .map(|finding| format!("{}: {} | {} | {}", finding.route, finding.text, finding.request, finding.evidence))
        .collect();
    let failure = if outcome.is_inconclusive() { Some(verdict_of(outcome)) } else { None };
    case_with_failure(outcome.probe(), failure.or_else(|| (!lines.is_empty()).then(|| lines.join("\n"))))
}

fn case_with_failure(name: &str, failure: Option<String>) -> String {
    match failure {
        None => format!("  <testcase classname=\"leaktest\" name=\"{name}\"/>\n"),
        Some(text) => format!(
            "  <testcase classname=\"leaktest\" name=\"{name}\"><failure message=\"{}\">{}</failure></testcase>\n",
            escape_xml(text.lines().next().unwrap_or_default()),
            escape_xml(&text)
        ),
    }
}

/// The text without characters that XML 1.0 does not allow, and with its special ones escaped.
fn escape_xml(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            '\n' | '\t' => c.to_string(),
            '\u{fffe}' | '\u{ffff}' => " ".to_owned(),
            c if c.is_control() => " ".to_owned(),
            c => c.to_string(),
        })
        .collect()
}
