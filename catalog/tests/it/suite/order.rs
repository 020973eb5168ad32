//! Which of two things came last, while clocks step and differ.

use catalog::backups;
use catalog::operations::{self, NewOperation, OperationState, WhenLeft};
use catalog::retained::{self, RetainedReason, RetainedRecord};
use catalog::seal::FleetKey;
use catalog::{BackupId, Generation, OperationId};
use uuid::Uuid;

use super::super::world::World;
use super::nouns::backup;
use super::{Fixture, older_schema, open, seed};

#[tokio::test]
async fn the_last_backup_is_the_one_that_was_recorded_last() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    // The clock was ahead for the second, and the third has an id that sorts before both.
    let mut all = [backup(ids[0], 10), backup(ids[0], 900), backup(ids[0], 20)];
    all[2].id = BackupId::from_uuid(Uuid::from_u128(1));
    let mut tx = fixture.catalog.write().await.unwrap();
    for one in &all {
        backups::insert_many(&mut tx, std::slice::from_ref(one)).await.unwrap();
    }
    for (at, found) in
        [(None, Some(2)), (Some(900), Some(2)), (Some(20), Some(2)), (Some(19), Some(0)), (Some(9), None)]
    {
        let newest = backups::newest_backup(&mut tx, ids[0], at).await.unwrap();
        assert_eq!(newest, found.map(|index: usize| all[index].clone()), "{at:?}");
    }
    let order: Vec<_> = backups::list_backups(&mut tx, None, None, 9).await.unwrap().iter().map(|one| one.id).collect();
    assert_eq!(order, [all[2].id, all[1].id, all[0].id]);
    assert_eq!(backups::list_backups(&mut tx, None, Some(all[1].id), 9).await.unwrap(), all[..1]);
    // At 20 the second one, which is older, says 900.
    assert!(backups::is_disputed(&mut tx, &all[2], 20).await.unwrap());
    assert!(!backups::is_disputed(&mut tx, &all[2], 900).await.unwrap());
    assert!(!backups::is_disputed(&mut tx, &all[0], 10).await.unwrap());
}

#[tokio::test]
async fn operations_go_in_the_order_of_their_submission() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let mut submitted = Vec::new();
    // Ids are made of clocks, and these run backwards.
    for bits in [9, 5, 1] {
        let new = NewOperation {
            id: OperationId::from_uuid(Uuid::from_u128(bits)),
            kind: "suspend".to_owned(),
            params: "{}".to_owned(),
            release_id: None,
            tenants: ids.clone(),
            skipped: 0,
            left_out: Vec::new(),
            when_left: WhenLeft::Fail,
            concurrency: 1,
            requested_by: "test".to_owned(),
            reason: None,
        };
        operations::insert_operation(&mut tx, &new).await.unwrap();
        submitted.push(new.id);
    }
    let open: Vec<_> = operations::open_operations(&mut tx).await.unwrap().iter().map(|one| one.id).collect();
    assert_eq!(open, submitted);
    let page = async |tx: &mut catalog::WriteTx, after| {
        let states = [OperationState::Pending];
        let found = operations::list_operations(tx, &states, None, Some(ids[0]), after, 2).await.unwrap();
        found.iter().map(|one| one.id).collect::<Vec<_>>()
    };
    assert_eq!(page(&mut tx, None).await, [submitted[2], submitted[1]]);
    assert_eq!(page(&mut tx, Some(submitted[1])).await, [submitted[0]]);
}

#[tokio::test]
async fn the_database_that_was_replaced_last_has_the_highest_generation() {
    let fixture = Fixture::new().await;
    let (server, ids) = seed(&fixture.catalog, 1).await;
    let kept = |generation, created_at| RetainedRecord {
        tenant_id: ids[0],
        server_id: server,
        placement: format!("g{generation}"),
        generation: Generation(generation),
        reason: RetainedReason::Restore,
        op_id: OperationId::generate(),
        schema_version: None,
        pin: None,
        created_at,
        keep_until: created_at + 100,
    };
    let all = [kept(2, 90_000), kept(4, 10), kept(6, 20)];
    let mut tx = fixture.catalog.write().await.unwrap();
    for record in &all {
        retained::insert_retained(&mut tx, record).await.unwrap();
    }
    for (before, found) in [(7, Some(2)), (6, Some(1)), (4, Some(0)), (2, None)] {
        let newest =
            retained::newest_retained(&mut tx, ids[0], RetainedReason::Restore, Generation(before)).await.unwrap();
        assert_eq!(newest, found.map(|index: usize| all[index].clone()), "{before}");
    }
    let order: Vec<_> =
        retained::of_tenant(&mut tx, ids[0]).await.unwrap().iter().map(|one| one.generation.0).collect();
    assert_eq!(order, [6, 4, 2]);
}

/// A catalog as the version before this order left it: three backups and two operations, whose order only the audit log
/// tells, because the clock went back an hour after each.
const OLDER: &str = "
insert into servers (id, name, engine, base, state, created_at) values ('srv_a', 'local', 'sqlite', '/srv', 'active', 1);
insert into tenants (id, name, state, server_id, generation, placement_epoch, protected, created_at, updated_at)
  values ('tnt_00000000000000000000000000000001', 'acme', 'active', 'srv_a', 1, 1, 0, 1, 1);
insert into backups (id, tenant_id, object_key, engine, content_hash, size_bytes, stored_bytes, reason, taken_at) values
  ('bkp_00000000000000000000000000000003', 'tnt_00000000000000000000000000000001', 'a', 'sqlite', '0', 1, 1, 'manual', 9000),
  ('bkp_00000000000000000000000000000002', 'tnt_00000000000000000000000000000001', 'b', 'sqlite', '0', 1, 1, 'manual', 5000),
  ('bkp_00000000000000000000000000000001', 'tnt_00000000000000000000000000000001', 'c', 'sqlite', '0', 1, 1, 'manual', 1000),
  ('bkp_00000000000000000000000000000009', 'tnt_00000000000000000000000000000001', 'd', 'sqlite', '0', 1, 1, 'manual', 9999);
insert into operations (id, kind, state, params, steps_total, steps_skipped, concurrency, requested_by, created_at) values
  ('op_00000000000000000000000000000002', 'backup', 'pending', '{}', 0, 0, 1, 'test', 9000),
  ('op_00000000000000000000000000000001', 'backup', 'pending', '{}', 0, 0, 1, 'test', 1000);
insert into events (seq, at, kind, actor, tenant_id, op_id, data) values
  (1, 9000, 'operation.submitted', 'test', null, 'op_00000000000000000000000000000002', '{}'),
  (2, 9000, 'backup.created', 'test', 'tnt_00000000000000000000000000000001', 'op_00000000000000000000000000000002', '{\"backup\":\"bkp_00000000000000000000000000000003\",\"size_bytes\":1}'),
  (3, 5000, 'backup.created', 'test', 'tnt_00000000000000000000000000000001', null, '{\"backup\":\"bkp_00000000000000000000000000000002\",\"reason\":\"pre_delete\"}'),
  (4, 1000, 'operation.submitted', 'test', null, 'op_00000000000000000000000000000001', '{}'),
  (5, 1000, 'backup.created', 'test', 'tnt_00000000000000000000000000000001', 'op_00000000000000000000000000000001', '{\"backup\":\"bkp_00000000000000000000000000000001\"}');
";

#[tokio::test]
async fn an_older_catalog_is_numbered_by_its_audit_log() {
    let (world, key) = (World::new(), FleetKey::generate());
    world.tool((older_schema(&key, 2) + OLDER).leak()).await;
    let catalog = open(&world, &key).await.unwrap();
    let mut tx = catalog.write().await.unwrap();
    let order = async |tx: &mut catalog::WriteTx| {
        let found = backups::list_backups(tx, None, None, 9).await.unwrap();
        found.iter().map(|one| one.id.uuid().as_u128()).collect::<Vec<_>>()
    };
    assert_eq!(order(&mut tx).await, [1, 2, 3, 9], "newest first; the log does not know the last one");
    let open: Vec<_> =
        operations::open_operations(&mut tx).await.unwrap().iter().map(|one| one.id.uuid().as_u128()).collect();
    assert_eq!(open, [2, 1]);
    tx.commit().await.unwrap();
    // A process of the older program goes on beside this one, and its clock is behind.
    let late = "insert into backups (id, tenant_id, object_key, engine, content_hash, size_bytes, stored_bytes, reason, taken_at) \
                values ('bkp_00000000000000000000000000000005', 'tnt_00000000000000000000000000000001', 'e', 'sqlite', '0', 1, 1, 'manual', 500)";
    world.tool(late).await;
    let mut tx = catalog.write().await.unwrap();
    let tenant = backups::list_backups(&mut tx, None, None, 1).await.unwrap()[0].tenant_id;
    let mut next = backup(tenant, 400);
    next.id = BackupId::from_uuid(Uuid::from_u128(4));
    backups::insert_many(&mut tx, &[next]).await.unwrap();
    assert_eq!(order(&mut tx).await, [4, 5, 1, 2, 3, 9]);
}
