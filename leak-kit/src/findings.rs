//! What probes report.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::canary::CanaryHit;
use crate::exchange::Exchange;

/// Bytes of an answer that a finding shows.
const EVIDENCE_BYTES: usize = 160;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// Data of one tenant was given to another.
    ForeignData,
    /// A request of one tenant changed another, or changed its answers.
    ForeignEffect,
    /// The answer shows that another tenant, or a row of it, exists.
    ExistenceShown,
    /// A shared cache would give one tenant's answer to another.
    SharedCache,
    /// Data of tenants in logs, metrics or files.
    DataInOutput,
}

/// One fault of the application.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The name of the probe.
    pub probe: &'static str,
    /// What is wrong.
    pub kind: FindingKind,
    /// The route, or the output, where it shows.
    pub route: String,
    /// One sentence.
    pub text: String,
    /// The request that shows it.
    pub request: String,
    /// A part of the answer.
    pub evidence: String,
}

/// What one probe has done.
#[derive(Debug, Default)]
pub struct ProbeOutcome {
    findings: Vec<Finding>,
    controls: BTreeSet<String>,
    attempts: BTreeSet<String>,
    skipped: Option<String>,
    probe: &'static str,
}

impl ProbeOutcome {
    pub(crate) fn new(probe: &'static str) -> Self {
        Self { probe, ..Self::default() }
    }

    /// Reports a fault. A probe reports each kind of fault once for each route.
    pub(crate) fn report(&mut self, kind: FindingKind, route: &str, text: impl Into<String>, exchange: &Exchange) {
        let evidence = exchange.evidence(EVIDENCE_BYTES);
        self.report_text(kind, route, text.into(), exchange.request.clone(), evidence);
    }

    /// Reports foreign data in an answer.
    pub(crate) fn report_hit(&mut self, route: &str, hit: &CanaryHit, exchange: &Exchange) {
        let text = format!("the answer contains a text of tenant {} ({})", hit.side.letter(), hit.planted_by);
        let evidence = hit.context.clone();
        self.report_text(FindingKind::ForeignData, route, text, exchange.request.clone(), evidence);
    }

    pub(crate) fn report_text(
        &mut self,
        kind: FindingKind,
        route: &str,
        text: String,
        request: String,
        evidence: String,
    ) {
        if self.findings.iter().any(|known| known.kind == kind && known.route == route) {
            return;
        }
        let (probe, route) = (self.probe, route.to_owned());
        self.findings.push(Finding { probe, kind, route, text, request, evidence });
    }

    /// Notes that the probe tried a route.
    pub(crate) fn attempt(&mut self, route: &str) {
        self.attempts.insert(route.to_owned());
    }

    /// Notes that the owner saw its own data, so that "nothing found" means something.
    pub(crate) fn control(&mut self, route: &str) {
        self.attempt(route);
        self.controls.insert(route.to_owned());
    }

    /// Says why the probe does not apply to this application.
    pub(crate) fn skip(&mut self, reason: impl Into<String>) {
        self.skipped = Some(reason.into());
    }

    /// The faults.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The probe's name.
    #[must_use]
    pub fn probe(&self) -> &'static str {
        self.probe
    }

    /// How many routes the probe tried.
    #[must_use]
    pub fn attempt_count(&self) -> usize {
        self.attempts.len()
    }

    /// How many routes gave their owner the answer that the probe needs.
    #[must_use]
    pub fn control_count(&self) -> usize {
        self.controls.len()
    }

    /// Why the probe does not apply.
    #[must_use]
    pub fn skipped(&self) -> Option<&str> {
        self.skipped.as_deref()
    }

    /// Whether the probe could not look: it applies, but no owner got its own data.
    #[must_use]
    pub fn is_inconclusive(&self) -> bool {
        self.skipped.is_none() && self.controls.is_empty() && self.findings.is_empty()
    }
}
