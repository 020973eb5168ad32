//! How archived and deleted tenants come back: what the row says, and what older versions left.

use catalog::seal::FleetKey;
use catalog::tenants::{self, TenantUpdate};
use catalog::{BackupId, BlockWrites, Generation, TenantId, TenantRecord, TenantState};

use super::super::world::World;
use super::{Fixture, older_schema, open, seed};

async fn tenant(fixture: &Fixture, id: TenantId) -> TenantRecord {
    tenants::get(&mut fixture.catalog.read().await.unwrap(), id).await.unwrap().unwrap()
}

/// Changes a tenant as this version does.
async fn update(fixture: &Fixture, id: TenantId, change: impl FnOnce(&mut TenantUpdate)) -> TenantRecord {
    let mut update = TenantUpdate::for_generation(id, tenant(fixture, id).await.generation);
    change(&mut update);
    let mut tx = fixture.catalog.write().await.unwrap();
    assert!(tenants::update_many(&mut tx, &[update]).await.unwrap().is_empty());
    tx.commit().await.unwrap();
    tenant(fixture, id).await
}

/// Changes the only tenant as a process of the version before does, which knows no columns of waking.
async fn older_update(fixture: &Fixture, columns: &str) {
    let sql = format!("update tenants set {columns}, generation = generation + 1");
    fixture.world.tool(sql.leak()).await;
}

/// What the row says about waking.
fn said(tenant: &TenantRecord) -> (Option<TenantState>, Option<BackupId>) {
    (tenant.wake_state, tenant.archive_backup_id)
}

#[tokio::test]
async fn a_row_says_how_a_tenant_wakes_until_it_wakes() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    let (id, backup) = (ids[0], BackupId::generate());
    for after in [TenantState::Suspended, TenantState::Purged] {
        let archived = update(&fixture, id, |update| {
            update.state = Some(TenantState::Archived);
            update.wake_state = Some(TenantState::Suspended);
            update.archive_backup_id = Some(backup);
        })
        .await;
        assert_eq!(said(&archived), (Some(TenantState::Suspended), Some(backup)));
        assert_eq!(archived.state_on_wake(), TenantState::Suspended, "without any reason");
        let moved = update(&fixture, id, |_| {}).await;
        assert_eq!(said(&moved), said(&archived));
        let deleted = update(&fixture, id, |update| update.state = Some(TenantState::Deleted)).await;
        assert_eq!(said(&deleted), said(&archived), "it can be undeleted");
        let next = update(&fixture, id, |update| {
            update.state = Some(after);
            update.wake_state = Some(TenantState::Active);
        })
        .await;
        assert_eq!((said(&next), next.state_on_wake()), ((None, None), after));
    }
}

#[tokio::test]
async fn a_change_by_an_older_process_takes_away_what_the_row_says() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    let archived = update(&fixture, ids[0], |update| {
        update.state = Some(TenantState::Archived);
        update.wake_state = Some(TenantState::Active);
        update.archive_backup_id = Some(BackupId::generate());
    })
    .await;
    assert_ne!(said(&archived), (None, None));
    // It woke, was suspended and archived again, with another backup. Nothing cleared the columns.
    for columns in ["state = 'active'", "state = 'suspended', state_reason = 'unpaid'", "state = 'archived'"] {
        older_update(&fixture, columns).await;
    }
    let again = tenant(&fixture, ids[0]).await;
    assert_eq!((said(&again), again.state_on_wake()), ((None, None), TenantState::Suspended));
    // A later change by this version does not revive them.
    let moved = update(&fixture, ids[0], |_| {}).await;
    assert_eq!((said(&moved), moved.state_on_wake()), ((None, None), TenantState::Suspended));
    let deleted = update(&fixture, ids[0], |update| {
        update.state = Some(TenantState::Deleted);
        update.wake_state = Some(TenantState::Suspended);
    })
    .await;
    assert_eq!(said(&deleted), (Some(TenantState::Suspended), None));
}

#[tokio::test]
async fn a_request_wakes_only_a_tenant_that_wakes_active() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    let reasons = [None, Some("unpaid".to_owned())];
    let blocks = [None, Some(BlockWrites::Operator)];
    for wake_state in [None, Some(TenantState::Active), Some(TenantState::Suspended)] {
        for (reason, block) in reasons.iter().flat_map(|reason| blocks.map(|block| (reason.clone(), block))) {
            let archived = update(&fixture, ids[0], |update| {
                update.state = Some(TenantState::Active);
                update.reason = Some(reason.clone());
                update.block_writes = Some(block);
            })
            .await;
            assert_eq!(said(&archived), (None, None));
            let archived = update(&fixture, ids[0], |update| {
                update.state = Some(TenantState::Archived);
                update.wake_state = wake_state;
            })
            .await;
            let by_older = reason.is_some() && block.is_none();
            let suspended = wake_state.map_or(by_older, |state| state == TenantState::Suspended);
            let expected = if suspended { TenantState::Suspended } else { TenantState::Active };
            assert_eq!(archived.state_on_wake(), expected, "{wake_state:?} {reason:?} {block:?}");
            let mut tx = fixture.catalog.write().await.unwrap();
            assert!(tenants::request_wake(&mut tx, ids[0]).await.unwrap());
            let woken = tenants::wake_requested(&mut tx, 9).await.unwrap();
            assert_eq!(woken.is_empty(), suspended, "{wake_state:?} {reason:?} {block:?}");
            tx.commit().await.unwrap();
        }
    }
}

/// A tenant of the version before: state, reason, block, placement, and how it wakes.
type OlderTenant = (&'static str, &'static str, &'static str, &'static str, Option<&'static str>, Option<u128>);

const OLDER: [OlderTenant; 9] = [
    ("archived", "null", "null", "null", Some("active"), Some(1)),
    ("archived", "'unpaid'", "null", "null", Some("suspended"), Some(1)),
    ("archived", "'audit'", "'operator'", "null", Some("active"), Some(1)),
    ("deleted", "null", "null", "'a'", Some("active"), None),
    ("deleted", "'unpaid'", "null", "'b'", Some("suspended"), None),
    ("deleted", "'unpaid'", "null", "null", Some("suspended"), Some(1)),
    ("suspended", "'unpaid'", "null", "'c'", None, None),
    ("active", "'audit'", "'operator'", "'d'", None, None),
    ("purged", "'unpaid'", "null", "null", None, None),
];

fn id_text(prefix: &str, number: usize) -> String {
    format!("{prefix}_{number:032x}")
}

/// Each tenant has three backups. The first one is its archive's by the audit log, the third one is the newest.
fn older_rows() -> String {
    let mut sql = "insert into servers (id, name, engine, base, state, created_at) values \
                   ('srv_00000000000000000000000000000001', 'local', 'sqlite', '/srv', 'active', 1);"
        .to_owned();
    for (number, (state, reason, block, placement, ..)) in OLDER.iter().enumerate() {
        let id = id_text("tnt", number);
        sql += &format!(
            "insert into tenants (id, name, state, state_reason, block_writes, placement, server_id, generation, \
             placement_epoch, protected, created_at, updated_at) values ('{id}', 't{number}', '{state}', {reason}, {block}, \
             {placement}, 'srv_00000000000000000000000000000001', 7, 1, 0, 1, 1);"
        );
        for copy in 1..=3 {
            let backup = id_text("bkp", number * 16 + copy);
            sql += &format!(
                "insert into backups (id, tenant_id, object_key, engine, content_hash, size_bytes, stored_bytes, reason, \
                 taken_at, seq) values ('{backup}', '{id}', '{backup}', 'sqlite', '0', 1, 1, 'manual', 1, {});",
                number * 16 + copy
            );
        }
        for (event, copy) in [(1, 2), (2, 1)] {
            let backup = id_text("bkp", number * 16 + copy);
            sql += &format!(
                "insert into events (seq, at, kind, actor, tenant_id, data) values ({}, {}, 'tenant.archived', 'test', '{id}', \
                 '{{\"backup\":\"{backup}\"}}');",
                number * 16 + event,
                9 - event
            );
        }
    }
    sql
}

/// The rows as the upgrade made them: wake state, and the number of the backup.
async fn upgraded(change: &str) -> Vec<(Option<TenantState>, Option<u128>, Generation)> {
    let (world, key) = (World::new(), FleetKey::generate());
    world.tool((older_schema(&key, 17) + &older_rows() + change).leak()).await;
    let catalog = open(&world, &key).await.unwrap();
    let mut tx = catalog.read().await.unwrap();
    let mut rows = Vec::new();
    for number in 0..OLDER.len() {
        let id = id_text("tnt", number).parse().unwrap();
        let row = tenants::get(&mut tx, id).await.unwrap().unwrap();
        let backup = row.archive_backup_id.map(|backup| backup.uuid().as_u128() % 16);
        rows.push((row.wake_state, backup, row.generation));
    }
    rows
}

#[tokio::test]
async fn an_upgrade_writes_down_how_each_tenant_wakes() {
    let expected = |newest: Option<u128>| {
        let row = |&(_, _, _, _, wake, backup): &OlderTenant| {
            let state = wake.map(|wake| if wake == "active" { TenantState::Active } else { TenantState::Suspended });
            (state, backup.map(|named| newest.unwrap_or(named)), Generation(7))
        };
        OLDER.iter().map(row).collect::<Vec<_>>()
    };
    assert_eq!(upgraded("").await, expected(None));
    assert_eq!(upgraded("delete from events;").await, expected(Some(3)), "the log was trimmed");
    assert_eq!(upgraded("update events set data = '{}';").await, expected(Some(3)), "the log says something else");
    let unnumbered = "delete from events; update backups set seq = null where id like '%2';";
    assert_eq!(upgraded(unnumbered).await, expected(Some(2)), "without a number: recorded last");
    let nothing = upgraded("delete from events; delete from backups;").await;
    assert!(nothing.iter().all(|(_, backup, _)| backup.is_none()));
}
