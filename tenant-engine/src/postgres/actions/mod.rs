//! The operations of the engine: one file for each method of [`crate::Engine`], or for two that belong together.
//!
//! An operation takes its slots on a server first (`servers/server_state.rs`), which checks the claim of the fleet.

pub(super) mod adopt;
pub(super) mod audit;
pub(super) mod databases;
pub(super) mod drop;
pub(super) mod fingerprint;
pub(super) mod inspect;
pub(super) mod migrate;
pub(super) mod preparation;
pub(super) mod provision;
pub(super) mod quarantine;
pub(super) mod restore;
pub(super) mod snapshot;
pub(super) mod stamp;
pub(super) mod survey;
pub(super) mod template;
