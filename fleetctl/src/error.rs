//! What went wrong, and the exit code that says so. Printed only by `output`.

use std::fmt;

use serde_json::Value;

/// What every fallible function here returns.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// The exit codes scripts rely on; the README lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// It failed, for all of the tenants.
    Failed = 1,
    /// Bad flags, bad input, or a confirmation that was not given.
    Usage = 2,
    /// Some tenants failed.
    Partial = 3,
    /// A check found something.
    Found = 4,
    /// What was named does not exist.
    NotFound = 5,
    /// Waiting took too long; the operation goes on.
    TimedOut = 6,
    /// Taken, busy, protected, or another run holds the lock.
    Conflict = 7,
    /// The database is not the one the catalog names now.
    Fenced = 8,
    /// The token does not allow it.
    NotAuthorised = 12,
    /// The control plane cannot be reached.
    Unreachable = 15,
    /// Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command stopped: what, why, and what helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// A code `fleetctl explain` knows; empty when there is none.
    pub(crate) code: String,
    pub(crate) what: String,
    pub(crate) causes: Vec<String>,
    pub(crate) tries: Vec<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, code: String::new(), what: what.into(), causes: Vec::new(), tries: Vec::new() }
    }

    /// Bad flags or bad input; nothing was done.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// The control plane answered something this program cannot read.
    pub(crate) fn unexpected(what: impl Into<String>) -> Self {
        Self::new(Exit::Failed, what).because("the control plane's answer is not what this version expects")
    }

    #[must_use]
    pub(crate) fn code(mut self, code: impl Into<String>) -> Self {
        self.code = code.into();
        self
    }

    #[must_use]
    pub(crate) fn because(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    #[must_use]
    pub(crate) fn try_next(mut self, step: impl Into<String>) -> Self {
        self.tries.push(step.into());
        self
    }

    /// A step that helps more than those named so far.
    #[must_use]
    pub(crate) fn try_first(mut self, step: impl Into<String>) -> Self {
        self.tries.insert(0, step.into());
        self
    }

    /// From an `application/problem+json` answer.
    pub(crate) fn from_problem(status: u16, problem: &Value) -> Self {
        let text = |key: &str| problem.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = text("code");
        let detail = [text("detail"), text("title")].into_iter().find(|t| !t.is_empty());
        let mut out = Self::new(exit_of(status, &code), detail.unwrap_or_else(|| format!("HTTP status {status}")));
        out.causes = details(problem);
        let steps = problem.get("next_steps").and_then(Value::as_array).into_iter().flatten();
        out.tries = steps.filter_map(Value::as_str).map(str::to_owned).collect();
        if code.is_empty() {
            out = out
                .because("what answered is not a control plane, or something between here and it")
                .try_next("check that the address is the admin API's: fleetctl config show --origin");
        }
        out.code = code;
        out
    }
}

impl From<control_plane::Error> for Failure {
    fn from(error: control_plane::Error) -> Self {
        let mut out = Self::new(exit_of(error.status, &error.code), error.detail.clone()).code(error.code.clone());
        for cause in error.causes() {
            let said = |text: &String| text.contains(&cause);
            if !said(&out.what) && !out.causes.iter().any(said) {
                out.causes.push(cause);
            }
        }
        out.tries = error.next_steps;
        out
    }
}

/// The lines of a problem's `errors`: which input is wrong and how. The details name what they are about.
fn details(problem: &Value) -> Vec<String> {
    let errors = problem.get("errors").and_then(Value::as_array).into_iter().flatten();
    errors
        .map(|e| {
            let detail = e.get("detail").and_then(Value::as_str).unwrap_or_default();
            match e.get("index").and_then(Value::as_u64) {
                Some(index) => format!("entry {}: {detail}", index + 1),
                None => detail.to_owned(),
            }
        })
        .collect()
}

/// A name as long as a line bears; input is shown back, but not 300 characters of it.
pub(crate) fn shorten(text: &str) -> String {
    const SHOWN_MAX: usize = 70;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The exit code of an answer. Codes decide where they say more than the status.
pub(crate) fn exit_of(status: u16, code: &str) -> Exit {
    match code {
        "fenced" => return Exit::Fenced,
        "not_initialised" => return Exit::NotFound,
        "count_mismatch" => return Exit::Usage,
        "database_busy" | "connections_max" | "queue_full" => return Exit::Conflict,
        _ => {}
    }
    match status {
        401 | 403 => Exit::NotAuthorised,
        404 | 410 => Exit::NotFound,
        409 | 412 | 423 | 428 | 429 => Exit::Conflict,
        400 | 405 | 406 | 411 | 413 | 414 | 415 | 422 => Exit::Usage,
        502..=504 => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn problems_become_the_documented_exit_codes() {
        for (status, code, exit) in [
            (422, "invalid", Exit::Usage),
            (409, "count_mismatch", Exit::Usage),
            (404, "not_found", Exit::NotFound),
            (404, "backup_not_found", Exit::NotFound),
            (409, "already_exists", Exit::Conflict),
            (409, "protected", Exit::Conflict),
            (503, "fenced", Exit::Fenced),
            (401, "unauthenticated", Exit::NotAuthorised),
            (403, "forbidden", Exit::NotAuthorised),
            (503, "catalog_unavailable", Exit::Unreachable),
            (500, "internal", Exit::Failed),
        ] {
            let problem = json!({"code": code, "detail": "d", "next_steps": ["x"]});
            let failure = Failure::from_problem(status, &problem);
            assert_eq!((failure.exit, failure.what.as_str()), (exit, "d"), "{status} {code}");
            assert_eq!(failure.tries[0], "x");
        }
    }

    #[test]
    fn every_bad_entry_of_a_batch_is_named_as_people_count() {
        let problem = json!({"code": "invalid", "detail": "2 names are wrong",
            "errors": [{"index": 0, "name": "..", "detail": "'..' is no name"}, {"detail": "too many"}]});
        assert_eq!(Failure::from_problem(422, &problem).causes, ["entry 1: '..' is no name", "too many"]);
    }

    #[test]
    fn what_is_shown_back_is_cut() {
        assert_eq!(shorten("short"), "short");
        assert_eq!(shorten(&"é".repeat(300)).chars().count(), 71);
    }

    #[test]
    fn a_body_that_is_no_problem_still_says_its_status() {
        let failure = Failure::from_problem(502, &Value::Null);
        assert_eq!(failure.what, "HTTP status 502");
        assert!(failure.causes[0].contains("not a control plane"), "{failure:?}");
    }
}
