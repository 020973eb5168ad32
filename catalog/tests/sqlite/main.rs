//! What every catalog must do, on SQLite, and what only a file can do wrong. The suite opens a world of this binary.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod files;
#[path = "../suite/mod.rs"]
mod suite;
mod world;
