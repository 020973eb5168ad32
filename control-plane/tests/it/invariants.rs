//! What must hold whenever no operation runs. Read from the files, not through the program.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use catalog::TenantState;
use catalog::tenants::Selection;
use tenant_engine::{Depth, IdentityState};

use crate::world::World;

/// Checks I1, I3, I5, I6 and I7 over the whole fleet.
pub(crate) async fn check(world: &World) {
    let mut tx = world.app.catalog.read().await.unwrap();
    let every = Selection { states: vec![], ..Selection::default() };
    let tenants = catalog::tenants::page(&mut tx, &every, None, 10_000).await.unwrap();
    let mut known = BTreeMap::new();
    let mut retained = BTreeSet::new();
    for tenant in &tenants {
        assert!(tenant.op_id.is_none(), "{} is held by an operation at rest", tenant.name);
        assert_ne!(tenant.state, TenantState::Provisioning, "I7: {} never became anything", tenant.name);
        if tenant.state == TenantState::Active && tenant.block_writes.is_some() {
            assert!(tenant.state_reason.is_some(), "I7: {} is blocked without a reason", tenant.name);
        }
        if let Some(placement) = &tenant.placement {
            known.insert(world.data().join("tenants").join(placement), tenant.clone());
        }
        for kept in catalog::retained::of_tenant(&mut tx, tenant.id).await.unwrap() {
            assert!(kept.keep_until > kept.created_at, "I6: kept without a date");
            retained.insert(world.data().join("tenants").join(&kept.placement));
        }
    }
    drop(tx);
    shared(&known);
    orphans(world, &known, &retained);
    identities(world, &known, &retained).await;
    let scrubbed =
        control_plane::scrub::run(&world.app.fleet, &control_plane::scrub::Opening::Everything).await.unwrap();
    assert_eq!(scrubbed.findings, [], "scrub agrees");
    let scratch = std::fs::read_dir(world.data().join("scratch")).unwrap().count();
    assert_eq!(scratch, 0, "scratch space is not empty");
}

/// I3: by device and inode, not by name.
fn shared(known: &BTreeMap<PathBuf, catalog::TenantRecord>) {
    let mut seen = BTreeMap::new();
    for (path, tenant) in known {
        let Ok(meta) = std::fs::metadata(path) else { panic!("I1: {} has no file", tenant.name) };
        if let Some(other) = seen.insert((meta.dev(), meta.ino()), tenant.id) {
            panic!("I3: {other} and {} share a database", tenant.id);
        }
    }
}

/// I6: every file is current or kept.
fn orphans(world: &World, known: &BTreeMap<PathBuf, catalog::TenantRecord>, retained: &BTreeSet<PathBuf>) {
    for folder in std::fs::read_dir(world.data().join("tenants")).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path().to_string_lossy().into_owned();
            let main = PathBuf::from(path.trim_end_matches("-wal").trim_end_matches("-shm"));
            assert!(known.contains_key(&main) || retained.contains(&main), "I6: {path} is nobody's");
        }
    }
}

/// I1 and I5: the current database says what the catalog says; no other is `active`.
async fn identities(world: &World, known: &BTreeMap<PathBuf, catalog::TenantRecord>, retained: &BTreeSet<PathBuf>) {
    let (engine, _) = match known.values().next() {
        Some(tenant) => world.app.fleet.current(tenant).await.unwrap(),
        None => return,
    };
    let base = world.data().join("tenants");
    let at = |path: &PathBuf| {
        let reference = path.strip_prefix(&base).unwrap().to_string_lossy().into_owned();
        tenant_engine::Server::sqlite(&base).placement(&reference).unwrap()
    };
    for (path, tenant) in known {
        let found = engine.inspect(&at(path), None, Depth::Full).await.unwrap();
        let state = match (tenant.state, tenant.block_writes) {
            (TenantState::Active, None) => IdentityState::Active,
            (TenantState::Active, Some(_)) => IdentityState::Frozen,
            _ => IdentityState::Tombstone,
        };
        let identity = &found.identity;
        assert_eq!(
            (identity.tenant, identity.generation, identity.state),
            (tenant.id, tenant.generation, state),
            "I1: {}",
            tenant.name
        );
        assert!(found.problems.is_empty(), "{}: {:?}", tenant.name, found.problems);
        assert_eq!(found.schema_version(), tenant.schema_version, "{}: the hint is wrong", tenant.name);
    }
    for path in retained {
        if let Ok(found) = engine.inspect(&at(path), None, Depth::Ledger).await {
            assert_ne!(found.identity.state, IdentityState::Active, "I1: {} is active", path.display());
        }
    }
}
