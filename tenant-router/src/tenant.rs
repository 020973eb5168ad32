//! What a handler receives: one tenant's database, at one level of access.
//!
//! Made only by `router.rs`, from a [`Grant`]. A statement runs in a transaction whose BEGIN and identity check travel
//! with it in one hop. If the database is not the one that the catalog names, nothing has run yet. The whole hop is
//! then repeated on the right database (`retry.rs`). It never falls back to another database.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use catalog::members::Role;
use catalog::{Generation, TenantId, TenantRecord};
use serde::de::DeserializeOwned;
use tenant_engine::{
    self as engine, AfterStatements, DatabaseSession, Pool, Rows, SessionLimits, SqlStatement, SqlValue,
};

use crate::authorize::{Access, Grant};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::RouterCaches;
use crate::limits::{ConnectionHold, RateState, RequestPass, only_deletes, session_limits};
use crate::params::Params;
use crate::pools::OpenPool;
use crate::principal::Principal;
use crate::retry::{final_error, is_out_of_step};
use crate::router::Router;
use crate::transaction::{ReadTx, TenantTransaction, WriteTx};
use crate::typed::{TypedQuery, TypedRows, TypedStream};

mod sealed {
    pub trait SealedLevel {}
}

/// The level of access of a [`Tenant`]: [`Read`], [`Write`] or [`Manage`]. No other type can implement it.
pub trait AccessLevel: sealed::SealedLevel + Send + Sync + 'static {
    /// The level as a value.
    const ACCESS: Access;
}

/// The levels that allow writing: [`Write`] and [`Manage`].
pub trait CanWrite: AccessLevel {}

/// Allows SELECT statements.
#[derive(Debug, Clone, Copy)]
pub enum Read {}
/// Allows SELECT and DML.
#[derive(Debug, Clone, Copy)]
pub enum Write {}
/// Also allows changes to the tenant's members and settings.
#[derive(Debug, Clone, Copy)]
pub enum Manage {}

impl sealed::SealedLevel for Read {}
impl sealed::SealedLevel for Write {}
impl sealed::SealedLevel for Manage {}
impl AccessLevel for Read {
    const ACCESS: Access = Access::Read;
}
impl AccessLevel for Write {
    const ACCESS: Access = Access::Write;
}
impl AccessLevel for Manage {
    const ACCESS: Access = Access::Manage;
}
impl CanWrite for Write {}
impl CanWrite for Manage {}

/// One tenant's database, for one caller, at one level of access.
pub struct Tenant<A: AccessLevel> {
    pub(crate) router: Router,
    pub(crate) grant: Grant,
    pub(crate) pool: Arc<OpenPool>,
    /// The limits of the tenant's sessions.
    pub(crate) limits: SessionLimits,
    /// Counts the request as open; `None` when the tenant's requests are not limited.
    pass: Option<Arc<RequestPass>>,
    level: PhantomData<fn() -> A>,
}

impl<A: AccessLevel> Tenant<A> {
    pub(crate) fn new(router: Router, grant: Grant, pool: Arc<OpenPool>, pass: Option<Arc<RequestPass>>) -> Self {
        let limits = session_limits(router.inner.limits, grant.record().plan.as_ref());
        Self { router, grant, pool, limits, pass, level: PhantomData }
    }

    /// The tenant's id, which never changes.
    #[must_use]
    pub fn id(&self) -> TenantId {
        self.grant.record().id
    }
    /// The tenant's current slug.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.grant.record().name
    }
    /// The generation in the catalog when this tenant was opened. Key other caches of the tenant's data by it.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.grant.record().generation
    }
    /// The caller that opened the tenant.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        self.grant.principal()
    }
    /// The caller's role in this tenant.
    #[must_use]
    pub fn role(&self) -> Role {
        self.grant.role()
    }
    /// The catalog's record of the tenant. It may be slightly out of date.
    #[must_use]
    pub fn record(&self) -> &Arc<TenantRecord> {
        self.grant.record()
    }

    /// The rate of the tenant's plan after this request, for the headers of the answer. `None`: its rate is not limited.
    #[must_use]
    pub fn rate_state(&self) -> Option<RateState> {
        self.pass.as_ref().and_then(|pass| pass.rate_state())
    }

    /// Runs one reading statement in its own read-only transaction, in one hop.
    ///
    /// # Errors
    /// The statement's error as [`ErrorKind::Database`]; `Fenced` when the database still disagrees with the catalog
    /// after all retries.
    pub async fn query(&self, sql: &str, params: impl Into<Params>) -> Result<Rows> {
        self.run_statement(engine::AccessMode::Read, sql, params.into()).await
    }

    /// As [`Tenant::query`], with rows of the type `T`.
    ///
    /// ```
    /// # use serde::Deserialize;
    /// # use tenant_router::{Error, Read, Tenant};
    /// #[derive(Deserialize)]
    /// struct Task {
    ///     id: i64,
    ///     title: String,
    /// }
    ///
    /// async fn open_tasks(tenant: &Tenant<Read>) -> Result<Vec<Task>, Error> {
    ///     tenant.query_as("select id, title from tasks where done = ?1", [false]).fetch_all().await
    /// }
    /// ```
    pub fn query_as<'a, T>(&'a self, sql: &'a str, params: impl Into<Params>) -> TypedQuery<'a, T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let params = params.into();
        TypedQuery::from_fetch(move |rows_max| self.read_typed(sql, params, rows_max))
    }

    /// Runs one reading statement, whose rows are read as `T` where the engine finds them.
    async fn read_typed<T>(&self, sql: &str, params: Params, rows_max: usize) -> Result<Vec<T>>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let (limits, values) = (self.limits, params.into_values()?);
        let read = |pool: &Pool| {
            let (pool, statement) = (pool.clone(), new_statement(sql, values.clone()));
            async move { pool.read_rows(statement, limits, TypedRows::new(rows_max)).await }
        };
        self.run_hop(read).await?.0.into_rows()
    }

    /// Runs one reading statement, and returns its rows as `T` while the database still reads them. The answer may be
    /// longer than the limits on rows and bytes; it must be read within the limit on the time of a transaction.
    ///
    /// ```
    /// # use tenant_router::{Error, Read, Tenant};
    /// async fn longest_title(tenant: &Tenant<Read>) -> Result<usize, Error> {
    ///     let mut titles = tenant.stream_as::<String>("select title from tasks", ()).await?;
    ///     let mut longest = 0;
    ///     while let Some(title) = titles.next_row().await? {
    ///         longest = longest.max(title.len());
    ///     }
    ///     Ok(longest)
    /// }
    /// ```
    /// # Errors
    /// As [`Tenant::query`]. A later error is one of the stream.
    pub async fn stream_as<T: DeserializeOwned>(&self, sql: &str, params: impl Into<Params>) -> Result<TypedStream<T>> {
        let (limits, values) = (self.limits, params.into().into_values()?);
        let open = |pool: &Pool| {
            let (pool, statement) = (pool.clone(), new_statement(sql, values.clone()));
            async move { pool.stream_rows(statement, limits).await }
        };
        let (rows, held) = self.run_hop(open).await?;
        Ok(TypedStream::new(rows, (Arc::clone(&self.pool), self.pass.clone(), held)))
    }

    /// Runs several reading statements on one snapshot of the database, in one hop.
    ///
    /// # Errors
    /// As [`Tenant::query`]; the first error ends the batch.
    pub async fn query_batch(&self, statements: Vec<SqlStatement>) -> Result<Vec<Rows>> {
        Ok(self.first_hop(engine::AccessMode::Read, &|| statements.clone(), AfterStatements::Commit).await?.answers)
    }

    /// A transaction that reads one snapshot of the database. It begins with its first statement and ends when dropped.
    #[must_use]
    pub fn read(&self) -> ReadTx<'_, A> {
        ReadTx(TenantTransaction::new(self, engine::AccessMode::Read))
    }

    /// Opens the tenant for the caller at another level, by the rules of [`Router::open`](crate::Router::open).
    ///
    /// # Errors
    /// As [`Router::open`](crate::Router::open).
    pub async fn at<B: AccessLevel>(&self) -> Result<Tenant<B>> {
        self.router.open_again(Arc::clone(self.grant.principal()), self.id(), self.pass.clone()).await
    }

    /// Runs one statement in its own transaction.
    async fn run_statement(&self, access: engine::AccessMode, sql: &str, params: Params) -> Result<Rows> {
        let values = params.into_values()?;
        let statements = || vec![new_statement(sql, values.clone())];
        only_answer(self.first_hop(access, &statements, AfterStatements::Commit).await?.answers)
    }

    /// The hop that begins a transaction.
    pub(crate) async fn first_hop(
        &self,
        access: engine::AccessMode,
        statements: &StatementFactory<'_>,
        after: AfterStatements,
    ) -> Result<CompletedHop> {
        let limits = self.limits;
        let may_free = || after == AfterStatements::Commit && only_deletes(&statements());
        self.require_storage(access, may_free).await?;
        let hop = |pool: &Pool| {
            let (mut session, statements) = (pool.new_session(access, limits), statements());
            async move { session.run_statements(statements, after).await.map(|rows| (session, rows)) }
        };
        let ((session, answers), held) = self.run_hop(hop).await?;
        Ok(CompletedHop { session, answers, held })
    }

    /// Refuses to write to a database on a server that is as large as the tenant's plan allows.
    pub(crate) async fn require_storage(
        &self,
        access: engine::AccessMode,
        may_free: impl FnOnce() -> bool + Send,
    ) -> Result<()> {
        let (Some(limit), engine::AccessMode::Write) = (self.limits.storage_bytes_max, access) else { return Ok(()) };
        if matches!(self.pool.engine_pool(), Pool::Sqlite(_)) {
            return Ok(());
        }
        let RouterCaches { pools, meters, .. } = &*self.router.inner.caches;
        let size = self.router.inner.admission.size_of(self.id()).await;
        if size.has_reached(limit, pools.database_size(self.record(), &self.pool)).await && !may_free() {
            return Err(meters.counted(ErrorKind::Database(engine::ErrorKind::StorageFull).into()));
        }
        Ok(())
    }

    /// As [`Tenant::first_hop`], on the fleet's own tables.
    pub(crate) async fn first_own_hop(
        &self,
        access: engine::AccessMode,
        statement: &SqlStatement,
        after: AfterStatements,
    ) -> Result<CompletedHop> {
        let limits = self.limits;
        let hop = |pool: &Pool| {
            let (mut session, statements) = (pool.new_session(access, limits), vec![statement.clone()]);
            async move { session.run_own_statements(statements, after).await.map(|rows| (session, rows)) }
        };
        let ((session, answers), held) = self.run_hop(hop).await?;
        Ok(CompletedHop { session, answers, held })
    }

    /// Reads the fleet's own tables. Without them, the answer has no rows.
    pub(crate) async fn read_own(&self, statement: SqlStatement) -> Result<Rows> {
        only_answer(self.first_own_hop(engine::AccessMode::Read, &statement, AfterStatements::Commit).await?.answers)
    }

    /// Runs a hop that begins a transaction. If the database is not the expected one, nothing has run. The whole hop is
    /// then repeated on the database that the catalog now names. The connection counts as used until the hold is dropped.
    pub(crate) async fn run_hop<T, F>(&self, hop: impl Fn(&Pool) -> F + Send) -> Result<(T, Option<ConnectionHold>)>
    where
        F: Future<Output = engine::Result<T>> + Send,
    {
        let admission = &self.router.inner.admission;
        let held = admission.hold_connection(self.record(), self.limits.statement_timeout).await?;
        Ok((self.run_held_hop(hop).await?, held))
    }

    async fn run_held_hop<T, F>(&self, hop: impl Fn(&Pool) -> F + Send) -> Result<T>
    where
        F: Future<Output = engine::Result<T>> + Send,
    {
        let first = hop(self.pool.engine_pool());
        match first.await {
            Ok(done) => Ok(done),
            // Boxed, so that this rare case does not make every hop's future larger.
            Err(error) if is_out_of_step(error.kind()) => Box::pin(self.retry_elsewhere(error, hop)).await,
            Err(error) if error.kind() == engine::ErrorKind::AnswersMax => {
                Box::pin(self.retry_with_room(error, hop)).await
            }
            Err(error) => Err(self.router.inner.caches.meters.counted(error.into())),
        }
    }

    /// Repeats a hop that was refused because the answer budget was full. It waits until other answers have been sent;
    /// the refused hop changed nothing.
    async fn retry_with_room<T, F>(&self, mut refusal: engine::Error, hop: impl Fn(&Pool) -> F + Send) -> Result<T>
    where
        F: Future<Output = engine::Result<T>> + Send,
    {
        let until = Instant::now() + self.router.inner.hold;
        let (pool, mut seen) = (self.pool.engine_pool(), None);
        while pool.answer_share().wait_for_room(seen, until.saturating_duration_since(Instant::now())).await {
            seen = Some(pool.answer_share().returned_count());
            match hop(pool).await {
                Err(error) if error.kind() == engine::ErrorKind::AnswersMax && Instant::now() < until => {
                    refusal = error
                }
                done => return Ok(done?),
            }
        }
        Err(refusal.into())
    }

    async fn retry_elsewhere<T, F>(&self, mut refusal: engine::Error, hop: impl Fn(&Pool) -> F + Send) -> Result<T>
    where
        F: Future<Output = engine::Result<T>> + Send,
    {
        let RouterCaches { pools, meters, news, .. } = &*self.router.inner.caches;
        let mut patience = self.router.retry_budget();
        let mut pool = Arc::clone(&self.pool);
        loop {
            meters.fenced.increment(1);
            tracing::debug!(tenant = %self.id(), error = %refusal, "not the expected database");
            pools.discard_pool(&pool).await;
            if !patience.wait_before_retry(news).await {
                meters.fenced_out.increment(1);
                return Err(final_error(refusal.into()));
            }
            pool = self.router.retry_grant(&self.grant, &mut patience).await?.1;
            let again = hop(pool.engine_pool());
            match again.await {
                Ok(done) => return Ok(done),
                Err(error) if is_out_of_step(error.kind()) => refusal = error,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<A: CanWrite> Tenant<A> {
    /// Runs one statement that may write, in its own transaction and in one hop. The result contains `RETURNING` rows.
    ///
    /// # Errors
    /// As [`Tenant::query`]; after an error nothing was written.
    pub async fn execute(&self, sql: &str, params: impl Into<Params>) -> Result<Rows> {
        self.run_statement(engine::AccessMode::Write, sql, params.into()).await
    }

    /// As [`Tenant::execute`], with `RETURNING` rows of the type `T`.
    pub fn execute_as<'a, T: DeserializeOwned>(&'a self, sql: &'a str, params: impl Into<Params>) -> TypedQuery<'a, T> {
        TypedQuery::new(self.run_statement(engine::AccessMode::Write, sql, params.into()))
    }

    /// Runs several statements that may write in one transaction, all or nothing, in one hop.
    ///
    /// # Errors
    /// As [`Tenant::execute`]; the first error rolls back everything.
    pub async fn batch(&self, statements: Vec<SqlStatement>) -> Result<Vec<Rows>> {
        Ok(self.first_hop(engine::AccessMode::Write, &|| statements.clone(), AfterStatements::Commit).await?.answers)
    }

    /// Changes the fleet's own tables, in a transaction of its own.
    pub(crate) async fn write_own(&self, statement: SqlStatement) -> Result<Rows> {
        only_answer(self.first_own_hop(engine::AccessMode::Write, &statement, AfterStatements::Commit).await?.answers)
    }

    /// A transaction that may write. It begins with its first statement. Dropped without a commit, it rolls back.
    #[must_use]
    pub fn write(&self) -> WriteTx<'_, A> {
        WriteTx(TenantTransaction::new(self, engine::AccessMode::Write))
    }
}

impl<A: AccessLevel> std::fmt::Debug for Tenant<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenant")
            .field("id", &self.id())
            .field("access", &A::ACCESS)
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

/// The error for a transaction whose database was fenced: it is rolled back and may be started again.
pub(crate) fn fenced_transaction_error(error: engine::Error) -> Error {
    final_error(error.into())
}

/// Makes the statements of a hop anew for each try.
pub(crate) type StatementFactory<'a> = dyn Fn() -> Vec<SqlStatement> + Sync + 'a;

/// A hop that succeeded.
pub(crate) struct CompletedHop {
    pub(crate) session: DatabaseSession,
    /// One answer per statement.
    pub(crate) answers: Vec<Rows>,
    /// Counts the session's connection as used.
    pub(crate) held: Option<ConnectionHold>,
}

pub(crate) fn new_statement(sql: &str, params: Vec<SqlValue>) -> SqlStatement {
    SqlStatement { sql: sql.to_owned(), params }
}

/// The result of the only statement.
pub(crate) fn only_answer(mut answers: Vec<Rows>) -> Result<Rows> {
    answers.pop().ok_or_else(|| ErrorKind::Misconfigured.into())
}
