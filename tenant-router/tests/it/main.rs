//! The router on a real catalog, the real engine and real files.
//!
//! Every tenant has the same rows with the same keys and its own canary in them: only comparing contents tells whether
//! a request reached its own tenant.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod access_log;
mod answers;
mod caches;
mod compile_fail;
mod fencing;
mod fleet_loops;
mod http;
mod isolation;
mod job_processes;
mod job_restores;
mod job_runners;
mod job_schedules;
mod job_world;
mod jobs;
mod jwt;
mod key_server;
mod limits;
mod links;
mod naming;
mod opening;
mod realtime;
mod realtime_ends;
mod realtime_http;
mod staff;
mod states;
mod streams;
mod test_fleets;
mod transactions;
mod typed;
mod values;
mod webhooks;
mod world;
