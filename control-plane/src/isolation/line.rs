//! One line of the audit.

/// Maximum number of names in one line.
const NAMES_MAX: usize = 5;

/// The result of one check, with its evidence.
#[derive(Debug)]
pub(crate) struct AuditLine {
    /// The subject.
    pub(crate) area: &'static str,
    /// The name of the check within its area.
    pub(crate) check: String,
    /// The result.
    pub(crate) verdict: AuditVerdict,
    /// What was looked at, and what was found.
    pub(crate) evidence: String,
    /// Advice for the operator; empty if the result is pass.
    pub(crate) next_step: String,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuditVerdict {
    /// The check looked, and found nothing wrong.
    Pass,
    /// Something weakens the isolation of tenants.
    Fail,
    /// The check could not look.
    NotLooked,
    /// The fleet has nothing that the check is about.
    NotApplicable,
}

impl AuditLine {
    pub(super) fn pass(area: &'static str, check: impl Into<String>, evidence: impl Into<String>) -> Self {
        Self {
            area,
            check: check.into(),
            verdict: AuditVerdict::Pass,
            evidence: evidence.into(),
            next_step: String::new(),
        }
    }

    pub(super) fn not_applicable(area: &'static str, check: impl Into<String>, evidence: impl Into<String>) -> Self {
        Self { verdict: AuditVerdict::NotApplicable, ..Self::pass(area, check, evidence) }
    }

    pub(super) fn fail(
        area: &'static str,
        check: impl Into<String>,
        evidence: impl Into<String>,
        next_step: impl Into<String>,
    ) -> Self {
        Self { verdict: AuditVerdict::Fail, next_step: next_step.into(), ..Self::pass(area, check, evidence) }
    }

    pub(super) fn not_looked(
        area: &'static str,
        check: impl Into<String>,
        evidence: impl Into<String>,
        next_step: impl Into<String>,
    ) -> Self {
        Self { verdict: AuditVerdict::NotLooked, ..Self::fail(area, check, evidence, next_step) }
    }
}

/// PURE: a few names, and the number of the others.
pub(super) fn few_names(names: &[String]) -> String {
    let (shown, rest) = names.split_at(names.len().min(NAMES_MAX));
    match rest.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
