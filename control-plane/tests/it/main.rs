//! Operations end to end: a real fleet in a temporary directory, real files, no HTTP.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod invariants;
mod world;

mod crashes;
mod creating;
mod migrating;
