//! Making a new database.

use std::os::unix::fs::PermissionsExt;

use rustix::fs::Mode;
use tenant_engine::*;

use super::kit::{BASE, Kit, set};

#[tokio::test]
async fn a_new_tenant_is_at_the_head_private_and_alone_in_its_directory() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    assert_eq!(tenant.files(), ["g1-1.db"], "no log, no journal, no part");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&tenant.path()), mode(tenant.path().parent().unwrap())), (0o600, 0o700));

    let seen = kit.engine.inspect_database(&tenant.at, Some(&tenant.expected()), InspectionDepth::Full).await.unwrap();
    assert_eq!(seen.identity, tenant.identity);
    assert_eq!(seen.schema_version(), Some(2));
    assert!(seen.problems.is_empty() && seen.applied.iter().all(|row| row.success));
    assert_eq!(tenant.files(), ["g1-1.db"], "looking leaves nothing");
    let mode: String = tenant.open().query_row("pragma journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn files_of_tenants_are_private_whatever_the_process_allows() {
    // Each test has a process of its own.
    rustix::process::umask(Mode::empty());
    let kit = Kit::new();
    assert_eq!(rustix::process::umask(Mode::empty()), Mode::empty(), "the engine leaves the umask as it is");
    let tenant = kit.provisioned(&set(&BASE)).await;
    let pool = kit.engine.open_pool(&tenant.at, &tenant.expected()).await.unwrap();
    let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
    let insert = SqlStatement { sql: "insert into projects(name) values('one')".to_owned(), params: Vec::new() };
    session.run_statements(vec![insert], AfterStatements::Commit).await.unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(tenant.files(), ["g1-1.db", "g1-1.db-shm", "g1-1.db-wal"]);
    let folder = tenant.path().parent().unwrap().to_owned();
    assert_eq!(mode(&folder), 0o700);
    for file in tenant.files() {
        assert_eq!(mode(&folder.join(&file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn provisioning_again_is_success_and_another_identity_is_refused() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    tenant.open().execute_batch("insert into projects(name) values('kept')").unwrap();
    let template = kit.engine.prepare_template(&kit.server(), &MigrationSet::empty_set()).await.unwrap();
    let again = Identity { stamped_at: 2_000, ..tenant.identity.clone() };
    kit.engine.provision_database(&tenant.at, &template, &again).await.unwrap();
    assert_eq!(tenant.number("select count(*) from projects"), 1, "the database was left as it is");

    let other = Identity { tenant: TenantId::generate(), ..tenant.identity.clone() };
    let error = kit.engine.provision_database(&tenant.at, &template, &other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(tenant.files(), ["g1-1.db"]);
}

#[tokio::test]
async fn what_a_crash_left_is_replaced_or_named() {
    let kit = Kit::new();
    let tenant = kit.tenant();
    let template = kit.engine.prepare_template(&kit.server(), &set(&BASE)).await.unwrap();
    std::fs::create_dir(tenant.path().parent().unwrap()).unwrap();
    let part = tenant.path().with_extension("db.part");
    std::fs::write(&part, "half").unwrap();
    kit.engine.provision_database(&tenant.at, &template, &tenant.identity).await.unwrap();
    assert_eq!(tenant.files(), ["g1-1.db"]);

    // A power cut between rename and flush: the name is there, the pages are not.
    let torn = kit.tenant();
    kit.engine.provision_database(&torn.at, &template, &torn.identity).await.unwrap();
    let mut bytes = std::fs::read(torn.path()).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..].fill(0);
    std::fs::write(torn.path(), bytes).unwrap();
    let error = kit.engine.provision_database(&torn.at, &template, &torn.identity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn a_missing_server_directory_and_a_linked_tenant_directory_are_refused() {
    let kit = Kit::new();
    let template = kit.engine.prepare_template(&kit.server(), &set(&BASE)).await.unwrap();
    let tenant = kit.tenant();
    let nowhere = Placement::new_sqlite(&kit.root.path().join("none"), tenant.identity.tenant, Generation::FIRST, 1);
    let error = kit.engine.provision_database(&nowhere, &template, &tenant.identity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);

    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), tenant.path().parent().unwrap()).unwrap();
    let error = kit.engine.provision_database(&tenant.at, &template, &tenant.identity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_broken_set_makes_no_template() {
    let kit = Kit::new();
    let error = kit
        .engine
        .prepare_template(&kit.server(), &set(&[("1_a.sql", "create table a(x);\ncreate tabel b(x);")]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MigrationFailed);
    assert!(error.message().starts_with("version 1 (a), line 2: near \"tabel\""), "{error}");
}

#[tokio::test]
async fn many_at_once_are_all_there() {
    let kit = Kit::new();
    let template = kit.engine.prepare_template(&kit.server(), &set(&BASE)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (engine, template, tenant) = (kit.engine.clone(), template.clone(), kit.tenant());
        tasks.spawn(async move {
            engine.provision_database(&tenant.at, &template, &tenant.identity).await.unwrap();
            tenant
        });
    }
    for tenant in tasks.join_all().await {
        let seen =
            kit.engine.inspect_database(&tenant.at, Some(&tenant.expected()), InspectionDepth::Ledger).await.unwrap();
        assert_eq!(seen.schema_version(), Some(2));
    }
}
