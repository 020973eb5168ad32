//! The suite every engine must pass, on a real server, as a role that is no superuser.

use std::sync::Arc;

use tenant_engine::conformance::{EngineUnderTest, PoolSupport, run_all};

use super::kit::Kit;

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server() {
    let kit = Kit::new();
    let engine = Arc::new(kit.engine.clone());
    run_all(&EngineUnderTest { engine, server: kit.server(), serving: PoolSupport::Pools }).await;
    let left = "select count(*) from pg_roles r where rolcanlogin and rolname like 't\\_%' and not exists \
                (select from pg_database d where r.rolname in (d.datname || '_r', d.datname || '_w'))";
    assert_eq!(kit.cluster.psql("postgres", left), "0", "no role that can log in outlives its database");
    assert_eq!(std::fs::read_dir(kit.scratch.path()).unwrap().count(), 0, "no verb leaves a file");
}
