//! Whole-system tests: one binary, a module per subject.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod catalog_postgres;
mod cli_contract;
mod cli_input;
mod cli_offline;
mod cli_process;
mod cli_terminal;
mod doctor;
mod faults;
mod full_disk;
mod hostile_sql;
mod isolation;
mod kill;
mod lifecycle;
mod lifecycle_faults;
mod metrics;
mod network_disk;
mod older_fleet;
mod open_files;
mod pinning;
mod places;
mod postgres;
mod postgres_copies;
mod process_died;
mod readme;
mod s3;
mod scrubbing;
mod shell;
mod split_fleet;
mod tidy;
mod unseen;
