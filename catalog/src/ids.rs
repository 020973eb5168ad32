//! The catalog's typed ids. Re-exports the engine's ids, so that callers need only this module.

pub use tenant_engine::ids::{FleetId, Generation, OperationId, TenantId};
use tenant_engine::ids::{IdKind, TypedId};

/// Identifies a server, which holds tenant databases.
pub type ServerId = TypedId<ServerKind>;
/// Identifies a backup.
pub type BackupId = TypedId<BackupKind>;
/// Identifies a release: an immutable migration set.
pub type ReleaseId = TypedId<ReleaseKind>;
/// Identifies an API token; it is not the secret.
pub type TokenId = TypedId<TokenKind>;
/// Identifies a webhook.
pub type WebhookId = TypedId<WebhookKind>;

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
/// Marks [`WebhookId`].
#[derive(Debug)]
pub enum WebhookKind {}

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
impl IdKind for WebhookKind {
    const PREFIX: &'static str = "whk";
    const NOUN: &'static str = "webhook";
}
