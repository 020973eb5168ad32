//! An engine on a temporary directory, with many tenants on it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use rusqlite::Connection;
use tempfile::TempDir;
use tenant_engine::migration::MigrationFile;
use tenant_engine::sqlite::{SqliteEngine, SqliteOptions};
use tenant_engine::{
    Engine, ExpectedIdentity, FleetId, Generation, Identity, IdentityState, MigrationSet, Placement, TenantId,
};

/// Verbs in flight: one that waits for the flush holds no thread, and one flush serves all that wait.
const IN_FLIGHT: usize = 256;

/// An engine and where its tenants live.
#[derive(Debug)]
pub struct Server {
    /// Under measurement.
    pub engine: SqliteEngine,
    fleet: FleetId,
    root: TempDir,
}

/// One tenant of a [`Server`].
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Where it is.
    pub at: Placement,
    identity: Identity,
}

impl Server {
    /// An empty server whose engine has `threads` threads for verbs.
    ///
    /// # Errors
    /// The engine's.
    pub fn new(threads: usize) -> Result<Self> {
        let root = tempfile::tempdir()?;
        let scratch = root.path().join("scratch");
        // Two threads are kept for requests, of which there are none here.
        let options = SqliteOptions { workers: Some(threads + 2), ..SqliteOptions::new(scratch) };
        Ok(Self { engine: SqliteEngine::new(options)?, fleet: FleetId::generate(), root })
    }

    /// Creates `count` tenants at the head of `set` and says how long that took, template included.
    ///
    /// # Errors
    /// The engine's.
    pub async fn provision(&self, set: &MigrationSet, count: usize) -> Result<(Vec<Tenant>, Duration)> {
        let tenants: Vec<Tenant> = (0..count).map(|_| self.tenant()).collect();
        let begun = Instant::now();
        let template =
            self.engine.prepare_template(&tenant_engine::DatabaseServer::new_sqlite(self.root.path()), set).await?;
        self.each(&tenants, |engine, tenant| {
            let template = template.clone();
            async move { Ok(engine.provision_database(&tenant.at, &template, &tenant.identity).await?) }
        })
        .await?;
        Ok((tenants, begun.elapsed()))
    }

    /// Brings the tenants to the head of `set` and says how long that took.
    ///
    /// # Errors
    /// The engine's.
    pub async fn migrate(&self, tenants: &[Tenant], set: &MigrationSet) -> Result<Duration> {
        let begun = Instant::now();
        self.each(tenants, |engine, tenant| {
            let set = set.clone();
            async move { Ok(engine.migrate_database(&tenant.at, &tenant.expected(), &set, None).await.map(drop)?) }
        })
        .await?;
        Ok(begun.elapsed())
    }

    async fn each<F: Future<Output = Result<()>> + Send + 'static>(
        &self,
        tenants: &[Tenant],
        work: impl Fn(SqliteEngine, Tenant) -> F,
    ) -> Result<()> {
        let mut running = tokio::task::JoinSet::new();
        for tenant in tenants {
            if running.len() >= IN_FLIGHT
                && let Some(done) = running.join_next().await
            {
                done??;
            }
            running.spawn(work(self.engine.clone(), tenant.clone()));
        }
        while let Some(done) = running.join_next().await {
            done??;
        }
        Ok(())
    }

    fn tenant(&self) -> Tenant {
        let tenant = TenantId::generate();
        let identity = Identity {
            tenant,
            fleet: self.fleet,
            generation: Generation::FIRST,
            state: IdentityState::Active,
            op: None,
            stamped_at: 0,
        };
        Tenant { at: Placement::new_sqlite(self.root.path(), tenant, Generation::FIRST, 1), identity }
    }
}

impl Tenant {
    fn expected(&self) -> ExpectedIdentity {
        let Identity { tenant, fleet, generation, state, .. } = self.identity;
        ExpectedIdentity { tenant, fleet, generation, states: vec![state] }
    }
}

/// What the comparison does to every file on `threads` threads; how long it took.
///
/// # Errors
/// Those of `work`.
///
/// # Panics
/// When a thread does.
pub fn on_threads(
    paths: &[PathBuf],
    threads: usize,
    work: impl Fn(&Path) -> Result<()> + Send + Sync,
) -> Result<Duration> {
    let begun = Instant::now();
    let work = &work;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|n| scope.spawn(move || paths.iter().skip(n).step_by(threads).try_for_each(|path| work(path))))
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    Ok(begun.elapsed())
}

/// One change by hand: write-ahead log, every commit synced.
///
/// # Errors
/// SQLite's.
pub fn by_hand(path: &Path, sql: &str) -> Result<()> {
    let db = Connection::open(path)?;
    db.execute_batch(&format!("pragma journal_mode = wal; pragma synchronous = full; begin immediate; {sql}; commit"))?;
    db.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// A table of about 100 KB and nine small ones: a set of ten files.
#[must_use]
pub fn ten_files() -> Vec<MigrationFile> {
    let first = "create table tasks(id integer primary key, title text not null, body text not null);
                 create index tasks_title on tasks(title);
                 insert into tasks(title, body)
                 with recursive n(i) as (values(1) union all select i + 1 from n where i < 300)
                 select 'task ' || i, hex(randomblob(90)) from n;";
    let more =
        |n: usize| format!("create table t{n}(id integer primary key, a text, b text); create index i{n} on t{n}(a);");
    let file = |n: usize, sql: String| MigrationFile { name: format!("{n:04}_v.sql"), sql };
    std::iter::once(file(1, first.to_owned())).chain((2..=10).map(|n| file(n, more(n)))).collect()
}
