//! `sqlx` for one transaction: a guard that is the connection of the driver, and is returned clean.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::PgConnection;
use tenant_engine::postgres::PostgresLentTx;
use tenant_engine::{self as engine, AccessMode};

use crate::error::{Error, ErrorKind, Result};
use crate::limits::ConnectionHold;
use crate::pools::OpenPool;
use crate::retry::final_error;
use crate::tenant::{AccessLevel, CanWrite, Tenant};

impl<A: AccessLevel> Tenant<A> {
    /// Begins a reading transaction for `sqlx`. Only for tenants on PostgreSQL. It sees one snapshot of the database, and
    /// ends when it is dropped.
    ///
    /// ```
    /// # use tenant_router::{Error, Read, Tenant, sqlx};
    /// async fn titles(tenant: &Tenant<Read>) -> Result<Vec<String>, Error> {
    ///     let mut tx = tenant.read_sqlx().await?;
    ///     Ok(sqlx::query_scalar("select title from tasks order by id").fetch_all(&mut *tx).await?)
    /// }
    /// ```
    /// # Errors
    /// `other_engine` for a tenant on SQLite; otherwise as [`Tenant::query`].
    pub async fn read_sqlx(&self) -> Result<SqlxTx> {
        self.lend_sqlx(AccessMode::Read).await
    }

    async fn lend_sqlx(&self, access: AccessMode) -> Result<SqlxTx> {
        let limits = self.limits;
        self.require_storage(access, || false).await?;
        let lend = move |pool: &engine::Pool| {
            let pool = pool.clone();
            async move { pool.lend_sqlx(access, limits).await }
        };
        let (lent, held) = self.run_hop(lend).await?;
        Ok(SqlxTx { lent, _pool: Arc::clone(&self.pool), _held: held })
    }
}

impl<A: CanWrite> Tenant<A> {
    /// As [`Tenant::read_sqlx`], but may write. Dropped without [`SqlxTx::commit`], it rolls back.
    ///
    /// ```
    /// # use tenant_router::{Error, Tenant, Write, sqlx};
    /// async fn add(tenant: &Tenant<Write>, title: &str) -> Result<i64, Error> {
    ///     let mut tx = tenant.write_sqlx().await?;
    ///     let added = sqlx::query_scalar("insert into tasks (title) values ($1) returning id");
    ///     let id = added.bind(title).fetch_one(&mut *tx).await?;
    ///     tx.commit().await?;
    ///     Ok(id)
    /// }
    /// ```
    /// # Errors
    /// `other_engine` for a tenant on SQLite; otherwise as [`Tenant::execute`].
    pub async fn write_sqlx(&self) -> Result<SqlxTx> {
        self.lend_sqlx(AccessMode::Write).await
    }
}

/// An open transaction of a tenant on PostgreSQL, as the connection of `sqlx` that it runs on: `&mut *tx` is an executor
/// for every query. `sqlx::Connection::begin` on it makes a savepoint.
///
/// Its statements are the application's own, not a tenant's: the tenant's login limits them, not the sandbox. End it with
/// [`SqlxTx::commit`]: a commit fails if SQL has ended the transaction. After it, the session is reset: settings, roles,
/// temporary tables, cursors, notifications and advisory locks do not outlive it.
pub struct SqlxTx {
    lent: PostgresLentTx,
    /// Keeps the pool open, so that the connection is returned to it.
    _pool: Arc<OpenPool>,
    /// Counts the connection as used.
    _held: Option<ConnectionHold>,
}

impl SqlxTx {
    /// Makes all changes durable and visible at once.
    ///
    /// # Errors
    /// When the commit fails, the transaction took too long, or SQL has ended it. What it still held is rolled back.
    pub async fn commit(self) -> Result<()> {
        self.lent.commit().await.map_err(|error| final_error(error.into()))
    }

    /// Rolls back all changes and waits for the end of the rollback. Dropping rolls back without waiting.
    ///
    /// # Errors
    /// When the connection is lost; the database then rolls back by itself.
    pub async fn rollback(self) -> Result<()> {
        Ok(self.lent.rollback().await?)
    }
}

impl Deref for SqlxTx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.lent
    }
}

impl DerefMut for SqlxTx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.lent
    }
}

impl std::fmt::Debug for SqlxTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlxTx").finish_non_exhaustive()
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::RowNotFound => ErrorKind::RowNotFound.into(),
            other => engine::postgres::from_driver(other).into(),
        }
    }
}
