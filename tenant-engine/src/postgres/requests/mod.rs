//! The connections of tenants' requests. [`RequestConnections`] opens pools (`pool.rs`). Their sessions (`session.rs`,
//! `transaction.rs`, `statement.rs`) borrow connections (`lease.rs`) that all pools of one server share
//! (`server_pool.rs`); `budget.rs` decides which session gets one.

mod budget;
pub(super) mod capacity;
mod connection;
mod connection_metrics;
mod counters;
#[cfg(feature = "test-util")]
pub mod fixture;
mod lease;
mod lent;
mod lexer;
mod numeric;
mod opener;
mod own_statement;
mod pool;
mod report;
mod sandbox;
mod server_health;
pub(super) mod server_limits;
mod server_pool;
mod session;
mod statement;
mod statement_fault;
mod streaming;
mod tenant_share;
mod timestamps;
mod transaction;
mod value;

pub use counters::CloseReason;
pub use lent::PostgresLentTx;
pub use pool::{PostgresPool, RequestConnections, RequestOptions};
pub use report::ServerReport;
pub use session::PostgresSession;
