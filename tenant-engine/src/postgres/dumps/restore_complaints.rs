//! PURE: parses the complaints of `pg_restore --verbose` line by line: which entries of a dump it could not restore,
//! and why. Values of rows, which the server shows in its detail, are not kept.

use std::collections::BTreeSet;

/// Characters kept of one reason, for people.
const REASON_CHARACTERS_MAX: usize = 400;
/// The program's own lines begin with this; further lines of the server do not.
const OWN: &str = "pg_restore: ";

/// The complaints of one run.
#[derive(Debug, Default)]
pub(super) struct RestoreComplaints {
    /// Numbers of the failed entries.
    failed: BTreeSet<u32>,
    /// The first failure: its entry, if it has one, and its reason.
    first: Option<(Option<String>, String)>,
    /// The entry that the next error refers to.
    entry: Option<String>,
    /// Whether the following lines belong to the first failure.
    in_first: bool,
}

impl RestoreComplaints {
    /// Processes the next line.
    pub(super) fn take_line(&mut self, line: &str) {
        let Some(own) = line.strip_prefix(OWN) else { return self.add_context(line) };
        self.in_first = false;
        if let Some(entry) = own.strip_prefix("from TOC entry ") {
            self.failed.extend(entry.split_once(';').and_then(|(number, _)| number.parse::<u32>().ok()));
            self.entry = Some(entry_object(entry));
        } else if let Some(reason) = own.strip_prefix("error: ")
            && self.first.is_none()
        {
            let reason = reason
                .split_once("ERROR:  ")
                .or_else(|| reason.split_once("FATAL:  "))
                .map_or(reason, |(_, server)| server);
            self.first = Some((self.entry.take(), reason.chars().take(REASON_CHARACTERS_MAX).collect()));
            self.in_first = true;
        }
    }

    /// Adds context: a hint says what to do, and a function's name says where it happened.
    fn add_context(&mut self, line: &str) {
        let function = line.strip_prefix("CONTEXT:  ").filter(|context| is_function(context));
        if let (true, Some(context), Some((_, reason))) = (self.in_first, function, &mut self.first) {
            reason.push_str(&format!(" ({context})").chars().take(REASON_CHARACTERS_MAX).collect::<String>());
            self.in_first = false;
        }
    }

    /// The first failed entry, as `TABLE DATA box`; `None` when the failure had no entry.
    pub(super) fn failed_entry(&self) -> Option<&str> {
        self.first.as_ref().and_then(|(entry, _)| entry.as_deref())
    }

    /// The first failure in one line.
    pub(super) fn first_failure(&self) -> Option<String> {
        self.first.as_ref().map(|(entry, reason)| format!("{}: {reason}", entry.as_deref().unwrap_or("pg_restore")))
    }

    /// Whether this line of a list names a failed entry.
    pub(super) fn is_about(&self, line: &str) -> bool {
        let number = line.split_once(';').and_then(|(number, _)| number.parse().ok());
        number.is_some_and(|number: u32| self.failed.contains(&number))
    }

    /// The reason of the first failure.
    pub(super) fn first_reason(&self) -> Option<&str> {
        self.first.as_ref().map(|(_, reason)| reason.as_str())
    }
}

fn is_function(context: &str) -> bool {
    context.starts_with("SQL function ") || context.starts_with("PL/pgSQL function ")
}

/// `3371; 0 16404 TABLE DATA a_ref fleet_owner` without its numbers and its owner.
fn entry_object(entry: &str) -> String {
    let words = entry.splitn(4, ' ').nth(3).unwrap_or(entry);
    words.rsplit_once(' ').map_or(words, |(object, _owner)| object).chars().take(REASON_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> RestoreComplaints {
        let mut complaints = RestoreComplaints::default();
        text.lines().for_each(|line| complaints.take_line(line));
        complaints
    }

    #[test]
    fn entries_and_the_first_reason_are_found() {
        let found = complaints(
            "pg_restore: creating TABLE \"public.gen\"\n\
             pg_restore: while PROCESSING TOC:\n\
             pg_restore: from TOC entry 216; 1259 16410 TABLE gen own\n\
             pg_restore: error: could not execute query: ERROR:  function one() does not exist\n\
             LINE 1: select one() + i\n\
             HINT:  No function matches the given name and argument types.\n\
             CONTEXT:  SQL function \"plus\" during inlining\n\
             Command was: CREATE TABLE public.gen (\n\
             pg_restore: from TOC entry 3371; 0 16404 TABLE DATA a_ref own\n\
             pg_restore: error: COPY failed for table \"a_ref\": ERROR:  new row violates\n\
             DETAIL:  Failing row contains (secret).\n\
             pg_restore: warning: errors ignored on restore: 2",
        );
        assert_eq!(found.failed, BTreeSet::from([216, 3371]));
        assert_eq!(found.failed_entry(), Some("TABLE gen"));
        assert_eq!(found.first_reason(), Some("function one() does not exist (SQL function \"plus\" during inlining)"));
    }

    #[test]
    fn a_failure_of_no_entry_is_told_and_the_values_of_rows_are_not() {
        let found =
            complaints("pg_restore: error: connection to server at \"::1\" failed: FATAL:  no pg_hba.conf entry");
        assert_eq!((found.failed_entry(), found.first_reason()), (None, Some("no pg_hba.conf entry")));
        let found = complaints("pg_restore: error: ERROR:  x\nDETAIL:  secret\nCONTEXT:  COPY t, line 1: \"secret\"");
        assert_eq!(found.first_reason(), Some("x"));
        assert_eq!(complaints("pg_restore: connecting to database for restore").first_reason(), None);
    }
}
