//! The fleet's records: every tenant, its server and database, its members, and the operations on it.
//!
//! [`Catalog`] opens the database and begins transactions. The queries of one noun are in that noun's module and take
//! the transaction as an argument. This crate never opens a tenant's database, and no other crate writes SQL to the
//! catalog.

#![cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "the parts that only a catalog on PostgreSQL uses"))]

pub mod backups;
pub mod changes;
pub mod check;
pub mod copy;
pub mod db;
pub mod domains;
pub mod error;
pub mod events;
pub mod external_accounts;
pub mod fleet;
pub mod history;
pub mod home;
pub mod idempotency;
pub mod identity;
pub mod ids;
pub mod job_queues;
pub mod leases;
pub mod members;
pub mod name;
pub mod names;
pub mod operations;
pub mod other_catalog;
pub mod plans;
pub mod releases;
pub mod replacements;
pub mod retained;
pub mod schema;
pub mod seal;
pub mod server;
pub mod servers;
pub mod steps;
pub mod tenant;
pub mod tenants;
pub mod tokens;
pub mod topics;
pub mod webhooks;

mod bulk;
mod clock_skew;
mod connection_slots;
mod dsn;
mod error_mapping;
mod file;
mod listener;
mod local_changes;
mod opener;
mod row;
mod tables;
mod text_enum;

pub use db::{Catalog, CatalogClock, ReadTx, WriteTx};
pub use error::{Error, ErrorKind, Result};
pub use ids::{BackupId, FleetId, Generation, OperationId, ReleaseId, ServerId, TenantId, TokenId, WebhookId};
pub use name::TenantName;
pub use server::{ServerRecord, ServerState};
pub use tenant::{BlockWrites, SchemaPin, TenantRecord, TenantState};
