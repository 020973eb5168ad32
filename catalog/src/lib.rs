//! Knows what exists: every tenant, the server and database it lives on, who may enter, what is being done to it.
//!
//! [`Catalog`] opens it and begins transactions; the queries of one noun live in that noun's module and take the
//! transaction as an argument. Nothing here opens a tenant's database, and nothing outside writes SQL to the catalog.

pub mod backups;
pub mod changes;
pub mod check;
pub mod copy;
pub mod db;
pub mod error;
pub mod events;
pub mod fleet;
pub mod history;
pub mod idempotency;
pub mod ids;
pub mod leases;
pub mod members;
pub mod name;
pub mod names;
pub mod operations;
pub mod releases;
pub mod retained;
pub mod schema;
pub mod seal;
pub mod server;
pub mod servers;
pub mod steps;
pub mod tenant;
pub mod tenants;
pub mod tokens;

mod bulk;
mod dsn;
mod fault;
mod file;
mod lane;
mod listener;
mod opener;
mod own;
mod row;
mod tables;
mod word;

pub use db::{Catalog, Clock, ReadTx, WriteTx};
pub use error::{Error, ErrorKind, Result};
pub use ids::{BackupId, FleetId, Generation, OperationId, ReleaseId, ServerId, TenantId, TokenId};
pub use name::Name;
pub use server::{ServerRecord, ServerState};
pub use tenant::{BlockWrites, Pin, TenantRecord, TenantState};
