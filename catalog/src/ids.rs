//! The catalog's own typed ids; the engine's are re-exported, so that callers need one place only.

pub use tenant_engine::ids::{FleetId, Generation, OperationId, TenantId};
use tenant_engine::ids::{Id, IdKind};

/// Names a server: a place databases live.
pub type ServerId = Id<ServerKind>;
/// Names a backup.
pub type BackupId = Id<BackupKind>;
/// Names a release: an immutable migration set.
pub type ReleaseId = Id<ReleaseKind>;
/// Names an API token; not the secret.
pub type TokenId = Id<TokenKind>;

/// Marks [`ServerId`].
#[derive(Debug)]
pub enum ServerKind {}
/// Marks [`BackupId`].
#[derive(Debug)]
pub enum BackupKind {}
/// Marks [`ReleaseId`].
#[derive(Debug)]
pub enum ReleaseKind {}
/// Marks [`TokenId`].
#[derive(Debug)]
pub enum TokenKind {}

impl IdKind for ServerKind {
    const PREFIX: &'static str = "srv";
    const NOUN: &'static str = "server";
}
impl IdKind for BackupKind {
    const PREFIX: &'static str = "bkp";
    const NOUN: &'static str = "backup";
}
impl IdKind for ReleaseKind {
    const PREFIX: &'static str = "rel";
    const NOUN: &'static str = "release";
}
impl IdKind for TokenKind {
    const PREFIX: &'static str = "tok";
    const NOUN: &'static str = "token";
}
