//! The control plane: brings the fleet from one state to the next, one idempotent step at a time, and records each.
//!
//! A request becomes an operation ([`runner::submit`]: planned without side effects, written in one transaction).
//! The dispatcher claims its steps with a lease, and workers run them one phase at a time ([`operations`]). Steps change
//! databases and return an outcome with effects. The recorder writes both to the catalog.
//!
//! A number is a layer, and a module imports only from lower numbers or its own folder:
//! 0 config clock descriptors disks tasks telemetry metrics error time_text · 1 plan tls data_dir event_views ·
//! 2 backup auth domains · 3 operation webhooks · 4 replacement · 5 runner · 6 operations · 7 background scrub · 8 app · 9 health · 10 http · 11 serve ·
//! 12 catalog_admin new_identity.

pub mod clock;
pub mod config;
pub mod data_dir;
pub mod descriptors;
pub(crate) mod disks;
pub mod error;
pub mod metrics;
pub mod tasks;
pub mod telemetry;
mod time_text;
pub(crate) mod tls;

pub mod auth;
mod event_views;
pub mod plan;

pub mod backup;
pub mod domains;

pub mod operation;
pub(crate) mod replacement;
pub mod runner;
pub mod webhooks;

pub mod operations;

pub mod background;
pub mod scrub;

pub mod app;
pub mod catalog_admin;
mod health;
pub mod http;
mod isolation;
pub mod new_identity;
pub mod serve;

pub use app::App;
pub use config::Config;
pub use error::{Error, ErrorKind, Result};
