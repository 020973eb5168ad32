//! What serves tenants' requests: pools, sessions, transactions and the checks of each statement.
//!
//! `workers.rs` has the threads on which all SQLite calls run, also those of engine operations. `budget.rs` limits the
//! open connections of the process.

pub(super) mod budget;
mod commit_decision;
mod connection;
mod lanes;
mod lease;
pub(super) mod lent;
mod log;
mod own_statement;
pub(super) mod pool;
mod row_cells;
mod sandbox;
pub(super) mod session;
mod statement;
pub(super) mod streaming;
pub(super) mod transaction;
pub(super) mod transaction_deadlines;
pub(super) mod workers;
