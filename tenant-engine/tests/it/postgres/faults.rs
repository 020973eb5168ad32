//! A server that dies, restarts or falls silent in the middle of a verb: an error in bounded time, and the repeated
//! call is right.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tenant_engine::*;

use super::kit::{BASE, Kit, Tenant, base_and, set};

/// Runs a verb, waits until `sign` (a question to the superuser) answers `t`, and strikes.
async fn struck<T: Send + 'static>(
    kit: &Kit,
    sign: &str,
    strike: impl FnOnce(&Kit),
    verb: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let running = tokio::spawn(verb);
    let deadline = Instant::now() + Duration::from_secs(20);
    while kit.cluster.psql("postgres", sign) != "t" {
        assert!(Instant::now() < deadline, "the verb never got that far: {sign}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    strike(kit);
    running.await.unwrap()
}

fn is_server_fault(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionLost | ErrorKind::ServerUnreachable)
}

const SLEEPS: &str = "select exists (select from pg_stat_activity where query ~ 'pg_sleep' and state = 'active' \
                      and pid <> pg_backend_pid())";

fn slow() -> MigrationSet {
    base_and(&[
        ("3_one.sql", "create table one(a int);"),
        ("4_slow.sql", "create table slow(a int); select pg_sleep(4);"),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_a_migration_leaves_whole_versions() {
    let kit = Arc::new(Kit::new());
    for strike in [|kit: &Kit| kit.cluster.stop(), |kit: &Kit| kit.cluster.kill()] {
        let tenant = kit.provisioned(&set(&BASE)).await;
        let verb = {
            let (kit, tenant) = (kit.clone(), tenant.clone());
            async move { kit.migrate(&tenant, &slow()).await }
        };
        let error = struck(&kit, SLEEPS, strike, verb).await.unwrap_err();
        assert!(is_server_fault(error.kind()), "{error}");
        let error = kit.migrate(&tenant, &slow()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ServerUnreachable, "{error}");
        kit.cluster.start_again();
        assert_eq!(kit.ask(&tenant, "select max(version) from _sqlx_migrations"), "3");
        assert_eq!(kit.migrate(&tenant, &slow()).await.unwrap().applied, [4]);
    }
}

/// A trigger or a policy cannot slow a dump down, a large table can.
async fn large(kit: &Kit) -> Tenant {
    let tenant = kit.provisioned(&set(&BASE)).await;
    kit.ask(&tenant, "insert into projects select n, repeat(md5(n::text), 20) from generate_series(1, 200000) n");
    tenant
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_a_dump_or_a_restore_can_be_asked_again() {
    let kit = Arc::new(Kit::new());
    let tenant = large(&kit).await;
    let dumping = "select exists (select from pg_stat_activity where query like 'COPY public.projects%TO stdout%')";
    let verb = {
        let (kit, tenant) = (kit.clone(), tenant.clone());
        async move { kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await }
    };
    let error = struck(&kit, dumping, |kit| kit.cluster.kill(), verb).await.unwrap_err();
    assert!(is_server_fault(error.kind()), "{error}");
    kit.cluster.start_again();
    assert_eq!(std::fs::read_dir(kit.scratch.path()).unwrap().count(), 0, "no half a dump");
    let taken = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap();
    let SnapshotImage::File(path) = &taken.image else { panic!("it is large") };
    let copy = || {
        let copy = tempfile::NamedTempFile::new_in(kit.scratch.path()).unwrap().into_temp_path();
        std::fs::copy(path, &copy).unwrap();
        SnapshotImage::File(copy)
    };

    let to = kit.placed(Identity { tenant: TenantId::generate(), ..tenant.identity.clone() });
    let filling = "select exists (select from pg_stat_activity where query like 'COPY public.projects%FROM stdin%')";
    let verb = {
        let (kit, to, image, source) = (kit.clone(), to.clone(), copy(), tenant.identity.tenant);
        async move { kit.engine.restore_database(&to.at, image, source, &to.identity).await }
    };
    let error = struck(&kit, filling, |kit| kit.cluster.kill(), verb).await.unwrap_err();
    assert!(is_server_fault(error.kind()), "{error}");
    kit.cluster.start_again();
    let found = kit.engine.inspect_database(&to.at, None, InspectionDepth::Ledger).await.unwrap_err();
    assert_eq!(found.kind(), ErrorKind::Missing, "without an identity it is nothing: {found}");
    kit.engine.restore_database(&to.at, copy(), tenant.identity.tenant, &to.identity).await.unwrap();
    assert_eq!(kit.ask(&to, "select count(*) from projects"), "200000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_ends_in_an_error_and_heals() {
    let kit = Arc::new(Kit::new());
    let tenant = kit.provisioned(&set(&BASE)).await;
    let verb = {
        let (kit, tenant) = (kit.clone(), tenant.clone());
        async move { kit.migrate(&tenant, &slow()).await }
    };
    let began = Instant::now();
    let error = struck(&kit, SLEEPS, |kit| kit.cluster.freeze(), verb).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{error}");
    let (server, expected) = (kit.server(), tenant.expected());
    let frozen = tenant.at_generation(2, IdentityState::Frozen);
    let verbs = tokio::join!(
        kit.engine.survey_server(&server),
        kit.engine.take_snapshot(&tenant.at, &expected),
        kit.engine.freeze_database(&tenant.at, &expected, &frozen.identity),
        kit.engine.drop_database(&tenant.at, None),
    );
    for kind in [verbs.0.map(drop), verbs.1.map(drop), verbs.2, verbs.3].map(|outcome| outcome.unwrap_err().kind()) {
        assert_eq!(kind, ErrorKind::ServerUnreachable);
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    kit.cluster.thaw();
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = kit.migrate(&tenant, &slow()).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_future_gives_its_slot_back_and_leaves_no_session() {
    let kit = Arc::new(Kit::new());
    let tenant = kit.provisioned(&set(&BASE)).await;
    for _ in 0..20 {
        let late = Duration::from_millis(40);
        let _ = tokio::time::timeout(late, kit.migrate(&tenant, &slow())).await;
        let _ = tokio::time::timeout(late, kit.engine.take_snapshot(&tenant.at, &tenant.expected())).await;
    }
    kit.engine.inspect_database(&tenant.at, None, InspectionDepth::Full).await.unwrap();
    let ours = "select count(*) = 0 from pg_stat_activity where datname like 't\\_%'";
    let deadline = Instant::now() + Duration::from_secs(15);
    while kit.cluster.psql("postgres", ours) != "t" {
        assert!(Instant::now() < deadline, "sessions of callers that gave up live on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(std::fs::read_dir(kit.scratch.path()).unwrap().count(), 0);
}
