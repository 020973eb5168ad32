//! The verbs of an engine. Each says what exists after a crash and whether it may be repeated.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;
use crate::identity::{Expected, Identity};
use crate::inspection::{Depth, Inspection};
use crate::migration::MigrationSet;
use crate::placement::{EngineKind, Placement};
use crate::pool::Pool;
use crate::snapshot::{Image, Restored, Snapshot};

/// A database at the head of a migration set, ready to be copied: what a new tenant starts from.
#[derive(Debug, Clone)]
pub struct Template {
    /// Of the migration set it was built from.
    pub digest: String,
    /// The newest version in it.
    pub schema_version: Option<i64>,
    /// Engine-specific: the page image of a SQLite file.
    pub image: Bytes,
}

/// What [`Engine::migrate`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Newest version before.
    pub from_version: Option<i64>,
    /// Newest version after; durable when the verb returns.
    pub to_version: Option<i64>,
    /// The versions applied now, in order; empty when there was nothing to do.
    pub applied: Vec<i64>,
}

/// Does things to one database. Implementations are shared, and every verb may run for many databases at once:
/// where it can, an engine makes many callers durable with one flush.
#[async_trait]
pub trait Engine: Send + Sync + std::fmt::Debug + 'static {
    /// Which placements this engine understands.
    fn kind(&self) -> EngineKind;

    /// Builds the database that new tenants of this set start from. Leaves nothing behind.
    async fn template(&self, set: &MigrationSet) -> Result<Arc<Template>>;

    /// Makes a new database from a template and stamps `identity` into it. Durable when it returns.
    /// Repeatable with the same identity. After a crash: nothing, or a `.part` file, or the finished database.
    async fn provision(&self, at: &Placement, template: &Template, identity: &Identity) -> Result<()>;

    /// Opens the database for requests. Reads and writes are allowed by the states in `expected` and by the identity
    /// found inside each transaction: `active` allows both, `frozen` only reads. Cancellable, leaves nothing.
    async fn connect(&self, at: &Placement, expected: &Expected) -> Result<Pool>;

    /// Applies what is pending, each version in one transaction with its ledger row. Durable when it returns.
    /// Repeatable. After a crash: a prefix of the pending versions is applied.
    /// With `target`, stops after that version.
    async fn migrate(
        &self,
        at: &Placement,
        expected: &Expected,
        set: &MigrationSet,
        target: Option<i64>,
    ) -> Result<Migrated>;

    /// Takes a consistent picture while the database serves. Cancellable, leaves nothing.
    async fn snapshot(&self, at: &Placement, expected: &Expected) -> Result<Snapshot>;

    /// Fills a **new** placement from an image and stamps `identity` (state `building`) into it, after `quick_check`,
    /// `foreign_key_check` and a comparison of the tenant inside the image with `source` (the tenant it must be from).
    /// Durable when it returns. Repeatable. After a crash: nothing, or a `.part` file, or the finished database.
    ///
    /// Fails with [`crate::ErrorKind::WrongTenant`] or [`crate::ErrorKind::Corrupt`] and leaves nothing then.
    async fn restore(
        &self,
        at: &Placement,
        image: Image,
        source: crate::TenantId,
        identity: &Identity,
    ) -> Result<Restored>;

    /// Replaces the identity row. Durable when it returns. Repeatable: finding `identity` already there is success.
    async fn stamp(&self, at: &Placement, expected: &Expected, identity: &Identity) -> Result<()>;

    /// Stamps `identity` (state `frozen`) and makes sure that no writer, not even a stale one, can write any more.
    async fn freeze(&self, at: &Placement, expected: &Expected, identity: &Identity) -> Result<()>;

    /// Removes the database. Repeatable: a missing one is success. Checks the identity first unless `expected` is
    /// `None`, which is for leftovers (`.part`, building) that carry none.
    async fn drop_database(&self, at: &Placement, expected: Option<&Expected>) -> Result<()>;

    /// Looks without changing anything; `expected` `None` looks at whatever is there.
    async fn inspect(&self, at: &Placement, expected: Option<&Expected>, depth: Depth) -> Result<Inspection>;
}
