//! The operations of a database engine, as one trait. Each method says what exists after a crash and whether it may be
//! repeated.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use secrecy::SecretString;

use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::DatabaseFingerprint;
use crate::identity::{ExpectedIdentity, Identity};
use crate::inspection::{Inspection, InspectionDepth};
use crate::listing::{ListedObject, ServerListing};
use crate::migration::{LedgerName, MigrationSet};
use crate::placement::{EngineKind, Placement};
use crate::pool::Pool;
use crate::server::{DatabaseServer, RoleAudit, ServerSurvey};
use crate::snapshot::{RestoreOutcome, Snapshot, SnapshotImage};

/// A database at the newest version of a migration set. New tenants' databases are copied from it.
#[derive(Debug, Clone)]
pub struct DatabaseTemplate {
    /// Digest of the migration set that it was built from.
    pub digest: String,
    /// Newest version applied in the template; `None` for the empty set.
    pub schema_version: Option<i64>,
    /// Page image of a SQLite file. Empty on Postgres, where a template is a database on each server.
    pub image: Bytes,
    /// Approximate size of a new database made from this template.
    pub size_bytes: u64,
}

/// Result of [`Engine::migrate_database`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationOutcome {
    /// Newest applied version before the call.
    pub from_version: Option<i64>,
    /// Newest applied version after the call; durable when the call returns.
    pub to_version: Option<i64>,
    /// Versions applied by this call, in order; empty when none was pending.
    pub applied: Vec<i64>,
    /// Size of the database in bytes after the call, as [`Engine::database_size`] reports it. `None` when the engine
    /// would have to open the database once more to read it, or when no version was applied.
    pub size_bytes: Option<u64>,
}

/// The connections for requests on one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionUsage {
    /// Connections that all processes of a fleet together may hold.
    pub budget: u64,
    /// Connections that this process holds now, including those that are being opened or closed.
    pub open: u64,
}

/// Works on one database at a time, named by its placement. Implementations are shared, and every method may run for
/// many databases at once.
///
/// Where it can, an engine makes the work of many callers durable with one flush. A runner with some hundreds of calls
/// in flight is therefore several times faster than one with eight. A call that waits for the flush holds no thread.
///
/// Dropping a future stops the waiting only: work that has begun runs to its end. A caller that does not know the
/// outcome repeats the call. After every error, the promise of "after a crash" holds.
#[async_trait]
pub trait Engine: Send + Sync + std::fmt::Debug + 'static {
    /// The kind of placements that this engine understands.
    fn kind(&self) -> EngineKind;

    /// Reports version, limits and free space of the server. Changes nothing, is cancellable, and answers or fails
    /// within a few seconds.
    async fn survey_server(&self, server: &DatabaseServer) -> Result<ServerSurvey>;

    /// Lists the roles, rights and settings of the server that differ from those that this engine makes. Empty for an
    /// engine without roles. Changes nothing, cancellable.
    async fn audit_roles(&self, _server: &DatabaseServer) -> Result<RoleAudit> {
        Ok(RoleAudit::default())
    }

    /// SQL that an administrator of the server runs once, so that a tenant's SQL cannot ask the server about other
    /// tenants. `None` where no script is needed. Changes nothing, cancellable.
    async fn preparation_script(&self, _server: &DatabaseServer) -> Result<Option<String>> {
        Ok(None)
    }

    /// Builds the template that new tenants of this set are copied from on this server. The newest few are remembered
    /// by digest. SQLite leaves nothing behind. Postgres keeps the database `tmpl_<fleet>_<digest>`, which accepts no
    /// connections. Repeatable, also by several processes at once.
    ///
    /// Fails with [`crate::ErrorKind::MigrationFailed`] when the set cannot be applied to an empty database.
    async fn prepare_template(&self, on: &DatabaseServer, set: &MigrationSet) -> Result<Arc<DatabaseTemplate>>;

    /// Makes a new database from a template and stamps `identity` into it. Durable when it returns. Repeatable with the
    /// same identity.
    ///
    /// After a crash there is no database, or a `.part` file, or the finished database. After a power failure the
    /// placement may also hold damaged bytes. No caller was told of that database, and a repeated call fails with
    /// [`crate::ErrorKind::Corrupt`]: drop it and use a new placement.
    ///
    /// Fails with [`crate::ErrorKind::AlreadyExists`] when the placement carries another identity.
    async fn provision_database(&self, at: &Placement, template: &DatabaseTemplate, identity: &Identity) -> Result<()>;

    /// Opens the database for requests. The states in `expected` and the identity found inside each transaction decide
    /// what is allowed: `active` allows reads and writes, `frozen` only reads. Cancellable, leaves nothing behind.
    async fn open_pool(&self, at: &Placement, expected: &ExpectedIdentity) -> Result<Pool>;

    /// Applies the pending migrations, each version in one transaction with its ledger row. Stops after the version
    /// `target`, if one is given. Durable when it returns. Repeatable. After a crash, the first few of the pending
    /// versions are applied, or none.
    ///
    /// Fails with one of the migration kinds, naming the version. The versions before the failing one stay applied.
    /// Fails with [`crate::ErrorKind::Busy`] when an application's writer holds its lock too long: a tenth of a second
    /// on SQLite, the engine's lock timeout (2 s) on Postgres.
    async fn migrate_database(
        &self,
        at: &Placement,
        expected: &ExpectedIdentity,
        set: &MigrationSet,
        target: Option<i64>,
    ) -> Result<MigrationOutcome>;

    /// Takes a consistent snapshot while the database serves requests. Cancellable, leaves nothing behind.
    async fn take_snapshot(&self, at: &Placement, expected: &ExpectedIdentity) -> Result<Snapshot>;

    /// Fills a **new** placement from an image and stamps `identity` (state `building`) into it. Before the stamp it
    /// runs `quick_check` and `foreign_key_check`, and compares the tenant inside the image with `source`, the tenant
    /// it must be from. Durable when it returns. Repeatable. After a crash there is no database, or a `.part` file, or
    /// the finished database.
    ///
    /// Fails with [`crate::ErrorKind::WrongTenant`] or [`crate::ErrorKind::Corrupt`], and then leaves nothing behind.
    async fn restore_database(
        &self,
        at: &Placement,
        image: SnapshotImage,
        source: crate::TenantId,
        identity: &Identity,
    ) -> Result<RestoreOutcome>;

    /// Fills a **new** placement with a copy of a database that belongs to no fleet yet, and stamps `identity` (state
    /// `building`) into it. `source` is the connection string of that database; it is only read, in one state of its
    /// data. `ledger` is the table of its applied versions, if it has one.
    ///
    /// Durable when it returns. Repeatable: a second call copies the content that the source has by then. After a
    /// crash: as [`Engine::restore_database`].
    ///
    /// Fails with [`crate::ErrorKind::WrongTenant`] when the source belongs to a fleet, and then leaves nothing behind.
    async fn adopt_database(
        &self,
        _at: &Placement,
        _source: &SecretString,
        _identity: &Identity,
        _ledger: &LedgerName,
    ) -> Result<RestoreOutcome> {
        let message = "only a Postgres database can be adopted, onto a Postgres server";
        Err(Error::new(ErrorKind::Internal, message))
    }

    /// Replaces the identity row. Durable when it returns. Repeatable: a database that already carries `identity` is a
    /// success.
    async fn stamp_identity(&self, at: &Placement, expected: &ExpectedIdentity, identity: &Identity) -> Result<()>;

    /// Stamps `identity` (state `frozen`) and makes sure that no writer can write any more, not even a stale one.
    /// Durable when it returns. Repeatable.
    async fn freeze_database(&self, at: &Placement, expected: &ExpectedIdentity, identity: &Identity) -> Result<()>;

    /// Removes the database. Repeatable: a missing database is a success. With `None` the identity is not
    /// checked. Pass `None` only for a database that no request can have used. After a crash some files may remain; a
    /// repeated call removes them.
    async fn drop_database(&self, at: &Placement, expected: Option<&ExpectedIdentity>) -> Result<()>;

    /// Lists everything on the server that looks like a database of this program, or like the remains of one. With
    /// `of`, only objects named after that tenant. Reads names and metadata only: no database is opened. Objects that
    /// are made or dropped during the call may be listed or not. Cancellable, changes nothing.
    ///
    /// Fails with [`crate::ErrorKind::ServerUnreachable`] when the server or its directory does not answer.
    async fn list_databases(&self, on: &DatabaseServer, of: Option<crate::TenantId>) -> Result<ServerListing>;

    /// Moves an object without an owner to quarantine; nothing is deleted. A file and its companions move to
    /// `quarantine/<label>/` under the server's directory. A database accepts no more connections and is renamed to
    /// `quarantine_<label>_<name>`; its logins may no longer log in. A role that is `found` may no longer log in
    /// either. `label` consists of digits. Returns the new name, shortened where the server limits the length of names.
    ///
    /// The caller has decided that nobody owns the object. This method only makes sure that it is still the object that
    /// was found: the same physical object, with the identity `expected` (with `None`: no readable identity), and not
    /// in use. Durable when it returns. After a crash the object is in quarantine, or in its old place, or in
    /// quarantine without companions that hold no data.
    ///
    /// Fails with [`crate::ErrorKind::Missing`], [`crate::ErrorKind::Fenced`] or [`crate::ErrorKind::WrongTenant`] when
    /// the object is not the one that was found, and with [`crate::ErrorKind::Busy`] when it is in use. The object then
    /// stays where it is.
    async fn quarantine_object(
        &self,
        on: &DatabaseServer,
        found: &ListedObject,
        expected: Option<&ExpectedIdentity>,
        label: &str,
    ) -> Result<String>;

    /// Reports identity, ledger and problems of a database without changing it. With `expected` `None`, any identity is
    /// accepted.
    async fn inspect_database(
        &self,
        at: &Placement,
        expected: Option<&ExpectedIdentity>,
        depth: InspectionDepth,
    ) -> Result<Inspection>;

    /// Size of the database in bytes, without its write-ahead log. Changes nothing and does not check the identity;
    /// cheaper than [`Engine::inspect_database`].
    async fn database_size(&self, at: &Placement) -> Result<u64> {
        Ok(self.inspect_database(at, None, InspectionDepth::Ledger).await?.size_bytes)
    }

    /// Counts and hashes of everything except the identity, read in one transaction. Changes nothing. Takes as long as
    /// reading every row.
    async fn compute_fingerprint(&self, at: &Placement, expected: &ExpectedIdentity) -> Result<DatabaseFingerprint>;

    /// Use of the connections for requests on this server. `None` before the first [`Engine::open_pool`] on the server,
    /// and for databases that are files.
    fn connection_usage(&self, _server: &DatabaseServer) -> Option<ConnectionUsage> {
        None
    }

    /// Limits the connections for requests that this process may hold on the server from now on. Connections above the
    /// limit are closed as they are returned. Before the first call, this process may use the whole budget.
    fn set_connections_max(&self, _server: &DatabaseServer, _connections: u64) {}
}
