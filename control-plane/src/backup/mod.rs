//! Backups at rest: the only place that knows object storage and compression.
//!
//! The operations hand over an [`tenant_engine::Image`] and get one back; a backup exists only when its manifest does,
//! and the manifest is written last. Nothing here opens a database or reads the catalog: which manifest is believed is
//! decided in `operations/trust.rs`.

mod flush;
pub mod key;
mod local;
pub mod manifest;
mod packing;
pub mod store;

pub use key::Key;
pub use manifest::Manifest;
pub use store::Store;
