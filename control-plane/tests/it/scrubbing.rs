//! scrub: what is on the servers against what the catalog says, and putting aside what nobody owns.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use catalog::{Generation, TenantId};
use control_plane::error::Error;
use control_plane::operations::restore;
use control_plane::plan::TenantSelection;
use control_plane::runner::submit::{Submission, SubmitMode};
use control_plane::scrub::finding::{Finding, FindingKind, FindingSeverity, FindingSubject};
use control_plane::scrub::quarantine::{self, QuarantineOutcome, QuarantineRequester};
use control_plane::scrub::{self, InspectionScope, ScrubSummary};
use tenant_engine::{ExpectedIdentity, Identity, IdentityState, Placement};

use crate::invariants;
use crate::world::{TASKS, World, caller, creating, deleting, restoring};

async fn scrubbed(world: &World) -> ScrubSummary {
    scrub::run_scrub(&world.app.context, &InspectionScope::Everything).await.unwrap()
}

async fn findings(world: &World) -> Vec<Finding> {
    scrubbed(world).await.findings
}

async fn kinds(world: &World) -> Vec<FindingKind> {
    findings(world).await.iter().map(|finding| finding.subject.kind).collect()
}

async fn put_aside(world: &World, subjects: &[FindingSubject]) -> Vec<QuarantineOutcome> {
    let asker = QuarantineRequester { caller: caller(), reason: Some("looked at".to_owned()) };
    quarantine::run_quarantine(&world.app.context, &asker, subjects, SubmitMode::Run).await.unwrap()
}

fn refused(fate: &QuarantineOutcome) -> &Error {
    match fate {
        QuarantineOutcome::Refused(error) => error,
        other => panic!("{other:?}"),
    }
}

/// Files have the machine's times: moves the fleet's clock to where everything on disk is older than the grace.
fn let_things_get_old(world: &World) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(16 * 60);
    world.advance(now.saturating_sub(Duration::from_millis(u64::try_from(world.now()).unwrap())));
}

/// A database of this identity under a name that the catalog does not know.
async fn plant(world: &World, tenant: TenantId, number: i64) -> PathBuf {
    let root = world.data().join("tenants");
    let at = Placement::new_sqlite(&root, tenant, Generation(1), number);
    let server = tenant_engine::DatabaseServer::new_sqlite(&root);
    let engine = world.app.context.engine_of_kind(tenant_engine::EngineKind::Sqlite).unwrap();
    let set = tenant_engine::MigrationSet::from_files(&[]).unwrap();
    let template = engine.prepare_template(&server, &set).await.unwrap();
    let identity = Identity {
        tenant,
        fleet: world.app.catalog.fleet_id(),
        generation: Generation(1),
        state: IdentityState::Frozen,
        op: None,
        stamped_at: 1,
    };
    engine.provision_database(&at, &template, &identity).await.unwrap();
    at.file_path()
}

fn aside(world: &World, path: &Path) -> PathBuf {
    let day = jiff::Timestamp::from_millisecond(world.now()).unwrap().strftime("%Y%m%d").to_string();
    let root = world.data().join("tenants");
    root.join("quarantine").join(day).join(path.strip_prefix(&root).unwrap())
}

#[tokio::test]
async fn a_fleet_that_went_through_everything_has_no_findings() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme", "globex", "initech"]).await;
    world.backup("acme").await;
    world.succeed(restoring(restore::RestorePoint::Latest), TenantSelection::one_tenant("acme")).await;
    world.succeed(deleting(), TenantSelection::one_tenant("globex")).await;
    let_things_get_old(&world);
    let report = scrubbed(&world).await;
    assert_eq!(report.findings, []);
    assert_eq!((report.servers, report.tenants, report.databases, report.opened), (1, 3, 4, 4));
    invariants::check(&world).await;
}

#[tokio::test]
async fn every_fault_is_found_and_only_orphans_are_put_aside() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["gone", "linked", "taken", "well", "wrong"]).await;
    world.sql("well", "insert into tasks (title) values ('kept')").await;
    let stranger = plant(&world, TenantId::generate(), 7).await;
    let second = plant(&world, world.tenant("well").await.id, 9).await;
    std::fs::write(stranger.with_extension("db.part"), "half").unwrap();
    std::fs::write(world.data().join("tenants/notes.txt"), "notes").unwrap();
    std::fs::remove_file(world.file("gone").await).unwrap();
    let linked = world.file("linked").await;
    std::fs::remove_file(&linked).unwrap();
    std::fs::hard_link(world.file("taken").await, &linked).unwrap();
    restamp(&world, "wrong").await;
    assert_eq!(
        counted(&findings(&world).await),
        [(FindingKind::SharedDatabase, 2), (FindingKind::MissingDatabase, 1), (FindingKind::WrongTenant, 1)],
        "what is young is nobody's yet"
    );
    let_things_get_old(&world);
    let found = findings(&world).await;
    assert_eq!(
        counted(&found),
        [
            (FindingKind::SharedDatabase, 2),
            (FindingKind::MissingDatabase, 1),
            (FindingKind::WrongTenant, 1),
            (FindingKind::OrphanDatabase, 2),
            (FindingKind::ForeignFile, 2)
        ]
    );
    let of = |kind: FindingKind| found.iter().filter(move |finding| finding.subject.kind == kind);
    assert_eq!(of(FindingKind::MissingDatabase).next().unwrap().tenant_name.as_deref(), Some("gone"));
    assert_eq!(of(FindingKind::WrongTenant).next().unwrap().tenant_name.as_deref(), Some("wrong"));
    let shared: Vec<_> = of(FindingKind::SharedDatabase).map(|finding| finding.tenant_name.clone().unwrap()).collect();
    assert!(shared.contains(&"linked".to_owned()) && shared.contains(&"taken".to_owned()), "{shared:?}");
    assert!(found.iter().all(|finding| !finding.detail.is_empty() && !finding.next_step.is_empty()));
    assert!(of(FindingKind::OrphanDatabase).all(|finding| finding.severity == FindingSeverity::Warning));

    let subjects: Vec<FindingSubject> = found.iter().map(|finding| finding.subject.clone()).collect();
    let fates = put_aside(&world, &subjects).await;
    for (subject, fate) in subjects.iter().zip(&fates) {
        match subject.kind.is_orphan() {
            true => assert!(matches!(fate, QuarantineOutcome::Done(_)), "{subject:?} {fate:?}"),
            false => assert_eq!(refused(fate).code(), "invalid", "{subject:?}"),
        }
    }
    for path in [&stranger, &second] {
        assert!(!path.exists() && aside(&world, path).exists(), "{}", path.display());
        assert!(!aside(&world, path).with_extension("db-wal").exists(), "nothing is left to be replayed");
    }
    let left = [
        FindingKind::SharedDatabase,
        FindingKind::SharedDatabase,
        FindingKind::MissingDatabase,
        FindingKind::WrongTenant,
        FindingKind::ForeignFile,
        FindingKind::ForeignFile,
    ];
    assert!(world.data().join("tenants/notes.txt").exists(), "a stranger's file stays where it is");
    assert_eq!(sorted(kinds(&world).await), sorted(left.to_vec()));
    assert_eq!(world.int("well", "select count(*) from tasks where title = 'kept'").await, 1);
    assert_eq!(events(&world, "database.quarantine_begun").await, 2);
    assert_eq!(events(&world, "database.quarantined").await, 2);
}

/// Another tenant's identity in the database that the catalog names.
async fn restamp(world: &World, name: &str) {
    let tenant = world.tenant(name).await;
    let (engine, at) = world.app.context.current_database(&tenant).await.unwrap();
    let identity = |tenant| Identity {
        tenant,
        fleet: world.app.catalog.fleet_id(),
        generation: Generation(2),
        state: IdentityState::Active,
        op: None,
        stamped_at: 1,
    };
    let expected = ExpectedIdentity {
        tenant: tenant.id,
        fleet: world.app.catalog.fleet_id(),
        generation: tenant.generation,
        states: vec![IdentityState::Active],
    };
    engine.stamp_identity(&at, &expected, &identity(TenantId::generate())).await.unwrap();
}

fn counted(findings: &[Finding]) -> Vec<(FindingKind, usize)> {
    let mut counts: Vec<(FindingKind, usize)> = Vec::new();
    for kind in sorted(findings.iter().map(|finding| finding.subject.kind).collect()) {
        match counts.last_mut().filter(|(last, _)| *last == kind) {
            Some((_, count)) => *count += 1,
            None => counts.push((kind, 1)),
        }
    }
    counts
}

fn sorted(mut kinds: Vec<FindingKind>) -> Vec<FindingKind> {
    kinds.sort_unstable();
    kinds
}

async fn events(world: &World, kind: &str) -> usize {
    let mut tx = world.app.catalog.read().await.unwrap();
    let all = catalog::events::list_events(&mut tx, None, None, 0, 10_000).await.unwrap();
    all.iter().filter(|event| event.event.kind == kind).count()
}

#[tokio::test]
async fn what_is_not_as_it_was_reported_stays_where_it_is() {
    let world = World::new().await;
    world.create(&["acme"]).await;
    let path = plant(&world, TenantId::generate(), 1).await;
    let_things_get_old(&world);
    let subject = findings(&world).await.remove(0).subject;
    let fate = async |change: &dyn Fn(&mut FindingSubject)| {
        let mut other = subject.clone();
        change(&mut other);
        refused(&put_aside(&world, &[other]).await[0]).code().to_owned()
    };
    assert_eq!(fate(&|s| s.identity = None).await, "conflict");
    assert_eq!(fate(&|s| s.physical = Some("1:1".to_owned())).await, "conflict");
    assert_eq!(fate(&|s| s.kind = FindingKind::MissingDatabase).await, "invalid");
    assert_eq!(fate(&|s| s.server = "elsewhere".to_owned()).await, "not_found");
    assert_eq!(fate(&|s| s.name = "../catalog.db".to_owned()).await, "not_found");
    let current = world.tenant("acme").await.placement.unwrap();
    let error = put_aside(&world, &[FindingSubject { name: current, ..subject.clone() }]).await;
    assert!(refused(&error[0]).detail.contains("the catalog names it"), "{error:?}");
    // Somebody has it open.
    let held = rusqlite::Connection::open(&path).unwrap();
    held.execute_batch("create table more (a)").unwrap();
    assert_eq!(refused(&put_aside(&world, std::slice::from_ref(&subject)).await[0]).code(), "database_busy");
    drop(held);
    // The same bytes under another inode are not what was looked at.
    std::fs::copy(&path, path.with_extension("copy")).unwrap();
    std::fs::rename(path.with_extension("copy"), &path).unwrap();
    let_things_get_old(&world);
    assert_eq!(refused(&put_aside(&world, &[subject]).await[0]).code(), "conflict");
    assert!(path.exists());
    let again = findings(&world).await.remove(0).subject;
    std::fs::hard_link(&path, world.data().join("second-name")).unwrap();
    assert_eq!(refused(&put_aside(&world, std::slice::from_ref(&again)).await[0]).code(), "fenced");
    std::fs::remove_file(world.data().join("second-name")).unwrap();
    assert!(matches!(put_aside(&world, &[again]).await[0], QuarantineOutcome::Done(_)));
    assert_eq!(kinds(&world).await, []);
}

#[tokio::test]
async fn a_dry_run_moves_nothing() {
    let world = World::new().await;
    let path = plant(&world, TenantId::generate(), 1).await;
    let_things_get_old(&world);
    let subject = findings(&world).await.remove(0).subject;
    let asker = QuarantineRequester { caller: caller(), reason: None };
    let fates = quarantine::run_quarantine(&world.app.context, &asker, &[subject], SubmitMode::Plan).await.unwrap();
    assert!(matches!(fates[0], QuarantineOutcome::Planned) && path.exists());
    assert_eq!(events(&world, "database.quarantine_begun").await, 0);
}

#[tokio::test]
async fn a_tenant_that_an_operation_works_on_is_never_reported() {
    for point in ["create: provisioned", "create: probed"] {
        let world = World::new().await;
        world.app.context.halt_at(point);
        let creating = Submission::new(creating(&["acme"]), TenantSelection::default());
        let operation = world.start(creating).await.unwrap().id;
        assert_eq!(world.app.context.wait_until_halted().await, point);
        // The file is there, older than the grace by the fleet's clock, and the catalog does not name it.
        let_things_get_old(&world);
        let report = scrubbed(&world).await;
        assert_eq!((report.findings, report.databases, report.busy), (vec![], 1, 1), "{point}");
        let world = world.crash().await;
        assert_eq!(findings(&world).await, [], "nor after its lease is over");
        world.finish(operation).await;
        assert_eq!(findings(&world).await, [], "{point}");
    }
}

#[tokio::test]
async fn a_restore_in_flight_is_never_reported() {
    let mut world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme"]).await;
    world.backup("acme").await;
    for point in ["build: filled", "restore: frozen", "build: stamped"] {
        world.app.context.halt_at(point);
        let restore = Submission::new(restoring(restore::RestorePoint::Latest), TenantSelection::one_tenant("acme"));
        let operation = world.start(restore).await.unwrap().id;
        assert_eq!(world.app.context.wait_until_halted().await, point);
        let_things_get_old(&world);
        assert_eq!(findings(&world).await, [], "{point}");
        world = world.crash().await;
        world.finish(operation).await;
        assert_eq!(findings(&world).await, [], "{point}");
    }
}

#[tokio::test]
async fn two_servers_in_one_directory_and_one_that_is_gone_are_told() {
    let world = World::new().await;
    world.create(&["acme"]).await;
    let root = world.data().join("tenants");
    std::os::unix::fs::symlink(&root, world.data().join("alias")).unwrap();
    let mut tx = world.app.catalog.write().await.unwrap();
    for (name, base) in [("zwei", world.data().join("alias")), ("weg", world.data().join("weg"))] {
        let new = catalog::servers::NewServer::in_directory(name, base.to_str().unwrap());
        catalog::servers::insert_server(&mut tx, new).await.unwrap();
    }
    tx.commit().await.unwrap();
    let_things_get_old(&world);
    assert_eq!(sorted(kinds(&world).await), [FindingKind::ServerUnreachable, FindingKind::SamePlace]);
}
