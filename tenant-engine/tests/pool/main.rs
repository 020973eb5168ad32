//! The request path on real SQLite files, through the public API only.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod contention;
mod fence;
mod fixture;
mod lifecycle;
mod limits;
mod nesting;
mod requests;
mod sandbox;
mod stuck;
