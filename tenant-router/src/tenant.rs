//! What a handler receives: one tenant's database, at one level of access. Everything about a tenant hangs here.
//!
//! Made by `router.rs` only, from a [`Grant`]. A statement runs in a transaction whose BEGIN and identity check travel
//! with it in one hop; if the database turns out not to be the one the catalog names, nothing has run yet, and the whole
//! hop is repeated on the right one (`fence.rs`). It never falls back to another database.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use catalog::members::Role;
use catalog::{Generation, TenantId, TenantRecord};
use tenant_engine::sqlite::SqliteTx;
use tenant_engine::{self as engine, After, Pool, Rows, Session, Statement};

use crate::authorize::{Access, Grant};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::Caches;
use crate::fence::{give_up, is_out_of_step};
use crate::params::Params;
use crate::pools::OpenPool;
use crate::principal::Principal;
use crate::router::Router;

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
    pub(crate) router: Router,
    pub(crate) grant: Grant,
    pub(crate) pool: Arc<OpenPool>,
    level: PhantomData<fn() -> A>,
}

impl<A: Level> Tenant<A> {
    pub(crate) fn new(router: Router, grant: Grant, pool: Arc<OpenPool>) -> Self {
        Self { router, grant, pool, level: PhantomData }
    }

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
    /// The statement's own, as [`ErrorKind::Database`]; `Fenced` when the database stays
    /// out of step with the catalog.
    pub async fn query(&self, sql: &str, params: impl Into<Params>) -> Result<Rows> {
        self.one(engine::Access::Read, sql, params.into()).await
    }

    /// Runs several statements that read, all on one state of the database: one hop.
    ///
    /// # Errors
    /// As [`Tenant::query`]; the first error ends it.
    pub async fn query_batch(&self, statements: Vec<Statement>) -> Result<Vec<Rows>> {
        Ok(self.first_hop(engine::Access::Read, &|| statements.clone(), After::Commit).await?.1)
    }

    /// A transaction that reads one state of the database. It begins with its first statement; dropped, it is over.
    #[must_use]
    pub fn read(&self) -> ReadTx<'_, A> {
        ReadTx(Tx { tenant: self, access: engine::Access::Read, session: None })
    }

    /// The same tenant and caller at another level, by the same rules as [`Router::open`](crate::Router::open).
    ///
    /// # Errors
    /// As [`Router::open`](crate::Router::open).
    pub async fn at<B: Level>(&self) -> Result<Tenant<B>> {
        self.router.open_id(Arc::clone(self.grant.principal()), self.id()).await
    }

    /// Runs a closure with many statements on one state of the database, in one hop. SQLite only. The closure runs on a
    /// worker that others wait for: it must not wait for anything but the database. It is cloned, in case the hop has
    /// to be repeated; it runs to its end at most once.
    ///
    /// # Errors
    /// The closure's; as [`Tenant::query`].
    pub async fn read_with<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&SqliteTx<'_>) -> engine::Result<T> + Clone + Send + 'static,
    {
        self.with(engine::Access::Read, work).await
    }

    async fn with<T, F>(&self, access: engine::Access, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&SqliteTx<'_>) -> engine::Result<T> + Clone + Send + 'static,
    {
        let limits = self.router.inner.limits;
        self.on_its_database(move |pool| {
            let (pool, work) = (pool.clone(), work.clone());
            async move {
                match pool {
                    Pool::Sqlite(pool) => pool.with(access, limits, work).await,
                    Pool::Postgres(_) => Err(engine::Error::new(engine::ErrorKind::Internal, CLOSURES_OF_SQLITE)),
                }
            }
        })
        .await
    }

    /// One statement in a transaction of its own.
    async fn one(&self, access: engine::Access, sql: &str, params: Params) -> Result<Rows> {
        let statements = || vec![statement(sql, params.clone())];
        let (_, answers) = self.first_hop(access, &statements, After::Commit).await?;
        only(answers)
    }

    /// The hop that begins a transaction.
    async fn first_hop(&self, access: engine::Access, statements: &Statements<'_>, after: After) -> Result<Hop> {
        let limits = self.router.inner.limits;
        self.on_its_database(|pool| {
            let (mut session, statements) = (pool.session(access, limits), statements());
            async move { session.run(statements, after).await.map(|rows| (session, rows)) }
        })
        .await
    }

    /// Runs a hop that begins a transaction. When the database turns out not to be the expected one nothing has run, so the
    /// whole hop may be repeated where the catalog now says.
    async fn on_its_database<T, F>(&self, hop: impl Fn(&Pool) -> F + Send) -> Result<T>
    where
        F: Future<Output = engine::Result<T>> + Send,
    {
        let first = hop(self.pool.pool());
        match first.await {
            Ok(done) => Ok(done),
            // Boxed: the rare way must not make every hop's future larger.
            Err(error) if is_out_of_step(error.kind()) => Box::pin(self.elsewhere(error, hop)).await,
            Err(error) if error.kind() == engine::ErrorKind::AnswersMax => Box::pin(self.with_room(error, hop)).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Runs a hop again whose answer had no room, when others have been sent: nothing of it was done.
    async fn with_room<T, F>(&self, mut refusal: engine::Error, hop: impl Fn(&Pool) -> F + Send) -> Result<T>
    where
        F: Future<Output = engine::Result<T>> + Send,
    {
        let until = Instant::now() + self.router.inner.hold;
        let (pool, mut seen) = (self.pool.pool(), None);
        while pool.answers().wait_for_room(seen, until.saturating_duration_since(Instant::now())).await {
            seen = Some(pool.answers().returned());
            match hop(pool).await {
                Err(error) if error.kind() == engine::ErrorKind::AnswersMax && Instant::now() < until => {
                    refusal = error
                }
                done => return Ok(done?),
            }
        }
        Err(refusal.into())
    }

    async fn elsewhere<T, F>(&self, mut refusal: engine::Error, hop: impl Fn(&Pool) -> F + Send) -> Result<T>
    where
        F: Future<Output = engine::Result<T>> + Send,
    {
        let Caches { pools, meters, news, .. } = &*self.router.inner.caches;
        let mut patience = self.router.patience();
        let mut pool = Arc::clone(&self.pool);
        loop {
            meters.fenced.increment(1);
            tracing::debug!(tenant = %self.id(), error = %refusal, "not the expected database");
            pools.discard(&pool).await;
            if !patience.pause(news).await {
                meters.fenced_out.increment(1);
                return Err(give_up(refusal.into()));
            }
            pool = self.router.settle_grant(&self.grant, &mut patience).await?.1;
            let again = hop(pool.pool());
            match again.await {
                Ok(done) => return Ok(done),
                Err(error) if is_out_of_step(error.kind()) => refusal = error,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<A: CanWrite> Tenant<A> {
    /// Runs one statement that may write, in a transaction of its own: one hop. `RETURNING` rows are in the answer.
    ///
    /// # Errors
    /// As [`Tenant::query`]; nothing was written then.
    pub async fn execute(&self, sql: &str, params: impl Into<Params>) -> Result<Rows> {
        self.one(engine::Access::Write, sql, params.into()).await
    }

    /// Runs several statements that may write in one transaction, all or nothing: one hop.
    ///
    /// # Errors
    /// As [`Tenant::execute`]; the first error undoes everything.
    pub async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Rows>> {
        Ok(self.first_hop(engine::Access::Write, &|| statements.clone(), After::Commit).await?.1)
    }

    /// As [`Tenant::read_with`], and may write: committed when the closure returns `Ok`, else rolled back.
    ///
    /// # Errors
    /// The closure's; as [`Tenant::execute`].
    pub async fn write_with<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&SqliteTx<'_>) -> engine::Result<T> + Clone + Send + 'static,
    {
        self.with(engine::Access::Write, work).await
    }

    /// A transaction that may write. It begins with its first statement; dropped without commit, it rolls back by itself.
    #[must_use]
    pub fn write(&self) -> WriteTx<'_, A> {
        WriteTx(Tx { tenant: self, access: engine::Access::Write, session: None })
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

/// What both kinds of transaction are made of.
struct Tx<'a, A: Level> {
    tenant: &'a Tenant<A>,
    access: engine::Access,
    /// `None`: not begun.
    session: Option<Session>,
}

impl<A: Level> Tx<'_, A> {
    async fn run(&mut self, sql: &str, params: Params) -> Result<Rows> {
        let answers = match &mut self.session {
            Some(session) => session.run(vec![statement(sql, params)], After::Keep).await.map_err(fenced_in)?,
            None => {
                let statements = || vec![statement(sql, params.clone())];
                let (session, answers) = self.tenant.first_hop(self.access, &statements, After::Keep).await?;
                self.session = Some(session);
                answers
            }
        };
        only(answers)
    }
}

/// A transaction that reads; see [`Tenant::read`].
pub struct ReadTx<'a, A: Level>(Tx<'a, A>);

impl<A: Level> ReadTx<'_, A> {
    /// Runs one statement that reads.
    ///
    /// # Errors
    /// As [`Tenant::query`]; the transaction is over then.
    pub async fn query(&mut self, sql: &str, params: impl Into<Params>) -> Result<Rows> {
        self.0.run(sql, params.into()).await
    }
}

/// A transaction that may write; see [`Tenant::write`].
pub struct WriteTx<'a, A: CanWrite>(Tx<'a, A>);

impl<A: CanWrite> WriteTx<'_, A> {
    /// Runs one statement that reads what this transaction sees.
    ///
    /// # Errors
    /// As [`Tenant::execute`]; the transaction is rolled back then.
    pub async fn query(&mut self, sql: &str, params: impl Into<Params>) -> Result<Rows> {
        self.0.run(sql, params.into()).await
    }

    /// Runs one statement that may write.
    ///
    /// # Errors
    /// As [`Tenant::execute`]; the transaction is rolled back then.
    pub async fn execute(&mut self, sql: &str, params: impl Into<Params>) -> Result<Rows> {
        self.0.run(sql, params.into()).await
    }

    /// Makes everything durable and visible at once.
    ///
    /// # Errors
    /// When the commit fails; everything is rolled back then.
    pub async fn commit(mut self) -> Result<()> {
        match &mut self.0.session {
            Some(session) => session.commit().await.map_err(fenced_in),
            None => Ok(()),
        }
    }

    /// Undoes everything, and waits until that is done. Dropping does the same without waiting.
    ///
    /// # Errors
    /// When the connection is lost; the database rolls back by itself then.
    pub async fn rollback(mut self) -> Result<()> {
        match &mut self.0.session {
            Some(session) => Ok(session.rollback().await?),
            None => Ok(()),
        }
    }
}

/// Of a server's connection a closure would hold a thread while it waits for the network.
const CLOSURES_OF_SQLITE: &str = "closures run on SQLite only; this tenant lives in a PostgreSQL database: use query, execute, batch or a transaction";

/// What a transaction is told that a fence found open: it is undone, and may be begun again.
fn fenced_in(error: engine::Error) -> Error {
    give_up(error.into())
}

/// Makes the statements of a hop, again for each try.
type Statements<'a> = dyn Fn() -> Vec<Statement> + Sync + 'a;

/// A hop that succeeded: the session and one answer per statement.
type Hop = (Session, Vec<Rows>);

fn statement(sql: &str, params: Params) -> Statement {
    Statement { sql: sql.to_owned(), params: params.0 }
}

/// The answer to the only statement.
fn only(mut answers: Vec<Rows>) -> Result<Rows> {
    answers.pop().ok_or_else(|| ErrorKind::Misconfigured.into())
}
