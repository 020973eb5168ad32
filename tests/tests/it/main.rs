//! Whole-system tests: one binary, a module per subject.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod cli_offline;
mod shell;
mod tidy;
