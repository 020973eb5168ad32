//! The connections of tenants' requests: [`Requests`] opens pools (`pool.rs`), whose sessions (`session.rs`,
//! `transaction.rs`, `statement.rs`) borrow connections (`lease.rs`) that all pools of one server share (`host.rs`,
//! decided by `budget.rs`).

#[cfg(feature = "test-util")]
use super::logins;
use super::{error, functions, identity, reassert, server, settings};

mod account;
mod budget;
pub(super) mod capacity;
mod connection;
mod facts;
mod fault;
#[cfg(feature = "test-util")]
pub mod fixture;
mod host;
mod lease;
mod lexer;
mod meters;
mod moment;
mod numeric;
mod opener;
mod pace;
mod pool;
mod report;
mod sandbox;
mod session;
mod statement;
mod tally;
mod transaction;
mod value;

pub use pool::{PostgresPool, RequestOptions, Requests};
pub use report::ServerReport;
pub use session::PostgresSession;
pub use tally::Reason;
