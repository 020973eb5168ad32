//! `rusqlite` for one transaction: a closure on a worker thread, with the sandboxed transaction.

use std::sync::{Arc, Mutex, PoisonError};

use tenant_engine::sqlite::{RusqliteTx, from_rusqlite};
use tenant_engine::{self as engine, AccessMode};

use crate::error::{Error, ErrorKind, Result};
use crate::tenant::{AccessLevel, CanWrite, Tenant};

impl<A: AccessLevel> Tenant<A> {
    /// Runs code that uses `rusqlite` on one snapshot of the database, in one hop. Only for tenants on SQLite.
    ///
    /// ```
    /// # use tenant_router::{Error, Read, Tenant};
    /// async fn titles(tenant: &Tenant<Read>) -> Result<Vec<String>, Error> {
    ///     let read = |tx: &tenant_router::RusqliteTx<'_>| {
    ///         let mut statement = tx.prepare("select title from tasks order by id")?;
    ///         let titles = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    ///         Ok(titles)
    ///     };
    ///     tenant.read_rusqlite(read).await
    /// }
    /// ```
    /// The closure runs on a shared worker thread: it must not wait for anything but the database. It is cloned because
    /// the hop may be repeated. It runs to its end at most once.
    ///
    /// # Errors
    /// The closure's error; `other_engine` for a tenant on PostgreSQL; otherwise as [`Tenant::query`].
    pub async fn read_rusqlite<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&RusqliteTx<'_>) -> Result<T> + Clone + Send + 'static,
    {
        self.run_closure(AccessMode::Read, work).await
    }

    async fn run_closure<T, F>(&self, access: AccessMode, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&RusqliteTx<'_>) -> Result<T> + Clone + Send + 'static,
    {
        let limits = self.limits;
        let failure = Arc::new(Mutex::new(None));
        let failed = Arc::clone(&failure);
        let hop = move |pool: &engine::Pool| {
            let (pool, work, failure) = (pool.clone(), work.clone(), Arc::clone(&failed));
            let work = move |tx: &RusqliteTx<'_>| work(tx).map_err(|error| keep_failure(&failure, error));
            async move { pool.with_rusqlite(access, limits, work).await }
        };
        let done = self.run_hop(hop).await.map(|(done, _)| done);
        match failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(own) if done.is_err() => Err(own),
            _ => done,
        }
    }
}

impl<A: CanWrite> Tenant<A> {
    /// As [`Tenant::read_rusqlite`], but may write. Commits if the closure returns `Ok`, otherwise rolls back.
    ///
    /// # Errors
    /// The closure's error; `other_engine` for a tenant on PostgreSQL; otherwise as [`Tenant::execute`].
    pub async fn write_rusqlite<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&RusqliteTx<'_>) -> Result<T> + Clone + Send + 'static,
    {
        self.run_closure(AccessMode::Write, work).await
    }
}

/// Keeps the closure's own error for its caller. The engine only needs to know that the transaction must be rolled back.
fn keep_failure(kept: &Mutex<Option<Error>>, error: Error) -> engine::Error {
    *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    engine::Error::new(engine::ErrorKind::Internal, "the closure failed")
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::QueryReturnedNoRows => ErrorKind::RowNotFound.into(),
            other => from_rusqlite(other).into(),
        }
    }
}
