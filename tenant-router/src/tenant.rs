//! What a handler receives: one tenant's database, at one level of access. Everything about a tenant hangs here.
//!
//! Made by `router.rs` only, from a [`Grant`]. A statement runs in a transaction whose BEGIN and identity check travel
//! with it in one hop; if the database turns out not to be the one the catalog names, nothing has run yet, and the whole
//! hop is repeated on the right one (`fence.rs`). It never falls back to another database.

use std::marker::PhantomData;
use std::sync::Arc;

use catalog::members::Role;
use catalog::{Generation, TenantId, TenantRecord};
use tenant_engine::{Rows, Session, Statement};

use crate::authorize::{Access, Grant};
use crate::error::Result;
use crate::params::Params;
use crate::principal::Principal;

mod sealed {
    pub trait Sealed {}
}

/// What a [`Tenant`] may be used for: [`Read`], [`Write`] or [`Manage`]. Nothing else implements it.
pub trait Level: sealed::Sealed + Send + Sync + 'static {
    /// The same as a value.
    const ACCESS: Access;
}

/// The levels that may write.
pub trait CanWrite: Level {}

/// SELECT.
#[derive(Debug, Clone, Copy)]
pub enum Read {}
/// SELECT and DML.
#[derive(Debug, Clone, Copy)]
pub enum Write {}
/// Also members and settings of the tenant.
#[derive(Debug, Clone, Copy)]
pub enum Manage {}

impl sealed::Sealed for Read {}
impl sealed::Sealed for Write {}
impl sealed::Sealed for Manage {}
impl Level for Read {
    const ACCESS: Access = Access::Read;
}
impl Level for Write {
    const ACCESS: Access = Access::Write;
}
impl Level for Manage {
    const ACCESS: Access = Access::Manage;
}
impl CanWrite for Write {}
impl CanWrite for Manage {}

/// One tenant's database, for one caller, at one level.
pub struct Tenant<A: Level> {
    grant: Grant,
    level: PhantomData<fn() -> A>,
}

impl<A: Level> Tenant<A> {
    /// For ever the same.
    #[must_use]
    pub fn id(&self) -> TenantId {
        self.grant.record().id
    }
    /// The current slug.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.grant.record().name
    }
    /// The generation the catalog named when this was opened; data cached elsewhere belongs to it.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.grant.record().generation
    }
    /// Who asks.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        self.grant.principal()
    }
    /// The caller's role in this tenant.
    #[must_use]
    pub fn role(&self) -> Role {
        self.grant.role()
    }
    /// What the catalog knows of the tenant; its hints may be a moment old.
    #[must_use]
    pub fn record(&self) -> &Arc<TenantRecord> {
        self.grant.record()
    }

    /// Runs one statement that reads, in a read-only transaction of its own: one hop.
    ///
    /// # Errors
    /// The statement's own, as [`ErrorKind::Database`](crate::ErrorKind::Database); `Fenced` when the database stays
    /// out of step with the catalog.
    pub async fn query(&self, _sql: &str, _params: impl Into<Params>) -> Result<Rows> {
        todo!()
    }

    /// Runs several statements that read, all on one state of the database: one hop.
    ///
    /// # Errors
    /// As [`Tenant::query`]; the first error ends it.
    pub async fn query_batch(&self, _statements: Vec<Statement>) -> Result<Vec<Rows>> {
        todo!()
    }

    /// A transaction that reads one state of the database. It begins with its first statement; dropped, it is over.
    #[must_use]
    pub fn read(&self) -> ReadTx<'_, A> {
        todo!()
    }

    /// The same tenant and caller at another level, by the same rules as [`Router::open`](crate::Router::open).
    ///
    /// # Errors
    /// As [`Router::open`](crate::Router::open).
    pub async fn at<B: Level>(&self) -> Result<Tenant<B>> {
        todo!()
    }
}

impl<A: CanWrite> Tenant<A> {
    /// Runs one statement that may write, in a transaction of its own: one hop. `RETURNING` rows are in the answer.
    ///
    /// # Errors
    /// As [`Tenant::query`]; nothing was written then.
    pub async fn execute(&self, _sql: &str, _params: impl Into<Params>) -> Result<Rows> {
        todo!()
    }

    /// Runs several statements that may write in one transaction, all or nothing: one hop.
    ///
    /// # Errors
    /// As [`Tenant::execute`]; the first error undoes everything.
    pub async fn batch(&self, _statements: Vec<Statement>) -> Result<Vec<Rows>> {
        todo!()
    }

    /// A transaction that may write. It begins with its first statement; dropped without commit, it rolls back by itself.
    #[must_use]
    pub fn write(&self) -> WriteTx<'_, A> {
        todo!()
    }
}

impl<A: Level> std::fmt::Debug for Tenant<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenant")
            .field("id", &self.id())
            .field("access", &A::ACCESS)
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

/// A transaction that reads; see [`Tenant::read`].
pub struct ReadTx<'a, A: Level> {
    _tenant: &'a Tenant<A>,
    _session: Option<Session>,
}

impl<A: Level> ReadTx<'_, A> {
    /// Runs one statement that reads.
    ///
    /// # Errors
    /// As [`Tenant::query`]; the transaction is over then.
    pub async fn query(&mut self, _sql: &str, _params: impl Into<Params>) -> Result<Rows> {
        todo!()
    }
}

/// A transaction that may write; see [`Tenant::write`].
pub struct WriteTx<'a, A: CanWrite> {
    _tenant: &'a Tenant<A>,
    _session: Option<Session>,
}

impl<A: CanWrite> WriteTx<'_, A> {
    /// Runs one statement that reads what this transaction sees.
    ///
    /// # Errors
    /// As [`Tenant::execute`]; the transaction is rolled back then.
    pub async fn query(&mut self, _sql: &str, _params: impl Into<Params>) -> Result<Rows> {
        todo!()
    }

    /// Runs one statement that may write.
    ///
    /// # Errors
    /// As [`Tenant::execute`]; the transaction is rolled back then.
    pub async fn execute(&mut self, _sql: &str, _params: impl Into<Params>) -> Result<Rows> {
        todo!()
    }

    /// Makes everything durable and visible at once.
    ///
    /// # Errors
    /// When the commit fails; everything is rolled back then.
    pub async fn commit(self) -> Result<()> {
        todo!()
    }

    /// Undoes everything, and waits until that is done. Dropping does the same without waiting.
    ///
    /// # Errors
    /// When the connection is lost; the database rolls back by itself then.
    pub async fn rollback(self) -> Result<()> {
        todo!()
    }
}
