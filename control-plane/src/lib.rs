//! Takes the whole fleet from one state to the next, one idempotent step at a time, and remembers.
//!
//! A request becomes an operation ([`runner::submit`]: planned purely, written in one transaction); workers claim its
//! steps with a lease, run one phase at a time ([`operations`]) and the recorder writes what came of it. Steps touch the
//! tenant and return an outcome with its effects; only the recorder touches the catalog.
//!
//! A number is a layer, and a module imports only from lower numbers or its own folder:
//! 0 config clock descriptors disks home tasks telemetry metrics error · 1 plan · 2 backup auth · 3 operations · 4 runner · 5 background scrub ·
//! 6 app · 7 http · 8 serve.

pub mod clock;
pub mod config;
pub mod descriptors;
pub(crate) mod disks;
pub mod error;
pub mod home;
pub mod metrics;
pub mod tasks;
pub mod telemetry;

pub mod auth;
pub mod plan;

pub mod backup;

pub mod operations;
pub mod runner;

pub mod background;
pub mod scrub;

pub mod app;
pub mod catalog_care;
pub mod http;
pub mod serve;

pub use app::App;
pub use config::Config;
pub use error::{Error, Result};
