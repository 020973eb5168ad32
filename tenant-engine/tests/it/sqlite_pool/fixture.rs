//! A tenant's file made with SQLite directly, and pools on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use tenant_engine::sqlite::{SqliteEngine, SqliteOptions, SqlitePool};
use tenant_engine::{
    AccessMode, AfterStatements, DatabaseSession, Engine, ExpectedIdentity, FleetId, Generation, IdentityState,
    Placement, Pool, Result, Rows, SessionLimits, SqlStatement, SqlValue, TenantId,
};

pub(crate) struct Fixture {
    pub(crate) engine: SqliteEngine,
    dir: TempDir,
}

/// One tenant's file and what its pool expects of it.
pub(crate) struct Tenant {
    pub(crate) at: Placement,
    pub(crate) expected: ExpectedIdentity,
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
        let at = Placement::new_sqlite(self.dir.path(), tenant, Generation::FIRST, 1);
        let expected = ExpectedIdentity {
            tenant,
            fleet: FleetId::generate(),
            generation: Generation::FIRST,
            states: vec![IdentityState::Active],
        };
        std::fs::create_dir_all(at.file_path().parent().unwrap()).unwrap();
        create(&at.file_path(), &expected);
        Tenant { at, expected }
    }

    pub(crate) async fn pool(&self, tenant: &Tenant) -> Pool {
        self.engine.open_pool(&tenant.at, &tenant.expected).await.unwrap()
    }
}

impl Tenant {
    /// A connection that the engine knows nothing of, as another process would have.
    pub(crate) fn raw(&self) -> Connection {
        Connection::open(self.at.file_path()).unwrap()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.at.file_path()
    }
}

fn create(path: &Path, expected: &ExpectedIdentity) {
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

pub(crate) fn statement(sql: &str) -> SqlStatement {
    SqlStatement { sql: sql.to_owned(), params: Vec::new() }
}

pub(crate) fn limits(statement_ms: u64, transaction_ms: u64) -> SessionLimits {
    SessionLimits {
        statement_timeout: Duration::from_millis(statement_ms),
        transaction_timeout: Duration::from_millis(transaction_ms),
        ..SessionLimits::default()
    }
}

/// Runs one statement in a transaction of its own.
pub(crate) async fn one(pool: &Pool, access: AccessMode, sql: &str, params: Vec<SqlValue>) -> Result<Rows> {
    let mut session = pool.new_session(access, SessionLimits::default());
    let statement = SqlStatement { sql: sql.to_owned(), params };
    session.run_statements(vec![statement], AfterStatements::Commit).await.map(|mut all| all.remove(0))
}

pub(crate) async fn read(pool: &Pool, sql: &str) -> Result<Rows> {
    one(pool, AccessMode::Read, sql, Vec::new()).await
}

pub(crate) async fn write(pool: &Pool, sql: &str) -> Result<Rows> {
    one(pool, AccessMode::Write, sql, Vec::new()).await
}

/// The only cell of the only row.
pub(crate) async fn cell(pool: &Pool, sql: &str) -> SqlValue {
    read(pool, sql).await.unwrap().rows.remove(0).remove(0)
}

pub(crate) async fn keep(session: &mut DatabaseSession, sql: &str) -> Result<Rows> {
    session.run_statements(vec![statement(sql)], AfterStatements::Keep).await.map(|mut all| all.remove(0))
}

pub(crate) fn sqlite(pool: &Pool) -> &SqlitePool {
    match pool {
        Pool::Sqlite(pool) => pool,
        other => panic!("a pool of SQLite: {other:?}"),
    }
}
