//! The control plane end to end: a real fleet in a temporary directory, real files. `http/` asks it over real sockets,
//! the other tests call it directly.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod crash;
mod http;
mod in_flight;
mod invariants;
mod world;

mod backing_up;
mod clocks;
mod creating;
mod deleting;
mod dying;
mod failures;
mod faulty;
mod forging;
mod leaving;
mod ledger_name;
mod left_out;
mod matrix;
mod migrating;
mod moving;
mod older_catalog;
mod pinning;
mod planning;
mod refusing;
mod restoring;
mod runner_contract;
mod scrubbing;
mod several_processes;
mod sizes;
mod splitting;
mod stale;
mod waking;
mod webhook_sink;
mod webhooks;
