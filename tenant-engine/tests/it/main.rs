//! The two engines, each with its operations and its request path, through the public API only: one folder for each.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod postgres;
mod postgres_pool;
mod sqlite;
mod sqlite_pool;
