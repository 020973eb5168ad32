//! The operations of the engine: one file for each method of [`crate::Engine`], or for two that belong together.
//!
//! Their blocking parts run on the threads of operations. `memory.rs` runs the same code on a database in memory, for
//! the fake engine of tests.

pub(super) mod databases;
pub(super) mod drop;
pub(super) mod fingerprint;
pub(super) mod inspect;
#[cfg(feature = "test-util")]
pub(crate) mod memory;
pub(super) mod migrate;
pub(super) mod provision;
pub(super) mod quarantine;
pub(super) mod restore;
pub(super) mod snapshot;
pub(super) mod stamp;
pub(super) mod survey;
pub(super) mod template;
