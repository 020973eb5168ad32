//! The identity row and the fence.

use tenant_engine::*;

use super::kit::{BASE, Kit, base_and, set};

#[tokio::test]
async fn a_stamp_replaces_the_identity_once_and_only_from_the_expected_one() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let next = Identity { generation: Generation(2), stamped_at: 5, ..tenant.identity.clone() };
    for _ in 0..2 {
        kit.engine.stamp_identity(&tenant.at, &tenant.expected(), &next).await.unwrap();
    }
    let seen = kit.engine.inspect_database(&tenant.at, None, InspectionDepth::Ledger).await.unwrap();
    assert_eq!(seen.identity, next);
    let late = Identity { generation: Generation(9), ..next.clone() };
    let error = kit.engine.stamp_identity(&tenant.at, &tenant.expected(), &late).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "the caller's generation is over");
}

#[tokio::test]
async fn a_frozen_database_refuses_even_a_writer_that_was_already_waiting() {
    let kit = Kit::new();
    let search = (
        "0003_s.sql",
        "create virtual table search using fts5(body); create table \"odd \"\" name\"(x) without rowid".to_owned()
            + ";",
    );
    let search = (search.0, search.1.replace("(x) without rowid", "(x primary key) without rowid"));
    let tenant = kit.provisioned(&base_and(&[(search.0, &search.1)])).await;
    let stale = tenant.open();
    stale.execute_batch("insert into projects values(1, 'before'); insert into search values('before')").unwrap();

    let frozen = Identity { generation: Generation(2), state: IdentityState::Frozen, ..tenant.identity.clone() };
    for _ in 0..2 {
        kit.engine.freeze_database(&tenant.at, &tenant.expected(), &frozen).await.unwrap();
    }
    for write in [
        "insert into projects values(2, 'after')",
        "update projects set name = 'after'",
        "delete from projects",
        "replace into projects values(1, 'after')",
        "insert into search values('after')",
        "insert into \"odd \"\" name\" values(1)",
    ] {
        let error = stale.execute_batch(write).unwrap_err();
        // A virtual table's own error hides the trigger's words.
        assert!(error.to_string().contains("frozen") || write.contains("search"), "{write}: {error}");
    }
    assert_eq!(tenant.number("select count(*) from projects where name = 'before'"), 1, "reading goes on");

    let active = Identity { generation: Generation(3), state: IdentityState::Active, ..tenant.identity.clone() };
    let expected =
        ExpectedIdentity { generation: Generation(2), states: vec![IdentityState::Frozen], ..tenant.expected() };
    kit.engine.stamp_identity(&tenant.at, &expected, &active).await.unwrap();
    stale.execute_batch("insert into projects values(2, 'after'); insert into search values('after')").unwrap();
    assert_eq!(tenant.number("select count(*) from sqlite_schema where name like '_fleet_fence%'"), 0);
}

#[tokio::test]
async fn freezing_with_another_state_is_a_bug_of_the_caller() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let error = kit.engine.freeze_database(&tenant.at, &tenant.expected(), &tenant.identity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn stamping_a_missing_database_is_told_so() {
    let kit = Kit::new();
    let tenant = kit.tenant();
    let error = kit.engine.stamp_identity(&tenant.at, &tenant.expected(), &tenant.identity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
}
