//! Whose database it is, checked inside every transaction.

use tenant_engine::{
    AccessMode, AfterStatements, Engine, ErrorKind, ExpectedIdentity, Generation, IdentityState, Placement,
    SessionLimits, SqlValue, TenantId,
};

use super::fixture::{Fixture, Tenant, cell, keep, read, statement, write};

fn stamp(tenant: &Tenant, change: &str) {
    tenant.raw().execute_batch(&format!("update _fleet_identity set {change}")).unwrap();
}

#[tokio::test]
async fn a_change_between_two_transactions_is_noticed_by_the_next() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    let pool = fixture.pool(&tenant).await;
    write(&pool, "insert into t values(2, 'two')").await.unwrap();
    let mut open = pool.new_session(AccessMode::Read, SessionLimits::default());
    keep(&mut open, "select 1").await.unwrap();
    stamp(&tenant, "generation = 2");
    assert_eq!(read(&pool, "select 1").await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(write(&pool, "delete from t").await.unwrap_err().kind(), ErrorKind::Fenced);
    // A snapshot that was taken before is still the tenant's data of that time.
    keep(&mut open, "select * from t").await.unwrap();
    open.commit().await.unwrap();
    stamp(&tenant, "generation = 1");
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(2));
}

#[tokio::test]
async fn somebody_elses_database_is_refused() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    let pool = fixture.pool(&tenant).await;
    for change in [format!("tenant_id = '{}'", TenantId::generate()), "fleet_id = 'flt_0'".to_owned()] {
        stamp(&tenant, &change);
        let kind = read(&pool, "select 1").await.unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::WrongTenant | ErrorKind::Corrupt), "{kind:?}");
    }
    let other = fixture.tenant();
    let error = fixture.engine.open_pool(&other.at, &tenant.expected).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongTenant);
}

#[tokio::test]
async fn the_state_decides_who_may_enter() {
    use IdentityState::{Active, Frozen};
    let table = [
        ("active", vec![Active], true, true),
        ("active", vec![Active, Frozen], true, true),
        ("frozen", vec![Active], false, false),
        ("frozen", vec![Active, Frozen], true, false),
        ("frozen", vec![Frozen], true, false),
        ("active", vec![Frozen], false, false),
        ("building", vec![Active, Frozen], false, false),
        ("moved", vec![Active, Frozen], false, false),
        ("tombstone", vec![Active, Frozen], false, false),
        // Not even when asked for: requests never see a database that is being filled.
        ("building", vec![IdentityState::Building], false, false),
    ];
    let fixture = Fixture::new();
    for (state, states, reads, writes) in table {
        let tenant = fixture.tenant();
        let expected = ExpectedIdentity { states, ..tenant.expected.clone() };
        stamp(&tenant, &format!("state = '{state}'"));
        let connected = fixture.engine.open_pool(&tenant.at, &expected).await;
        assert_eq!(connected.is_ok(), reads, "{state} {:?}", expected.states);
        let Ok(pool) = connected else { continue };
        let written = write(&pool, "insert into t values(2, 'two')").await;
        assert_eq!(written.as_ref().err().map(tenant_engine::Error::kind), (!writes).then_some(ErrorKind::Fenced));
    }
}

#[tokio::test]
async fn a_missing_file_is_never_created() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    let elsewhere = Placement::new_sqlite(tenant.at.server_root(), tenant.expected.tenant, Generation(2), 1);
    let error = fixture.engine.open_pool(&elsewhere, &tenant.expected).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert!(!elsewhere.file_path().exists());
    // Nor when it goes away later, and a connection has to be opened.
    let pool = fixture.pool(&tenant).await;
    std::fs::remove_file(tenant.path()).unwrap();
    let error = write(&pool, "delete from t").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert!(!tenant.path().exists());
}

#[tokio::test]
async fn what_is_no_database_is_corrupt() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    std::fs::write(tenant.path(), "This is not a database. ".repeat(400)).unwrap();
    let error = fixture.engine.open_pool(&tenant.at, &tenant.expected).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    // An empty file is a database without identity to SQLite, and must not be filled.
    let tenant = fixture.tenant();
    std::fs::write(tenant.path(), "").unwrap();
    let error = fixture.engine.open_pool(&tenant.at, &tenant.expected).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongTenant);
    assert_eq!(std::fs::metadata(tenant.path()).unwrap().len(), 0);
}

#[tokio::test]
async fn a_changed_schema_is_picked_up_by_cached_statements() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    let pool = fixture.pool(&tenant).await;
    assert_eq!(read(&pool, "select * from t").await.unwrap().columns, ["id", "v"]);
    tenant.raw().execute_batch("alter table t add column w default 'new'").unwrap();
    let rows = read(&pool, "select * from t").await.unwrap();
    assert_eq!(rows.columns, ["id", "v", "w"]);
    assert_eq!(rows.rows, [[SqlValue::Integer(1), "one".into(), "new".into()]]);
    tenant.raw().execute_batch("drop table t").unwrap();
    assert_eq!(read(&pool, "select * from t").await.unwrap_err().kind(), ErrorKind::SqlInvalid);
}

#[tokio::test]
async fn a_cached_statement_stays_in_the_sandbox_when_the_schema_changes() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    let raw = tenant.raw();
    raw.execute_batch("create view shown as select v from t").unwrap();
    let pool = fixture.pool(&tenant).await;
    read(&pool, "select * from shown").await.unwrap();
    raw.execute_batch(
        "create table _fleet_secret(v); drop view shown; create view shown as select v from _fleet_secret",
    )
    .unwrap();
    assert_eq!(read(&pool, "select * from shown").await.unwrap_err().kind(), ErrorKind::SqlForbidden);
    let mut session = pool.new_session(AccessMode::Read, SessionLimits::default());
    session.run_statements(vec![statement("select 1")], AfterStatements::Commit).await.unwrap();
}
