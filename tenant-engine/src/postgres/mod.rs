//! PostgreSQL: one database per tenant on servers that hold many.
//!
//! [`PostgresServer`] knows how to enter a server (`dsn.rs`) and which logins its databases have (`logins.rs`);
//! `identity.rs` reads whose a database is; `error.rs` says what a failure means.
#![expect(dead_code, reason = "the verbs and pools on top of these come next")]

mod dsn;
mod error;
mod identity;
mod logins;
mod server;

pub use server::PostgresServer;
