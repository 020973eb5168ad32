//! The verbs of an engine. Each says what exists after a crash and whether it may be repeated.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use secrecy::SecretString;

use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::Fingerprint;
use crate::found::{Found, Listing};
use crate::identity::{Expected, Identity};
use crate::inspection::{Depth, Inspection};
use crate::migration::MigrationSet;
use crate::placement::{EngineKind, Placement};
use crate::pool::Pool;
use crate::server::{RoleAudit, Server, Survey};
use crate::snapshot::{Image, Restored, Snapshot};

/// A database at the head of a migration set, ready to be copied: what a new tenant starts from.
#[derive(Debug, Clone)]
pub struct Template {
    /// Of the migration set it was built from.
    pub digest: String,
    /// The newest version in it.
    pub schema_version: Option<i64>,
    /// The page image of a SQLite file; empty on Postgres, where a template is a database of each server.
    pub image: Bytes,
    /// About how large a new database is.
    pub size_bytes: u64,
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

/// The connections that requests use on one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// How many all processes of a fleet together may hold.
    pub budget: u64,
    /// How many this process holds now, those being opened and closed included.
    pub open: u64,
}

/// Does things to one database. Implementations are shared, and every verb may run for many databases at once:
/// where it can, an engine makes many callers durable with one flush, so a runner that keeps some hundreds of calls in
/// flight is several times faster than one that keeps eight. A call that waits for the flush holds no thread.
///
/// A dropped future stops waiting; work that has begun runs to its end, so a caller that does not know the outcome
/// repeats the call. Every error keeps the promise of "after a crash".
#[async_trait]
pub trait Engine: Send + Sync + std::fmt::Debug + 'static {
    /// Which placements this engine understands.
    fn kind(&self) -> EngineKind;

    /// What the server says about itself. Changes nothing, cancellable; answers within a few seconds or fails.
    async fn survey(&self, server: &Server) -> Result<Survey>;

    /// Which roles, rights and settings of the server are not as this engine makes them; nothing where there are none.
    /// Changes nothing, cancellable.
    async fn audit(&self, _server: &Server) -> Result<RoleAudit> {
        Ok(RoleAudit::default())
    }

    /// What an administrator of the server runs once, so that a tenant's SQL cannot ask the server about other tenants;
    /// `None` where nothing is to be run. Changes nothing, cancellable.
    async fn preparation(&self, _server: &Server) -> Result<Option<String>> {
        Ok(None)
    }

    /// Builds the database that new tenants of this set start from on this server; the newest few are remembered by
    /// digest. SQLite leaves nothing behind; Postgres keeps the database `tmpl_<digest>`, which nobody can enter.
    /// Repeatable, also by several processes at once.
    ///
    /// Fails with [`crate::ErrorKind::MigrationFailed`] when the set does not apply to an empty database.
    async fn template(&self, on: &Server, set: &MigrationSet) -> Result<Arc<Template>>;

    /// Makes a new database from a template and stamps `identity` into it. Durable when it returns.
    /// Repeatable with the same identity. After a crash: nothing, or a `.part` file, or the finished database. After a
    /// power cut the placement may also hold damaged bytes; nobody was told of it, and a repeated call says
    /// [`crate::ErrorKind::Corrupt`]: drop it and use a new placement.
    ///
    /// Fails with [`crate::ErrorKind::AlreadyExists`] when the placement carries another identity.
    async fn provision(&self, at: &Placement, template: &Template, identity: &Identity) -> Result<()>;

    /// Opens the database for requests. Reads and writes are allowed by the states in `expected` and by the identity
    /// found inside each transaction: `active` allows both, `frozen` only reads. Cancellable, leaves nothing.
    async fn connect(&self, at: &Placement, expected: &Expected) -> Result<Pool>;

    /// Applies what is pending, each version in one transaction with its ledger row. Durable when it returns.
    /// Repeatable. After a crash: a prefix of the pending versions is applied.
    /// With `target`, stops after that version.
    ///
    /// Fails with one of the migration kinds naming the version, or [`crate::ErrorKind::Busy`] when an application's
    /// writer does not let go within a tenth of a second (SQLite) or the engine's lock timeout (Postgres, 2 s). The
    /// versions before a failing one stay applied.
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

    /// Fills a **new** placement with a copy of a database that no fleet knows yet, and stamps `identity` (state
    /// `building`) into it. `source` is its connection string; it is only read, in one state of its data. Durable when it
    /// returns. Repeatable, then with what the source holds by then. After a crash: as [`Engine::restore`].
    ///
    /// Fails with [`crate::ErrorKind::WrongTenant`] when the source belongs to a fleet, and leaves nothing then.
    async fn adopt(&self, _at: &Placement, _source: &SecretString, _identity: &Identity) -> Result<Restored> {
        let message = "only a Postgres database can be adopted, onto a Postgres server";
        Err(Error::new(ErrorKind::Internal, message))
    }

    /// Replaces the identity row. Durable when it returns. Repeatable: finding `identity` already there is success.
    async fn stamp(&self, at: &Placement, expected: &Expected, identity: &Identity) -> Result<()>;

    /// Stamps `identity` (state `frozen`), durable when it returns, repeatable, and makes sure that no writer, not even a stale one, can write any more.
    async fn freeze(&self, at: &Placement, expected: &Expected, identity: &Identity) -> Result<()>;

    /// Removes the database. Repeatable: a missing one is success. Checks the identity first unless `expected` is
    /// `None`, which is for leftovers (`.part`, building) that carry none. After a crash: some of its files, which a
    /// repeated call removes.
    async fn drop_database(&self, at: &Placement, expected: Option<&Expected>) -> Result<()>;

    /// Everything on the server that looks like a database of ours or like what is left of one, or only what is named
    /// after the tenant `of`, by names and metadata only: no database is opened. What is made or dropped meanwhile may be in
    /// it or not. Cancellable, changes nothing.
    ///
    /// Fails with [`crate::ErrorKind::ServerUnreachable`] when the server or its directory does not answer.
    async fn databases(&self, on: &Server, of: Option<crate::TenantId>) -> Result<Listing>;

    /// Puts aside what nobody owns, and deletes nothing: a file and its companions move to `quarantine/<label>/` under
    /// the server's directory; a database accepts no more connections, is renamed to `quarantine_<label>_<name>`, and
    /// its logins may not log in; neither may a role that is `found`. Returns the new name, which is shorter where a server
    /// allows no longer one. `label` is digits.
    ///
    /// Whose it is has been decided by the caller; here it is only made sure that it is still the thing that was found:
    /// the same physical object, carrying the identity `expected` (none readable when `None`), and nobody is in it.
    /// Durable when it returns. After a crash: put aside, or not, or without companions that hold nothing.
    ///
    /// Fails with [`crate::ErrorKind::Missing`], [`crate::ErrorKind::Fenced`] or [`crate::ErrorKind::WrongTenant`] when it
    /// is not what was found, with [`crate::ErrorKind::Busy`] when somebody is in it, and leaves it where it is then.
    async fn quarantine(&self, on: &Server, found: &Found, expected: Option<&Expected>, label: &str) -> Result<String>;

    /// Looks without changing anything; `expected` `None` looks at whatever is there.
    async fn inspect(&self, at: &Placement, expected: Option<&Expected>, depth: Depth) -> Result<Inspection>;

    /// How large the database is now, in bytes, without what it has written ahead. Changes nothing, and asks nothing of
    /// its identity; cheaper than [`Engine::inspect`].
    async fn size(&self, at: &Placement) -> Result<u64> {
        Ok(self.inspect(at, None, Depth::Ledger).await?.size_bytes)
    }

    /// Counts and hashes of everything but the identity, read in one transaction. Changes nothing. Takes as long as
    /// reading every row.
    async fn fingerprint(&self, at: &Placement, expected: &Expected) -> Result<Fingerprint>;

    /// What is known of the connections that requests use on this server, once it has said so: after the first
    /// [`Engine::connect`]. `None` also for databases that are files.
    fn connections(&self, _server: &Server) -> Option<Connections> {
        None
    }

    /// How many of them this process may hold from now on; those beyond it are closed as they come back. Until it is
    /// called, all of them.
    fn set_connections_max(&self, _server: &Server, _connections: u64) {}
}
