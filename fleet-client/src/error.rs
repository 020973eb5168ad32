//! Errors of requests: what the API refused, and what kept a request from being answered.

use std::fmt;
use std::time::Duration;

use fleet_api::field;
use fleet_api::problem::{BadLine, ProblemBody};
use serde_json::Value;

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Codes of refusals that end without the caller's help.
const PASSING_CODES: [&str; 2] = [IN_PROGRESS, "operation_in_progress"];
/// The code for a repeated request whose first attempt is still running.
pub(crate) const IN_PROGRESS: &str = "idempotency_in_progress";

/// The kind of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The API refused the request. The error has the code of the API's problem.
    Refused,
    /// No program accepts connections at the address.
    NotListening,
    /// The control plane did not answer in time.
    NoAnswer,
    /// The connection failed, or broke before the answer ended.
    ConnectionFailed,
    /// The socket of a server on this machine did not answer.
    SocketFailed,
    /// The address or the token cannot be sent in a request.
    InvalidAddress,
    /// The program at the address is not a control plane.
    OtherProgram,
    /// An error that is not a problem of the API, for instance of a proxy.
    NoProblem,
    /// The answer ended too early.
    AnswerCut,
    /// This version does not understand the answer.
    UnexpectedAnswer,
    /// HTTP or TLS could not be set up.
    SetupFailed,
    /// An argument is not valid; nothing was sent.
    Invalid,
    /// The operation ended without success.
    OperationFailed,
    /// An operator paused the operation.
    OperationPaused,
    /// The time to wait is over; the operation continues.
    StillRunning,
    /// The tenant exists and is not active.
    NotActive,
    /// The sign-up was finished, and its first member or its token has ended since.
    SignUpOver,
}

impl ErrorKind {
    /// The code of an error that this crate itself finds.
    fn own_code(self) -> &'static str {
        match self {
            Self::NotListening | Self::NoAnswer | Self::ConnectionFailed | Self::SocketFailed => "unreachable",
            Self::InvalidAddress => "invalid_address",
            Self::OtherProgram | Self::NoProblem => "other_program",
            Self::Refused | Self::AnswerCut | Self::UnexpectedAnswer => "unexpected_answer",
            Self::SetupFailed => "setup_failed",
            Self::Invalid => "invalid",
            Self::OperationFailed => "operation_failed",
            Self::OperationPaused => "operation_paused",
            Self::StillRunning => "still_running",
            Self::NotActive => "not_active",
            Self::SignUpOver => "sign_up_over",
        }
    }
}

/// A failed request: code, description, causes, and advice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Box<ErrorParts>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct ErrorParts {
    kind: ErrorKind,
    code: String,
    detail: String,
    causes: Vec<String>,
    next_steps: Vec<String>,
    status: Option<u16>,
    retry_after: Option<Duration>,
    operation_id: Option<String>,
}

impl Error {
    /// An error of this kind, with the kind's own code.
    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self(Box::new(ErrorParts {
            kind,
            code: kind.own_code().to_owned(),
            detail: detail.into(),
            causes: Vec::new(),
            next_steps: Vec::new(),
            status: None,
            retry_after: None,
            operation_id: None,
        }))
    }

    /// The error of an unsuccessful answer with this HTTP status and JSON body. Null stands for another body.
    #[must_use]
    pub fn from_problem(status: u16, problem: &Value) -> Self {
        let text = |key: &str| problem.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let named = [text(field!(ProblemBody: detail)), text(field!(ProblemBody: title))];
        let detail = named.into_iter().find(|t| !t.is_empty()).unwrap_or_else(|| format!("HTTP status {status}"));
        let code = text(field!(ProblemBody: code));
        let mut error = match code.is_empty() {
            true => Self::new(ErrorKind::NoProblem, detail),
            false => Self::new(ErrorKind::Refused, detail),
        };
        error.0.status = Some(status);
        error.0.causes = problem_details(problem);
        let steps = problem.get(field!(ProblemBody: next_steps)).and_then(Value::as_array).into_iter().flatten();
        error.0.next_steps = steps.filter_map(Value::as_str).map(str::to_owned).collect();
        if code.is_empty() {
            return error
                .with_cause("the program that answered is not a control plane; it may be a proxy")
                .try_next("check that this is the address of the admin API");
        }
        error.0.code = code;
        error
    }

    /// The control plane sent an answer that this version cannot read.
    pub(crate) fn unexpected_answer(detail: impl Into<String>) -> Self {
        let error = Self::new(ErrorKind::UnexpectedAnswer, detail);
        error.with_cause("this version does not understand the control plane's answer")
    }

    /// The answer ended too early.
    pub fn answer_cut(cause: impl fmt::Display) -> Self {
        Self::new(ErrorKind::AnswerCut, "the answer was cut short").with_cause(cause)
    }

    pub(crate) fn with_cause(mut self, cause: impl fmt::Display) -> Self {
        self.0.causes.push(cause.to_string());
        self
    }

    pub(crate) fn try_next(mut self, step: impl Into<String>) -> Self {
        self.0.next_steps.push(step.into());
        self
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.0.status = Some(status);
        self
    }

    pub(crate) fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.0.retry_after = retry_after;
        self
    }

    pub(crate) fn of_operation(mut self, id: &str) -> Self {
        self.0.operation_id = Some(id.to_owned());
        self
    }

    /// The kind of the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The code, for programs: of the API's problem, such as `already_exists`, or of this crate, such as `unreachable`.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// Description of the error, for people.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The causes, the nearest first; also the wrong entries of a list in the request.
    #[must_use]
    pub fn causes(&self) -> &[String] {
        &self.0.causes
    }

    /// Advice, most helpful first.
    #[must_use]
    pub fn next_steps(&self) -> &[String] {
        &self.0.next_steps
    }

    /// The HTTP status of the answer; `None` when there was no answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The time after which the server wants the request to be repeated; `None` if it named none.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Id of the operation that failed, is paused or continues: `op_…`. `None` for other errors.
    #[must_use]
    pub fn operation_id(&self) -> Option<&str> {
        self.0.operation_id.as_deref()
    }

    /// True when the same call may succeed later although nobody changes anything.
    ///
    /// The first attempt may have been carried out. So repeat a change with the same idempotency key.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        use ErrorKind::{
            AnswerCut, ConnectionFailed, NoAnswer, NoProblem, NotListening, Refused, SocketFailed, StillRunning,
        };
        match self.0.kind {
            NotListening | NoAnswer | ConnectionFailed | SocketFailed | AnswerCut | StillRunning => true,
            Refused | NoProblem => {
                let passing_status = matches!(self.0.status, Some(429 | 502..=504));
                passing_status || self.0.retry_after.is_some() || PASSING_CODES.contains(&self.code())
            }
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.detail)?;
        for cause in &self.0.causes {
            write!(f, "; cause: {cause}")?;
        }
        match self.0.next_steps.first() {
            Some(step) => write!(f, "; try: {step}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// The lines of a problem's `errors`, which name each wrong input.
fn problem_details(problem: &Value) -> Vec<String> {
    let errors = problem.get(field!(ProblemBody: errors)).and_then(Value::as_array).into_iter().flatten();
    errors
        .map(|e| {
            let detail = e.get(field!(BadLine: detail)).and_then(Value::as_str).unwrap_or_default();
            match e.get(field!(BadLine: index)).and_then(Value::as_u64) {
                Some(index) => format!("entry {}: {detail}", index + 1),
                None => detail.to_owned(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_bad_entry_of_a_batch_is_named_as_people_count() {
        let problem = json!({"code": "invalid", "detail": "2 names are wrong",
            "errors": [{"index": 0, "name": "..", "detail": "'..' is no name"}, {"detail": "too many"}]});
        let error = Error::from_problem(422, &problem);
        assert_eq!(error.causes(), ["entry 1: '..' is no name", "too many"]);
        assert_eq!((error.code(), error.status(), error.is_transient()), ("invalid", Some(422), false));
    }

    #[test]
    fn a_refusal_that_passes_by_itself_is_transient() {
        for (status, code, transient) in [
            (503, "shutting_down", true),
            (409, "idempotency_in_progress", true),
            (409, "operation_in_progress", true),
            (409, "already_exists", false),
            (507, "disk_full", false),
            (500, "internal", false),
        ] {
            let error = Error::from_problem(status, &json!({"code": code, "detail": "d"}));
            assert_eq!(error.is_transient(), transient, "{status} {code}");
            assert!(error.with_retry_after(Some(Duration::from_secs(1))).is_transient());
        }
    }

    #[test]
    fn a_body_that_is_no_problem_still_says_its_status() {
        let error = Error::from_problem(502, &Value::Null);
        assert_eq!(
            (error.kind(), error.detail(), error.is_transient()),
            (ErrorKind::NoProblem, "HTTP status 502", true)
        );
        assert!(error.to_string().contains("not a control plane"), "{error}");
    }
}
