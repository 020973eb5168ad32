//! The zoo over HTTP, with a real fleet in a temporary directory, on both engines.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod command;
mod document;
mod extras;
mod kit;
mod leaks;
mod log;
mod stage;
mod symptoms;
