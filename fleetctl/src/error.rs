//! Failures of a command and their exit codes. Only `output` prints them.

use std::fmt;

use control_plane::ErrorKind;
use tenant_engine::ErrorKind as DatabaseError;

/// The result of every fallible function of this crate.
pub(crate) type Result<T, E = CommandFailure> = std::result::Result<T, E>;

/// The exit codes that scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CommandExit {
    /// Everything requested was done.
    Done = 0,
    /// The command failed, for all of the tenants.
    Failed = 1,
    /// Wrong flags, wrong input, or a missing confirmation.
    Usage = 2,
    /// Some tenants failed.
    Partial = 3,
    /// A check found a problem.
    Found = 4,
    /// A named object does not exist.
    NotFound = 5,
    /// Waiting took too long; the operation continues.
    TimedOut = 6,
    /// A name is taken, an object is busy or protected, or another run holds the lock.
    Conflict = 7,
    /// The database is not the one that the catalog expects.
    Fenced = 8,
    /// The token does not allow the request.
    NotAuthorised = 12,
    /// The control plane cannot be reached.
    Unreachable = 15,
    /// The user pressed Ctrl-C.
    Interrupted = 130,
}

impl From<CommandExit> for std::process::ExitCode {
    fn from(exit: CommandExit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command stopped: the error, its causes, and the next steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandFailure {
    pub(crate) exit: CommandExit,
    /// A code that `fleetctl explain` knows; empty when there is none.
    pub(crate) code: String,
    pub(crate) what: String,
    pub(crate) causes: Vec<String>,
    pub(crate) tries: Vec<String>,
}

impl CommandFailure {
    pub(crate) fn new(exit: CommandExit, what: impl Into<String>) -> Self {
        Self { exit, code: String::new(), what: what.into(), causes: Vec::new(), tries: Vec::new() }
    }

    /// Wrong flags or wrong input; nothing was done.
    pub(crate) fn usage_error(what: impl Into<String>) -> Self {
        Self::new(CommandExit::Usage, what)
    }

    /// The control plane sent an answer that this program cannot read.
    pub(crate) fn unexpected_answer(what: impl Into<String>) -> Self {
        Self::new(CommandExit::Failed, what).with_cause("this version does not understand the control plane's answer")
    }

    #[must_use]
    pub(crate) fn code(mut self, code: impl Into<String>) -> Self {
        self.code = code.into();
        self
    }

    #[must_use]
    pub(crate) fn with_cause(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    #[must_use]
    pub(crate) fn try_next(mut self, step: impl Into<String>) -> Self {
        self.tries.push(step.into());
        self
    }

    /// Adds all of these steps.
    #[must_use]
    fn try_all(mut self, steps: &[String]) -> Self {
        self.tries.extend_from_slice(steps);
        self
    }

    /// Adds a step before those named so far.
    #[must_use]
    pub(crate) fn try_first(mut self, step: impl Into<String>) -> Self {
        self.tries.insert(0, step.into());
        self
    }
}

impl From<fleet_client::Error> for CommandFailure {
    fn from(error: fleet_client::Error) -> Self {
        use fleet_client::ErrorKind as Kind;
        let mut out = Self::new(exit_of_client(&error), error.detail());
        out.causes = error.causes().to_vec();
        match error.kind() {
            Kind::Refused => out = out.code(error.code()).try_all(error.next_steps()),
            Kind::Invalid => out = out.code(error.code()),
            Kind::NoProblem => {
                out = out.try_next("check that this is the address of the admin API: fleetctl config show --origin");
            }
            Kind::SocketFailed => out = out.try_all(error.next_steps()),
            Kind::OtherProgram => out = out.try_all(error.next_steps()).try_next(ORIGIN),
            Kind::InvalidAddress | Kind::ConnectionFailed => {
                let steps: Vec<String> = error.next_steps().iter().map(|step| format!("{step} in --url")).collect();
                out = out.try_all(&steps).try_next(ORIGIN);
            }
            // A connection that was refused is not caused by the wrong scheme.
            Kind::NotListening | Kind::NoAnswer => out = out.try_next(ORIGIN),
            _ => {}
        }
        out
    }
}

/// The step for an address that may be the wrong one.
const ORIGIN: &str = "fleetctl config show --origin      # says where the address comes from";

/// The exit code of a request that failed. An answer that does not come from a control plane says nothing about the
/// requested object.
fn exit_of_client(error: &fleet_client::Error) -> CommandExit {
    use fleet_client::ErrorKind as Kind;
    match (error.kind(), error.status()) {
        (Kind::Refused, status) => exit_of(status.unwrap_or_default(), error.code()),
        (Kind::NoProblem, Some(401 | 403)) | (Kind::OtherProgram, Some(401 | 403 | 407)) => CommandExit::NotAuthorised,
        (Kind::NoProblem | Kind::OtherProgram, _) => CommandExit::Unreachable,
        (Kind::NotListening | Kind::NoAnswer | Kind::ConnectionFailed | Kind::SocketFailed, _) => {
            CommandExit::Unreachable
        }
        (Kind::InvalidAddress | Kind::Invalid, _) => CommandExit::Usage,
        _ => CommandExit::Failed,
    }
}

impl From<control_plane::Error> for CommandFailure {
    fn from(error: control_plane::Error) -> Self {
        let status = control_plane::http::status_of(&error.kind).as_u16();
        let mut out = Self::new(exit_of(status, error.code()), error.detail.clone()).code(error.code());
        for cause in error.cause_messages() {
            let said = |text: &String| text.contains(&cause);
            if !said(&out.what) && !out.causes.iter().any(said) {
                out.causes.push(cause);
            }
        }
        out.tries = error.next_steps;
        out
    }
}

/// Shortens user input to fit one line of a message.
pub(crate) fn shorten_text(text: &str) -> String {
    const SHOWN_MAX: usize = 70;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Whether a code is that of one of these kinds. The API sends codes, and several kinds may share one.
pub(crate) fn is_code_of(code: &str, kinds: &[ErrorKind]) -> bool {
    kinds.iter().any(|kind| kind.code() == code)
}

/// The exit codes of the kinds for which the status is not specific enough.
const EXITS_BY_KIND: [(ErrorKind, CommandExit); 6] = [
    (ErrorKind::DatabaseFenced, CommandExit::Fenced),
    (ErrorKind::NotInitialised, CommandExit::NotFound),
    (ErrorKind::CountMismatch, CommandExit::Usage),
    (ErrorKind::Engine(DatabaseError::Busy), CommandExit::Conflict),
    (ErrorKind::Engine(DatabaseError::ConnectionsMax), CommandExit::Conflict),
    (ErrorKind::Engine(DatabaseError::QueueFull), CommandExit::Conflict),
];

/// The exit code of an answer. The error code decides where it is more specific than the status.
pub(crate) fn exit_of(status: u16, code: &str) -> CommandExit {
    if let Some((_, exit)) = EXITS_BY_KIND.iter().find(|(kind, _)| kind.code() == code) {
        return *exit;
    }
    match status {
        401 | 403 => CommandExit::NotAuthorised,
        404 | 410 => CommandExit::NotFound,
        409 | 412 | 423 | 428 | 429 => CommandExit::Conflict,
        400 | 405 | 406 | 411 | 413 | 414 | 415 | 422 => CommandExit::Usage,
        502..=504 => CommandExit::Unreachable,
        _ => CommandExit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn from_problem(status: u16, problem: &Value) -> CommandFailure {
        fleet_client::Error::from_problem(status, problem).into()
    }

    #[test]
    fn problems_become_the_documented_exit_codes() {
        for (status, code, exit) in [
            (422, "invalid", CommandExit::Usage),
            (409, "count_mismatch", CommandExit::Usage),
            (404, "not_found", CommandExit::NotFound),
            (404, "backup_not_found", CommandExit::NotFound),
            (409, "already_exists", CommandExit::Conflict),
            (409, "protected", CommandExit::Conflict),
            (409, "plan_in_use", CommandExit::Conflict),
            (503, "fenced", CommandExit::Fenced),
            (401, "unauthenticated", CommandExit::NotAuthorised),
            (403, "forbidden", CommandExit::NotAuthorised),
            (503, "catalog_unavailable", CommandExit::Unreachable),
            (500, "not_initialised", CommandExit::NotFound),
            (503, "database_busy", CommandExit::Conflict),
            (503, "connections_max", CommandExit::Conflict),
            (429, "queue_full", CommandExit::Conflict),
            (500, "internal", CommandExit::Failed),
        ] {
            let problem = json!({"code": code, "detail": "d", "next_steps": ["x"]});
            let failure = from_problem(status, &problem);
            assert_eq!((failure.exit, failure.what.as_str()), (exit, "d"), "{status} {code}");
            assert_eq!(failure.tries[0], "x");
        }
    }

    #[test]
    fn what_is_shown_back_is_cut() {
        assert_eq!(shorten_text("short"), "short");
        assert_eq!(shorten_text(&"é".repeat(300)).chars().count(), 71);
    }

    #[test]
    fn a_body_that_is_no_problem_still_says_its_status() {
        let failure = from_problem(502, &Value::Null);
        assert_eq!(failure.what, "HTTP status 502");
        assert!(failure.causes[0].contains("not a control plane"), "{failure:?}");
    }
}
