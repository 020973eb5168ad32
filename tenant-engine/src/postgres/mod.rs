//! PostgreSQL: one database per tenant on servers that hold many.
//!
//! [`PostgresServer`] knows how to enter a server (`dsn.rs`) and which logins its databases have (`logins.rs`);
//! `identity.rs` reads whose a database is; `error.rs` says what a failure means.
//! Requests: [`Requests`] opens pools (`pool.rs`), whose sessions (`session.rs`, `transaction.rs`, `statement.rs`) borrow
//! connections (`lease.rs`) that all pools of one server share (`host.rs`, decided by `budget.rs`).

mod account;
mod budget;
mod capacity;
mod connection;
#[cfg_attr(not(test), expect(dead_code, reason = "the verbs come next"))]
mod dsn;
mod error;
mod facts;
mod fault;
#[cfg(feature = "test-util")]
pub mod fixture;
mod host;
mod identity;
mod lease;
mod lexer;
mod logins;
mod meters;
mod moment;
mod numeric;
mod opener;
mod pace;
mod pool;
mod report;
mod sandbox;
mod server;
mod session;
mod statement;
mod tally;
mod transaction;
mod value;

pub use pool::{PostgresPool, RequestOptions, Requests};
pub use report::ServerReport;
pub use server::PostgresServer;
pub use session::PostgresSession;
pub use tally::Reason;
