//! The catalog on both of its engines: one suite, compiled once for each, and what only one of them can do wrong.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::duplicate_mod, reason = "the suite is compiled once for each engine")]

mod names;
mod postgres;
mod sqlite;
