//! Stored backups. No other module knows object storage and compression.
//!
//! Operations pass in a [`tenant_engine::SnapshotImage`] and get one back. A backup exists only if its manifest does,
//! and the manifest is written last. Nothing here opens a database or reads the catalog. Which manifest is trusted is
//! decided in `replacement/backup_trust.rs`.

mod flush;
pub mod key;
mod local;
pub mod manifest;
mod packing;
pub mod store;

pub use key::BackupObjectKey;
pub use manifest::BackupManifest;
pub use store::BackupStore;
