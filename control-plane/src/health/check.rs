//! The result of one check, and the words that all checks share.

/// Maximum number of names in one line of the report.
const NAMES_MAX: usize = 5;

/// The result of one check.
#[derive(Debug)]
pub(crate) struct HealthCheck {
    /// Name of the check.
    pub(crate) name: String,
    /// The verdict.
    pub(crate) verdict: HealthVerdict,
    /// Description of what the check found.
    pub(crate) detail: String,
    /// Advice for the operator; empty if the verdict is ok.
    pub(crate) next_step: String,
}

/// The result of a check, by severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HealthVerdict {
    /// Nothing to do.
    Ok,
    /// Something needs attention soon.
    Warn,
    /// Something is wrong now.
    Fail,
    /// The check could not be made.
    Unknown,
}

impl HealthCheck {
    pub(super) fn new_ok(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), verdict: HealthVerdict::Ok, detail: detail.into(), next_step: String::new() }
    }

    pub(super) fn new_warning(name: &str, detail: impl Into<String>, next_step: &str) -> Self {
        Self {
            name: name.to_owned(),
            verdict: HealthVerdict::Warn,
            detail: detail.into(),
            next_step: next_step.to_owned(),
        }
    }

    pub(super) fn new_failure(name: &str, detail: impl Into<String>, next_step: &str) -> Self {
        Self { verdict: HealthVerdict::Fail, ..Self::new_warning(name, detail, next_step) }
    }

    /// A check that could not be made. It says nothing about its subject.
    pub(super) fn new_unknown(name: &str, detail: impl Into<String>, next_step: &str) -> Self {
        Self { verdict: HealthVerdict::Unknown, ..Self::new_warning(name, detail, next_step) }
    }
}

/// PURE: a few names, and the number of the others.
pub(super) fn shorten_names(names: &[String]) -> String {
    let (shown, rest) = names.split_at(names.len().min(NAMES_MAX));
    match rest.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
