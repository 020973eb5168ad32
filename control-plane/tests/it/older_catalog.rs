//! A catalog that was set back to an earlier moment, as a restore of the catalog's own backup would: what it takes for
//! current has been replaced since, and what it takes for unserved or kept may be what serves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use catalog::OperationId;
use catalog::operations::OperationState;
use control_plane::config::ProcessRole;
use control_plane::operations::restore::RestorePoint;
use control_plane::operations::{OperationParams, clone, r#move, settle};
use control_plane::plan::TenantSelection;
use control_plane::runner::submit::Submission;

use crate::invariants;
use crate::world::{On, TASKS, World, deleting, restoring, undoing};

fn acme() -> TenantSelection {
    TenantSelection::one_tenant("acme")
}

async fn with_backup() -> World {
    with_backup_on(On::Sqlite).await
}

async fn with_backup_on(on: On) -> World {
    let world = World::on(on).await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    world.add_other().await;
    world.sql("acme", "insert into tasks (id, title) values (1, 'before')").await;
    world.backup("acme").await;
    world
}

fn moving() -> OperationParams {
    OperationParams::Move(r#move::MoveParams { to: Some("other".to_owned()), ..Default::default() })
}

/// The catalog as it is now, for later.
pub(crate) fn picture(world: &World) {
    let catalog = rusqlite::Connection::open(world.data().join("catalog.db")).unwrap();
    let into = world.data().join("picture").display().to_string();
    catalog.execute("vacuum into ?1", [into]).unwrap();
}

/// Puts the picture back, in which the operation at work came to nothing at that moment.
pub(crate) fn set_back(data: &Path) {
    set_back_running(data);
    let catalog = rusqlite::Connection::open(data.join("catalog.db")).unwrap();
    let ended = "update steps set state = 'failed', lease_owner = null, lease_until = null, error_code = 'internal', \
                 error = 'gave up', finished_at = 1764000000000 where state in ('running', 'pending'); \
                 update operations set state = 'failed', finished_at = 1764000000000 where finished_at is null; \
                 update tenants set op_id = null;";
    catalog.execute_batch(ended).unwrap();
}

/// Puts the picture back, in which the operation is still at work.
fn set_back_running(data: &Path) {
    for suffix in ["-wal", "-shm"] {
        drop(std::fs::remove_file(data.join(format!("catalog.db{suffix}"))));
    }
    std::fs::rename(data.join("picture"), data.join("catalog.db")).unwrap();
}

/// Takes a picture at a point of the operation, lets it end, and writes; returns the fleet whose catalog has only the
/// picture.
async fn forgotten(world: World, params: OperationParams, point: &'static str) -> World {
    world.app.context.halt_at(point);
    let started = world.start(Submission::new(params, acme())).await.unwrap();
    world.app.context.wait_until_halted().await;
    picture(&world);
    let world = world.crash().await;
    assert_eq!(world.finish(started.id).await.state, OperationState::Succeeded, "{point}");
    world.sql("acme", "insert into tasks (id, title) values (2, 'acknowledged since')").await;
    world.reopen(set_back).await
}

async fn acknowledged(world: &World) -> i64 {
    world.int("acme", "select count(*) from tasks where title = 'acknowledged since'").await
}

fn settling(back: bool) -> OperationParams {
    OperationParams::Settle(settle::SettleParams { back, ..Default::default() })
}

fn newest() -> OperationParams {
    OperationParams::Settle(settle::SettleParams { newest: true, ..Default::default() })
}

#[tokio::test]
async fn what_replaced_a_retired_database_serves_on() {
    for what in ["move", "restore", "undo"] {
        let world = with_backup().await;
        let params = match what {
            "move" => moving(),
            "restore" => restoring(RestorePoint::Latest),
            _ => {
                world.succeed(restoring(RestorePoint::Latest), acme()).await;
                undoing()
            }
        };
        let world = forgotten(world, params, "swap: retired").await;
        let ended = world.succeed(settling(false), acme()).await;
        assert_eq!(acknowledged(&world).await, 1, "{what}: {:?}", world.steps(ended.id, &[]).await);
        world.sql("acme", "insert into tasks (id, title) values (3, 'after')").await;
        invariants::check(&world).await;
    }
}

#[tokio::test]
async fn one_that_went_on_from_there_is_asked_about() {
    let world = with_backup().await;
    world.app.context.halt_at("swap: retired");
    let started = world.start(Submission::new(moving(), acme())).await.unwrap();
    world.app.context.wait_until_halted().await;
    picture(&world);
    let world = world.crash().await;
    world.finish(started.id).await;
    // And from there to another generation, which the picture cannot know.
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    let world = world.reopen(set_back).await;
    let ended = world.run(settling(false), acme()).await.unwrap();
    assert_eq!(world.failure(&ended).await, "fenced");
    assert!(world.try_sql("acme", "select 1").await.is_err(), "nothing serves that may be old");
    world.succeed(settling(true), acme()).await;
    assert_eq!(world.int("acme", "select count(*) from tasks where title = 'before'").await, 1);
    assert_eq!(world.tenant("acme").await.block_writes, None);
}

#[tokio::test]
async fn a_database_that_was_retired_before_the_catalog_knew_of_a_fence_does_not_come_back() {
    // The picture is of before the freeze: at its generation, the catalog takes the database for a step ahead.
    let world = forgotten(with_backup().await, moving(), "move: freezes").await;
    for params in [settling(false), OperationParams::Suspend(Default::default()), moving()] {
        let ended = world.run(params, acme()).await.unwrap();
        assert!(["fenced", "database_corrupt"].contains(&world.failure(&ended).await.as_str()));
    }
    assert!(world.try_sql("acme", "select 1").await.is_err());
}

#[tokio::test]
async fn a_kept_database_that_serves_again_is_not_dropped_when_its_time_is_over() {
    let world = with_backup().await;
    world.create(&["globex"]).await;
    world.backup("globex").await;
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    let replaced = world.file("globex").await;
    world.succeed(restoring(RestorePoint::Latest), TenantSelection::one_tenant("globex")).await;
    picture(&world);
    world.succeed(undoing(), acme()).await;
    world.sql("acme", "insert into tasks (id, title) values (2, 'acknowledged since')").await;
    let serving = world.file("acme").await;
    let world = world.reopen(set_back).await;
    world.advance(Duration::from_secs(90 * 24 * 3600));
    let other = world.another(ProcessRole::Serving).await;
    // The one that was due after it is gone, so both have been looked at.
    let gone = async {
        while replaced.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
    other.shut_down(Duration::from_secs(5)).await;
    assert!(serving.exists(), "the only copy of what was acknowledged");
}

/// The same, where the picture has the operation still at work, and it goes on from there. Returns the file that serves.
/// What it made has the number of the picture's own claim, or, after a crash, the one that the next claim will take.
async fn at_work(
    world: World,
    params: OperationParams,
    point: &'static str,
    crash: bool,
) -> (World, OperationId, PathBuf) {
    let name = if matches!(params, OperationParams::Clone(_)) { "copy" } else { "acme" };
    world.app.context.halt_at(point);
    let started = world.start(Submission::new(params, acme())).await.unwrap();
    world.app.context.wait_until_halted().await;
    picture(&world);
    let world = if crash {
        world.crash().await
    } else {
        world.app.context.resume_halted();
        world
    };
    assert_eq!(world.finish(started.id).await.state, OperationState::Succeeded, "{point}");
    world.sql(name, "insert into tasks (id, title) values (2, 'acknowledged since')").await;
    let tenant = world.tenant(name).await;
    let (_, at) = world.app.context.current_database(&tenant).await.unwrap();
    let file = at.file_path().to_owned();
    (world.reopen(set_back_running).await, started.id, file)
}

fn holds_what_was_acknowledged(file: &Path) -> bool {
    let sql = "select count(*) from tasks where title = 'acknowledged since'";
    let count = |db: rusqlite::Connection| db.query_row(sql, [], |row| row.get::<_, i64>(0));
    file.exists() && rusqlite::Connection::open(file).and_then(count) == Ok(1)
}

#[tokio::test]
async fn an_operation_that_begins_again_drops_nothing_that_serves() {
    for (point, crash) in [
        ("move: copies", false),
        ("move: filled", false),
        ("move: copies", true),
        ("build: filled", true),
        ("build: filled", false),
    ] {
        let params = if point.starts_with("move") { moving() } else { restoring(RestorePoint::Latest) };
        let (world, op, file) = at_work(with_backup().await, params, point, crash).await;
        let ended = world.finish(op).await;
        assert_eq!(ended.state, OperationState::Failed, "{point} {crash}");
        assert!(holds_what_was_acknowledged(&file), "{point} {crash}");
        assert!(world.try_sql("acme", "select 1").await.is_err(), "{point} {crash}: nothing serves that may be old");
        let settled = world.run(settling(false), acme()).await.unwrap();
        assert_ne!(settled.state, OperationState::Succeeded, "{point} {crash}");
        assert!(world.try_sql("acme", "select 1").await.is_err(), "{point} {crash}: nor after a look");
    }
}

#[tokio::test]
async fn what_is_being_made_by_the_picture_is_found_again_where_it_serves() {
    for (point, crash) in [("clone: snapshot taken", false), ("build: stamped", false), ("build: stamped", true)] {
        let cloning = OperationParams::Clone(clone::CloneParams { name: "copy".to_owned(), source: None });
        let (world, op, file) = at_work(with_backup().await, cloning, point, crash).await;
        let ended = world.finish(op).await;
        assert!(holds_what_was_acknowledged(&file), "{point} {crash}");
        assert_eq!(ended.state, OperationState::Succeeded, "{point} {crash}: {:?}", world.steps(op, &[]).await);
        let found = world.int("copy", "select count(*) from tasks where title = 'acknowledged since'").await;
        assert_eq!(found, 1, "{point} {crash}");
    }
}

#[tokio::test]
async fn whatever_happened_to_files_since_the_last_one_to_serve_is_found() {
    found_again(with_backup().await).await;
}

#[tokio::test]
async fn whatever_happened_to_databases_since_the_last_one_to_serve_is_found() {
    found_again(with_backup_on(On::postgres()).await).await;
}

async fn found_again(world: World) {
    world.create(&["globex", "initech", "umbrella"]).await;
    for name in ["globex", "umbrella"] {
        world.backup(name).await;
    }
    let one = |name: &str| TenantSelection::one_tenant(name);
    world.succeed(OperationParams::Archive(Default::default()), one("umbrella")).await;
    picture(&world);
    // Restamped; moved, restored and moved back; untouched; brought back.
    for params in [OperationParams::Suspend(Default::default()), OperationParams::Resume(Default::default())] {
        world.succeed(params, one("globex")).await;
    }
    world.succeed(moving(), acme()).await;
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    world.succeed(OperationParams::Unarchive(Default::default()), one("umbrella")).await;
    let changed = ["acme", "globex", "umbrella"];
    for name in changed {
        world.sql(name, "insert into tasks (id, title) values (2, 'acknowledged since')").await;
    }
    let world = world.reopen(set_back).await;
    for name in ["acme", "globex"] {
        assert!(world.try_sql(name, "select 1").await.is_err(), "{name}: nothing serves that may be old");
        let ended = world.run(settling(false), one(name)).await.unwrap();
        assert_eq!(world.failure(&ended).await, "fenced", "{name}");
    }
    world.succeed(newest(), TenantSelection::all_tenants()).await;
    for name in changed {
        let found = world.int(name, "select count(*) from tasks where title = 'acknowledged since'").await;
        assert_eq!(found, 1, "{name}");
        world.sql(name, "insert into tasks (id, title) values (3, 'after')").await;
    }
    world.sql("initech", "insert into tasks (id, title) values (3, 'after')").await;
    // And from there on as ever.
    world.succeed(newest(), TenantSelection::all_tenants()).await;
    world.succeed(moving(), one("globex")).await;
    world.succeed(restoring(RestorePoint::Latest), one("umbrella")).await;
}

#[tokio::test]
async fn one_that_may_be_elsewhere_is_not_replaced_by_an_older_one() {
    let world = with_backup().await;
    picture(&world);
    world.succeed(moving(), acme()).await;
    world.sql("acme", "insert into tasks (id, title) values (2, 'acknowledged since')").await;
    let tenant = world.tenant("acme").await;
    let serving = world.app.context.current_database(&tenant).await.unwrap().1.file_path();
    let aside = serving.with_extension("aside");
    let world = world.reopen(set_back).await;
    std::fs::rename(&serving, &aside).unwrap();
    let ended = world.run(newest(), acme()).await.unwrap();
    assert_eq!(world.failure(&ended).await, "fenced");
    assert!(world.try_sql("acme", "select 1").await.is_err());
    std::fs::rename(&aside, &serving).unwrap();
    // Two of one generation: somebody copied a file.
    let copy = serving.with_file_name("g99-1.db");
    std::fs::copy(&serving, &copy).unwrap();
    let ended = world.run(newest(), acme()).await.unwrap();
    assert_eq!(world.failure(&ended).await, "fenced");
    std::fs::remove_file(&copy).unwrap();
    // A server that does not answer may have it: it is waited for.
    let root = serving.parent().unwrap().parent().unwrap().to_path_buf();
    let away = root.with_extension("away");
    std::fs::rename(&root, &away).unwrap();
    let started = world.start(Submission::new(newest(), acme())).await.unwrap();
    while world.steps(started.id, &[]).await[0].0.error_code.as_deref() != Some("server_unreachable") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    std::fs::rename(&away, &root).unwrap();
    world.advance(Duration::from_secs(60));
    assert_eq!(world.finish(started.id).await.state, OperationState::Succeeded);
    assert_eq!(acknowledged(&world).await, 1);
}

#[tokio::test]
async fn a_tenant_that_was_undeleted_since_is_not_purged() {
    let world = with_backup().await;
    world.succeed(deleting(), acme()).await;
    picture(&world);
    world.succeed(OperationParams::Undelete(Default::default()), acme()).await;
    world.sql("acme", "insert into tasks (id, title) values (2, 'acknowledged since')").await;
    let serving = world.file("acme").await;
    let world = world.reopen(set_back).await;
    let purged = world.run(OperationParams::Purge(Default::default()), acme()).await.unwrap();
    assert_eq!(world.failure(&purged).await, "fenced");
    assert!(serving.exists(), "the only copy of what was acknowledged");
    world.succeed(newest(), acme()).await;
    assert_eq!(acknowledged(&world).await, 1);
    assert_eq!(world.tenant("acme").await.purge_after, None);
}

#[tokio::test]
async fn a_tenant_that_was_woken_since_is_not_woken_again_from_its_backup() {
    let world = with_backup().await;
    world.succeed(OperationParams::Archive(Default::default()), acme()).await;
    picture(&world);
    world.succeed(OperationParams::Unarchive(Default::default()), acme()).await;
    world.sql("acme", "insert into tasks (id, title) values (2, 'acknowledged since')").await;
    let world = world.reopen(set_back).await;
    for _ in 0..2 {
        let woken = world.run(OperationParams::Unarchive(Default::default()), acme()).await.unwrap();
        assert_eq!(world.failure(&woken).await, "fenced");
    }
    world.succeed(newest(), acme()).await;
    assert_eq!(acknowledged(&world).await, 1);
}

#[tokio::test]
async fn what_was_written_by_a_catalog_that_counted_again_is_not_given_up() {
    let world = with_backup().await;
    picture(&world);
    world.succeed(moving(), acme()).await;
    for params in [OperationParams::Suspend(Default::default()), OperationParams::Resume(Default::default())] {
        world.succeed(params, acme()).await;
    }
    let world = world.reopen(set_back).await;
    // Neither a restore nor a move takes what is further for damaged.
    for params in [restoring(RestorePoint::Latest), moving()] {
        let ended = world.run(params, acme()).await.unwrap();
        assert_eq!(world.failure(&ended).await, "fenced");
    }
    world.succeed(settling(true), acme()).await;
    world.sql("acme", "insert into tasks (id, title) values (2, 'acknowledged since')").await;
    let ended = world.run(newest(), acme()).await.unwrap();
    assert_eq!(world.failure(&ended).await, "fenced");
    assert_eq!(acknowledged(&world).await, 1, "it goes on serving");
    let both = OperationParams::Settle(settle::SettleParams { back: true, newest: true });
    assert_eq!(world.plan(both, acme()).await.unwrap_err().code(), "invalid");
}
