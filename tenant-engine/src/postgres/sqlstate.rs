//! PURE: what an SQLSTATE means (appendix A of PostgreSQL's manual), and whether the server or a function chose it.
//!
//! A function can raise any state with any text, so a state alone proves nothing about the server. A function cannot
//! forge two facts: where in the server's source the error was made, and whether the session continues after it.

use crate::error::ErrorKind;

/// An error as the server sent it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ServerErrorReport<'a> {
    pub(super) state: &'a str,
    pub(super) message: &'a str,
    /// The source file and the function of the server that reported the error.
    pub(super) file: &'a str,
    pub(super) routine: &'a str,
    /// True when the server ends the session with this error (severity FATAL or PANIC).
    pub(super) ends_session: bool,
}

/// Prefixes of the source files of languages for functions. An error from there was raised by the author (`raise`,
/// `assert`, `plpy.error`, `die`), or is another language's error with any state.
const LANGUAGES: [&str; 5] = ["pl_exec.c", "plpy_", "plperl", "pltcl", "plv8"];

/// Prefixes of functions that pass on the message of another server, with its state.
const PASSED_ON: [&str; 2] = ["pgfdw_", "dblink_"];

impl ServerErrorReport<'_> {
    /// True when SQL chose the state, so that it says nothing about this server.
    pub(super) fn is_raised(&self) -> bool {
        let file = self.file.rsplit('/').next().unwrap_or_default();
        LANGUAGES.iter().any(|language| file.starts_with(language))
            || PASSED_ON.iter().any(|routine| self.routine.starts_with(routine))
    }

    /// The kind of error for the caller.
    pub(super) fn kind(&self) -> ErrorKind {
        if self.is_raised() {
            return raised_kind(self.state);
        }
        match (self.ends_session, self.state) {
            (_, "08P01") => ErrorKind::ParameterMismatch,
            // A parallel worker was ended; the session and the server continue.
            (false, "57P01" | "57P02" | "57P04" | "57P05") => ErrorKind::Busy,
            // The server reports these about itself only when it ends the session. Otherwise a statement reached
            // another server.
            (false, state) if ["08", "28"].iter().any(|class| state.starts_with(class)) => ErrorKind::SqlInvalid,
            (false, "53300" | "57P03" | "25P03" | "25P04") => ErrorKind::SqlInvalid,
            _ => self.of_server(),
        }
    }

    /// The kind of an error of this server. Where one state has several meanings, the English message only decides
    /// between kinds of refusal.
    fn of_server(&self) -> ErrorKind {
        let has = |words: &str| self.message.contains(words);
        match self.state {
            "28000" if has("encryption") || has("SSL") => ErrorKind::ServerTls,
            "28000" | "28P01" => ErrorKind::ServerAuthFailed,
            "3D000" => ErrorKind::Missing,
            "42P04" => ErrorKind::AlreadyExists,
            "53300" => ErrorKind::ServerFull,
            "53100" => ErrorKind::DiskFull,
            "53200" => ErrorKind::MemoryMax,
            // `temp_file_limit`.
            "53400" => ErrorKind::BytesMax,
            "57P01" | "57P02" | "57P05" | "25P03" => ErrorKind::ConnectionLost,
            "57P03" => ErrorKind::ServerUnreachable,
            "57014" | "25P04" => ErrorKind::DeadlineExceeded,
            "XX000" => internal_kind(self.message),
            // The database was closed (ALLOW_CONNECTIONS false), or it is being made.
            "55000" if has("accepting connections") => ErrorKind::Busy,
            // Other sessions use the object. A session that uses its own object has to end that use itself.
            "55006" if self.routine != "CheckTableNotInUse" => ErrorKind::Busy,
            "55P03" | "40001" | "40P01" => ErrorKind::Busy,
            "25006" => ErrorKind::ReadOnlyTransaction,
            "42501" => ErrorKind::SqlForbidden,
            "XX001" | "XX002" => ErrorKind::Corrupt,
            "54001" | "54011" | "54023" => ErrorKind::SqlTooComplex,
            // The file is a library that a statement names, not a file of a table.
            "58P01" if self.file.ends_with("dfmgr.c") || self.file.ends_with("extension.c") => ErrorKind::SqlInvalid,
            state => of_class(state),
        }
    }
}

/// An unknown state is about the statement, because the server's own faults have classes of their own.
fn of_class(state: &str) -> ErrorKind {
    match state.get(..2).unwrap_or_default() {
        "08" => ErrorKind::ConnectionLost,
        "23" | "44" => ErrorKind::Constraint,
        "25" | "2D" => ErrorKind::SqlForbidden,
        "53" => ErrorKind::Busy,
        "57" | "58" => ErrorKind::Io,
        "" | "F0" | "XX" => ErrorKind::Internal,
        _ => ErrorKind::SqlInvalid,
    }
}

/// The kind for a state that a function raised.
fn raised_kind(state: &str) -> ErrorKind {
    match of_class(state) {
        ErrorKind::Constraint => ErrorKind::Constraint,
        _ if state == "42501" => ErrorKind::SqlForbidden,
        _ => ErrorKind::SqlInvalid,
    }
}

/// The server's messages when two sessions change the same catalog object at once.
const CHANGED_BY_OTHERS: [&str; 7] = [
    "tuple concurrently updated",
    "tuple concurrently deleted",
    "tuple already updated by self",
    "could not open relation with OID",
    "cache lookup failed for",
    "could not find tuple for",
    "was concurrently dropped",
];

/// `internal_error` is the state of every error that has no state of its own.
fn internal_kind(message: &str) -> ErrorKind {
    match message {
        _ if is_changed_by_others(message) => ErrorKind::Busy,
        // A value of the statement exceeds the maximum size of any value.
        _ if message.starts_with("invalid memory alloc request size") => ErrorKind::BytesMax,
        _ => ErrorKind::Internal,
    }
}

/// True for the message of a change that conflicted with another one. Nothing was done, and the same call may succeed.
pub(super) fn is_changed_by_others(message: &str) -> bool {
    CHANGED_BY_OTHERS.iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fatal(state: &str, message: &str) -> ErrorKind {
        ServerErrorReport { state, message, ends_session: true, ..ServerErrorReport::default() }.kind()
    }

    fn error(state: &str, message: &str) -> ErrorKind {
        ServerErrorReport { state, message, ..ServerErrorReport::default() }.kind()
    }

    #[test]
    fn states_that_end_a_session_mean_what_the_manual_says() {
        for (state, kind) in [
            ("28P01", ErrorKind::ServerAuthFailed),
            ("53300", ErrorKind::ServerFull),
            ("57P01", ErrorKind::ConnectionLost),
            ("57P03", ErrorKind::ServerUnreachable),
            ("3D000", ErrorKind::Missing),
            ("08006", ErrorKind::ConnectionLost),
            ("", ErrorKind::Internal),
        ] {
            assert_eq!(fatal(state, ""), kind, "{state}");
        }
        let hba = "no pg_hba.conf entry for host \"127.0.0.1\", user \"u\", database \"d\", no encryption";
        assert_eq!(fatal("28000", hba), ErrorKind::ServerTls);
        assert_eq!(fatal("55000", "database \"d\" is not currently accepting connections"), ErrorKind::Busy);
    }

    #[test]
    fn states_of_a_statement_are_its_own_fault_or_the_server_s() {
        for (state, message, kind) in [
            ("23505", "", ErrorKind::Constraint),
            ("42703", "", ErrorKind::SqlInvalid),
            ("42501", "", ErrorKind::SqlForbidden),
            ("54001", "", ErrorKind::SqlTooComplex),
            ("54000", "", ErrorKind::SqlInvalid),
            ("55000", "", ErrorKind::SqlInvalid),
            ("3F000", "", ErrorKind::SqlInvalid),
            ("28000", "", ErrorKind::SqlInvalid),
            ("08001", "", ErrorKind::SqlInvalid),
            ("53300", "", ErrorKind::SqlInvalid),
            ("57P01", "", ErrorKind::Busy),
            ("53100", "", ErrorKind::DiskFull),
            ("XX001", "", ErrorKind::Corrupt),
            ("XX000", "tuple concurrently deleted", ErrorKind::Busy),
            ("XX000", "invalid memory alloc request size 2147483648", ErrorKind::BytesMax),
            ("XX000", "unexpected", ErrorKind::Internal),
        ] {
            assert_eq!(error(state, message), kind, "{state}");
        }
    }

    #[test]
    fn a_raised_state_is_never_the_server_s() {
        for file in ["pl_exec.c", "./pl_exec.c", "plpy_elog.c", "plperl.c", "pltcl.c"] {
            for state in ["57P01", "53300", "XX001", "28P01", "53100", "58030", "40001", "08006", "54000", "ABCDE"] {
                for ends_session in [false, true] {
                    let report = ServerErrorReport { state, file, ends_session, ..ServerErrorReport::default() };
                    assert_eq!(report.kind(), ErrorKind::SqlInvalid, "{file} {state}");
                }
            }
        }
    }
}
