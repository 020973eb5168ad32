//! Replacements that the version before the table `replacements` left unfinished: `in_flight.tar.zst` holds data
//! directories as its killed process left them, one for each moment. This version ends every one of them, whether it
//! continues the operation or the operation was given up and only a repair is left.
//!
//! In each, `acme` has two rows. The first one is in its backup, the second one was written later.

use std::io::Write as _;
use std::process::{Command, Stdio};

use async_compression::tokio::bufread::ZstdDecoder;
use catalog::OperationId;
use catalog::operations::OperationState;
use catalog::steps::StepState;
use control_plane::operations::{OperationParams, settle};
use control_plane::plan::TenantSelection;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

use crate::invariants;
use crate::world::World;

/// Each moment; how many rows are there after the operation has continued, and after a repair.
const MOMENTS: [(&str, i64, i64); 11] = [
    ("restore_ready", 1, 2),
    ("restore_stamped", 1, 2),
    ("restore_retired", 1, 1),
    ("undo_ready", 2, 1),
    ("undo_retired", 2, 2),
    ("move_fenced", 2, 2),
    ("move_ready", 2, 2),
    ("move_retired", 2, 2),
    ("move_rolling_back", 2, 2),
    ("move_rolled_back", 2, 2),
    ("archive_fenced", 0, 2),
];

/// The fleet as the killed process left it; `change` is SQL for its catalog.
async fn left_at(moment: &str, change: &str) -> World {
    let dir = TempDir::new().unwrap();
    unpack(include_bytes!("../fixtures/in_flight.tar.zst"), moment, &dir).await;
    let catalog = rusqlite::Connection::open(dir.path().join("catalog.db")).unwrap();
    let other = dir.path().canonicalize().unwrap().join("other").display().to_string();
    catalog.execute("update servers set base = ?1 where name = 'other'", [other]).unwrap();
    catalog.execute_batch(change).unwrap();
    drop(catalog);
    World::opened(dir).await
}

/// Unpacks one folder of an archive into a directory.
pub(crate) async fn unpack(packed: &[u8], folder: &str, dir: &TempDir) {
    let mut archive = Vec::new();
    ZstdDecoder::new(packed).read_to_end(&mut archive).await.unwrap();
    let mut tar = Command::new("tar");
    tar.args(["-xf", "-", "--strip-components=1", folder]).current_dir(dir.path()).stdin(Stdio::piped());
    let mut child = tar.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(child.wait().unwrap().success());
}

/// The operation that was under way.
fn under_way(world: &World) -> OperationId {
    let catalog = rusqlite::Connection::open(world.data().join("catalog.db")).unwrap();
    let sql = "select id from operations order by seq desc limit 1";
    catalog.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap().parse().unwrap()
}

async fn rows(world: &World) -> i64 {
    world.int("acme", "select count(*) from tasks").await
}

#[tokio::test]
async fn an_operation_in_flight_is_finished() {
    for (moment, expected, _) in MOMENTS {
        let world = left_at(moment, "").await;
        let ended = world.finish(under_way(&world)).await;
        let gave_up = moment.starts_with("move_roll");
        let state = if gave_up { OperationState::Failed } else { OperationState::Succeeded };
        assert_eq!(ended.state, state, "{moment}: {:?}", world.steps(ended.id, &[StepState::Failed]).await);
        if expected > 0 {
            assert_eq!(rows(&world).await, expected, "{moment}");
            world.sql("acme", "insert into tasks (id, title) values (9, 'after the upgrade')").await;
        }
        invariants::check(&world).await;
    }
}

#[tokio::test]
async fn an_operation_that_was_given_up_in_flight_is_repaired() {
    let given_up = "update steps set state = 'failed', lease_owner = null, lease_until = null, error_code = 'internal', \
                    error = 'gave up', finished_at = 1764000000000 where state in ('running', 'pending'); \
                    update operations set state = 'failed', finished_at = 1764000000000 where finished_at is null; \
                    update tenants set op_id = null;";
    for (moment, _, expected) in MOMENTS {
        let world = left_at(moment, given_up).await;
        let settle = OperationParams::Settle(settle::SettleParams::default());
        world.succeed(settle, TenantSelection::one_tenant("acme")).await;
        assert_eq!(rows(&world).await, expected, "{moment}");
        world.sql("acme", "insert into tasks (id, title) values (9, 'after the repair')").await;
        invariants::check(&world).await;
    }
}
