//! A tenant's file made with SQLite directly, and pools on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use tenant_engine::sqlite::{SqliteEngine, SqliteOptions, SqlitePool};
use tenant_engine::{
    Access, After, Engine, Expected, FleetId, Generation, IdentityState, Limits, Placement, Pool, Result, Rows,
    Session, Statement, TenantId, Value,
};

pub(crate) struct Fixture {
    pub(crate) engine: SqliteEngine,
    dir: TempDir,
}

/// One tenant's file and what its pool expects of it.
pub(crate) struct Tenant {
    pub(crate) at: Placement,
    pub(crate) expected: Expected,
}

pub(crate) fn options(dir: &Path) -> SqliteOptions {
    SqliteOptions::new(dir)
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut SqliteOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path());
        change(&mut options);
        Self { engine: SqliteEngine::new(options).unwrap(), dir }
    }

    /// A file with a table `t(id, v)` that holds one row (1, 'one').
    pub(crate) fn tenant(&self) -> Tenant {
        let tenant = TenantId::generate();
        let at = Placement::sqlite(self.dir.path(), tenant, Generation::FIRST, 1);
        let expected = Expected {
            tenant,
            fleet: FleetId::generate(),
            generation: Generation::FIRST,
            states: vec![IdentityState::Active],
        };
        std::fs::create_dir_all(at.path().parent().unwrap()).unwrap();
        create(&at.path(), &expected);
        Tenant { at, expected }
    }

    pub(crate) async fn pool(&self, tenant: &Tenant) -> Pool {
        self.engine.connect(&tenant.at, &tenant.expected).await.unwrap()
    }
}

impl Tenant {
    /// A connection that the engine knows nothing of, as another process would have.
    pub(crate) fn raw(&self) -> Connection {
        Connection::open(self.at.path()).unwrap()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.at.path()
    }
}

fn create(path: &Path, expected: &Expected) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(
        "pragma journal_mode = wal;
         create table _fleet_identity(one integer primary key check(one = 1), tenant_id text not null,
           fleet_id text not null, generation integer not null, state text not null, op_id text,
           stamped_at integer not null) strict;
         create table _sqlx_migrations(version integer primary key);
         create table t(id integer primary key, v text unique);
         insert into t values(1, 'one');",
    )
    .unwrap();
    db.execute(
        "insert into _fleet_identity values(1, ?1, ?2, ?3, 'active', null, 0)",
        (expected.tenant.to_string(), expected.fleet.to_string(), expected.generation.0),
    )
    .unwrap();
}

pub(crate) fn statement(sql: &str) -> Statement {
    Statement { sql: sql.to_owned(), params: Vec::new() }
}

pub(crate) fn limits(statement_ms: u64, transaction_ms: u64) -> Limits {
    Limits {
        statement_timeout: Duration::from_millis(statement_ms),
        transaction_timeout: Duration::from_millis(transaction_ms),
        ..Limits::default()
    }
}

/// Runs one statement in a transaction of its own.
pub(crate) async fn one(pool: &Pool, access: Access, sql: &str, params: Vec<Value>) -> Result<Rows> {
    let mut session = pool.session(access, Limits::default());
    let statement = Statement { sql: sql.to_owned(), params };
    session.run(vec![statement], After::Commit).await.map(|mut all| all.remove(0))
}

pub(crate) async fn read(pool: &Pool, sql: &str) -> Result<Rows> {
    one(pool, Access::Read, sql, Vec::new()).await
}

pub(crate) async fn write(pool: &Pool, sql: &str) -> Result<Rows> {
    one(pool, Access::Write, sql, Vec::new()).await
}

/// The only cell of the only row.
pub(crate) async fn cell(pool: &Pool, sql: &str) -> Value {
    read(pool, sql).await.unwrap().rows.remove(0).remove(0)
}

pub(crate) async fn keep(session: &mut Session, sql: &str) -> Result<Rows> {
    session.run(vec![statement(sql)], After::Keep).await.map(|mut all| all.remove(0))
}

pub(crate) fn sqlite(pool: &Pool) -> &SqlitePool {
    match pool {
        Pool::Sqlite(pool) => pool,
        other => panic!("a pool of SQLite: {other:?}"),
    }
}
