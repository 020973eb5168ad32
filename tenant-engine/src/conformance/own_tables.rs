//! The laws of the fleet's own tables: they commit with the tenant's data, travel with it, and are hidden from its SQL.

use super::kit::{base_and, base_set, expect_ok, expect_refusal};
use super::{ConformanceTenant, EngineUnderTest};
use crate::{
    AccessMode, AfterStatements, ErrorKind, IdentityState, Pool, Result, Rows, SessionLimits, SqlStatement, SqlValue,
};

const RECEIVE: &str = "insert into _fleet_received (provider, account, event_id, received_at) values ('p', 'a', $1, 1)";
const RECEIVED: &str = "select event_id from _fleet_received order by event_id";

fn own(sql: &str, params: Vec<SqlValue>) -> Vec<SqlStatement> {
    vec![SqlStatement { sql: sql.to_owned(), params }]
}

async fn receive(pool: &Pool, id: &str, after: AfterStatements) -> Result<Vec<Rows>> {
    let id = SqlValue::Text(id.to_owned());
    pool.new_session(AccessMode::Write, SessionLimits::default())
        .run_own_statements(own(RECEIVE, vec![id]), after)
        .await
}

async fn received(pool: &Pool) -> Vec<Vec<SqlValue>> {
    let mut session = pool.new_session(AccessMode::Read, SessionLimits::default());
    let rows = session.run_own_statements(own(RECEIVED, vec![]), AfterStatements::Commit).await;
    expect_ok(rows).remove(0).rows
}

/// Tables appear with the first write. A rollback leaves nothing, a commit is durable together with the tenant's rows.
pub(super) async fn own_tables_commit_with_the_data(subject: &EngineUnderTest) {
    let one = subject.provision_tenant(&base_set()).await;
    let before = expect_ok(subject.engine.compute_fingerprint(&one.at, &one.expected_identity()).await);
    let pool = expect_ok(subject.engine.open_pool(&one.at, &one.expected_identity()).await);
    assert!(received(&pool).await.is_empty(), "before the first write there are no rows");
    expect_ok(receive(&pool, "rolled back", AfterStatements::Keep).await);
    assert!(received(&pool).await.is_empty(), "a dropped session rolls back");
    let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
    expect_ok(session.run_statements(own("insert into t1 values (1)", vec![]), AfterStatements::Keep).await);
    let id = SqlValue::Text("first".to_owned());
    expect_ok(session.run_own_statements(own(RECEIVE, vec![id.clone()]), AfterStatements::Keep).await);
    expect_ok(session.commit().await);
    assert_eq!(received(&pool).await, [vec![id]]);
    let twice = receive(&pool, "first", AfterStatements::Commit).await;
    expect_refusal(twice, ErrorKind::Constraint);
    refuses_tenant_sql(&pool).await;
    pool.close().await;
    let after = expect_ok(subject.engine.compute_fingerprint(&one.at, &one.expected_identity()).await);
    let empty = after.tables.iter().all(|(name, sum)| !name.contains("_fleet_jobs") || sum.rows == 0);
    assert!(empty && before.first_difference(&after).is_some(), "the rows count, the tables do not: {after:?}");
    assert_eq!(before.objects.first_difference(&after.objects), None, "comparisons of schemas leave them out");
    migrations_leave_them(subject, &one).await;
    they_travel(subject, &one).await;
}

async fn refuses_tenant_sql(pool: &Pool) {
    for sql in [
        "select * from _fleet_jobs",
        "select 1 from \"_fleet_received\"",
        "delete from _FLEET_JOBS",
        "insert into _fleet_received (provider, account, event_id, received_at) values ('p', 'a', 'x', 1)",
        "update _fleet_jobs set kind = 'x'",
        "with stolen as (select payload from _fleet_jobs) select * from stolen",
    ] {
        let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
        let answer = session.run_statements(own(sql, vec![]), AfterStatements::Commit).await;
        expect_refusal(answer, ErrorKind::SqlForbidden);
    }
}

async fn migrations_leave_them(subject: &EngineUnderTest, one: &ConformanceTenant) {
    for sql in ["drop table _fleet_jobs;", "alter table _fleet_received add column x integer;"] {
        let set = base_and(&[sql]);
        let refused = subject.engine.migrate_database(&one.at, &one.expected_identity(), &set, None).await;
        assert!(refused.is_err(), "{sql}");
    }
}

/// A restored database has the rows and can write more. A frozen one cannot.
async fn they_travel(subject: &EngineUnderTest, one: &ConformanceTenant) {
    let taken = expect_ok(subject.engine.take_snapshot(&one.at, &one.expected_identity()).await);
    let copy = subject.place_tenant(one.at_generation(3, IdentityState::Building).identity);
    expect_ok(subject.engine.restore_database(&copy.at, taken.image, one.identity.tenant, &copy.identity).await);
    let here = expect_ok(subject.engine.compute_fingerprint(&one.at, &one.expected_identity()).await);
    let there = expect_ok(subject.engine.compute_fingerprint(&copy.at, &copy.expected_identity()).await);
    assert_eq!(here.first_difference(&there), None);
    let serving = one.at_generation(3, IdentityState::Active).identity;
    expect_ok(subject.engine.stamp_identity(&copy.at, &copy.expected_identity(), &serving).await);
    let serving = ConformanceTenant { at: copy.at.clone(), identity: serving };
    let pool = expect_ok(subject.engine.open_pool(&serving.at, &serving.expected_identity()).await);
    expect_ok(receive(&pool, "second", AfterStatements::Commit).await);
    assert_eq!(received(&pool).await.len(), 2);
    let frozen = serving.identity.clone();
    let frozen = crate::Identity { generation: frozen.generation.next(), state: IdentityState::Frozen, ..frozen };
    expect_ok(subject.engine.freeze_database(&serving.at, &serving.expected_identity(), &frozen).await);
    assert!(receive(&pool, "third", AfterStatements::Commit).await.is_err(), "a frozen database takes no job");
    pool.close().await;
}
