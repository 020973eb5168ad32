//! What every catalog must do, on a real Postgres, and what only a server can do wrong. The suite opens a world of this
//! binary.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod copying;
mod feed;
mod refusals;
mod restarts;
#[path = "../suite/mod.rs"]
mod suite;
mod world;
