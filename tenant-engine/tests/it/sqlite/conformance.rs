//! The suite every engine must pass, on files and in memory.

use std::sync::Arc;

use tenant_engine::conformance::{EngineUnderTest, PoolSupport, run_all};
use tenant_engine::fake::{EngineVerb, FakeEngine, FaultMoment, FaultTarget, InjectedFault};
use tenant_engine::*;

use super::kit::{BASE, Kit, set};

#[tokio::test]
async fn sqlite_files() {
    let kit = Kit::new();
    let engine = Arc::new(kit.engine.clone());
    run_all(&EngineUnderTest { engine, server: kit.server(), serving: PoolSupport::Pools }).await;
    let left = |name: &std::ffi::OsStr| name.to_string_lossy().contains(".part");
    for tenant in std::fs::read_dir(kit.root.path()).unwrap() {
        for file in std::fs::read_dir(tenant.unwrap().path()).unwrap() {
            assert!(!left(&file.unwrap().file_name()), "no verb leaves a part");
        }
    }
    kit.engine.shut_down().await;
}

#[tokio::test]
async fn sqlite_in_memory() {
    let fake = FakeEngine::new();
    let server = DatabaseServer::new_sqlite("/nowhere");
    run_all(&EngineUnderTest { engine: Arc::new(fake.clone()), server, serving: PoolSupport::VerbsOnly }).await;
    assert!(fake.call_count(EngineVerb::Migrate) > 0);
}

#[tokio::test]
async fn faults_strike_once_whom_and_when_they_should() {
    let (kit, fake) = (Kit::new(), FakeEngine::new());
    let (one, two) = (kit.tenant(), kit.tenant());
    let template = fake.prepare_template(&kit.server(), &set(&BASE)).await.unwrap();
    let target = FaultTarget::Tenant(two.identity.tenant);
    fake.inject_fault(InjectedFault {
        verb: EngineVerb::Provision,
        target,
        moment: FaultMoment::Before,
        kind: ErrorKind::DiskFull,
    });
    fake.inject_fault(InjectedFault {
        verb: EngineVerb::Drop,
        target: FaultTarget::Anyone,
        moment: FaultMoment::After,
        kind: ErrorKind::Io,
    });
    fake.provision_database(&one.at, &template, &one.identity).await.unwrap();
    let struck = fake.provision_database(&two.at, &template, &two.identity).await.unwrap_err();
    assert_eq!(struck.kind(), ErrorKind::DiskFull);
    assert_eq!(fake.database_placements(), std::slice::from_ref(&one.at));
    fake.provision_database(&two.at, &template, &two.identity).await.unwrap();
    assert_eq!(fake.drop_database(&one.at, None).await.unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(fake.database_placements(), std::slice::from_ref(&two.at), "it was done, and the caller was not told");
    assert_eq!(fake.call_count(EngineVerb::Provision), 3);
}
