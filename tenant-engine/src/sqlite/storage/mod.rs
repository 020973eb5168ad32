//! The file of a database and the disk under it: how a file is created, opened, written, flushed and removed.
//!
//! `durability.rs` explains why no data is lost. `shared_state.rs` holds what engine operations share.

pub(super) mod descriptors;
pub(super) mod disk_full;
pub(super) mod disks;
mod durability;
pub(super) mod files;
pub(super) mod image;
pub(super) mod open;
pub(super) mod shared_state;
pub(super) mod writer;
