//! What must hold whenever no operation runs. Read from the databases and servers, not through the program's own view.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use catalog::tenants::TenantCriteria;
use catalog::{BlockWrites, ServerId, TenantRecord, TenantState};
use tenant_engine::{EngineKind, IdentityState, InspectionDepth};

use crate::world::{On, World};

/// A database: its server and what the catalog calls it there.
type Place = (ServerId, String);

/// Checks I1, I3, I5, I6 and I7 over the whole fleet.
pub(crate) async fn check(world: &World) {
    let mut tx = world.app.catalog.read().await.unwrap();
    let every = TenantCriteria { states: vec![], ..TenantCriteria::default() };
    let tenants = catalog::tenants::list_tenants(&mut tx, &every, None, 10_000).await.unwrap();
    let servers = catalog::servers::list_servers(&mut tx).await.unwrap();
    let (mut known, mut retained): (BTreeMap<Place, TenantRecord>, BTreeSet<Place>) = Default::default();
    for tenant in &tenants {
        assert!(tenant.op_id.is_none(), "{} is held by an operation at rest", tenant.name);
        stable(tenant);
        if let Some(placement) = &tenant.placement {
            known.insert((tenant.server_id, placement.clone()), tenant.clone());
        }
        let open = catalog::replacements::of_tenant(&mut tx, tenant.id).await.unwrap();
        assert_eq!(open, None, "I7: {} has an unfinished replacement", tenant.name);
        for kept in catalog::retained::of_tenant(&mut tx, tenant.id).await.unwrap() {
            assert!(kept.keep_until > kept.created_at, "I6: kept without a date");
            retained.insert((kept.server_id, kept.placement));
        }
    }
    drop(tx);
    assert!(known.keys().all(|place| !retained.contains(place)), "I6: current and kept");
    for (server, _) in servers.iter().filter(|(server, _)| server.engine == EngineKind::Sqlite) {
        files(server.id, server.base.as_ref(), &known, &retained);
    }
    databases(world, &tenants, &known, &retained);
    identities(world, &known, &retained).await;
    let scrubbed =
        control_plane::scrub::run_scrub(&world.app.context, &control_plane::scrub::InspectionScope::Everything)
            .await
            .unwrap();
    assert_eq!(scrubbed.findings, [], "scrub agrees");
    let scratch = std::fs::read_dir(world.data().join("scratch")).unwrap().count();
    assert_eq!(scratch, 0, "scratch space is not empty");
}

/// I7: nobody is left half-way, or blocked by nobody.
fn stable(tenant: &TenantRecord) {
    let name = &tenant.name;
    assert_ne!(tenant.state, TenantState::Provisioning, "I7: {name} never became anything");
    assert_ne!(tenant.block_writes, Some(BlockWrites::Operation), "I7: {name} is blocked by nobody");
    if tenant.block_writes.is_some() || tenant.state == TenantState::Suspended {
        assert!(tenant.state_reason.is_some(), "I7: {name} is blocked without a reason");
    }
    let asleep = matches!(tenant.state, TenantState::Archived | TenantState::Deleted);
    let wakes = matches!(tenant.wake_state, Some(TenantState::Active | TenantState::Suspended));
    assert!(asleep == wakes && (asleep || tenant.wake_state.is_none()), "{name} wakes {:?}", tenant.wake_state);
    let has_backup = tenant.archive_backup_id.is_some();
    assert_eq!(has_backup, asleep && tenant.placement.is_none(), "{name} comes back from a backup");
    let has = matches!(tenant.state, TenantState::Active | TenantState::Suspended | TenantState::Deleted);
    let archived_before = tenant.state == TenantState::Deleted && tenant.placement.is_none();
    assert!(
        has == tenant.placement.is_some() || archived_before,
        "{name} is {:?} with {:?}",
        tenant.state,
        tenant.placement
    );
}

/// I3 by device and inode, and I6: every file is current or kept.
fn files(server: ServerId, base: &Path, known: &BTreeMap<Place, TenantRecord>, retained: &BTreeSet<Place>) {
    let mut seen = BTreeMap::new();
    for ((_, placement), tenant) in known.iter().filter(|((on, _), _)| *on == server) {
        let Ok(meta) = std::fs::metadata(base.join(placement)) else { panic!("I1: {} has no file", tenant.name) };
        if let Some(other) = seen.insert((meta.dev(), meta.ino()), tenant.id) {
            panic!("I3: {other} and {} share a database", tenant.id);
        }
    }
    for folder in std::fs::read_dir(base).unwrap() {
        let folder = folder.unwrap();
        // The marker and the reserve are the directory's own.
        if folder.file_name().to_str().unwrap().starts_with('.') {
            continue;
        }
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let main = name.trim_end_matches("-wal").trim_end_matches("-shm");
            let place = (server, format!("{}/{main}", folder.file_name().to_str().unwrap()));
            assert!(known.contains_key(&place) || retained.contains(&place), "I6: {name} is nobody's");
        }
    }
}

/// I6 on Postgres, where a server outlives the fleets of a test: every database and role of these tenants is current or
/// kept.
fn databases(
    world: &World,
    tenants: &[TenantRecord],
    known: &BTreeMap<Place, TenantRecord>,
    retained: &BTreeSet<Place>,
) {
    let On::Postgres(servers) = &world.on else { return };
    let wanted: BTreeSet<&str> = known.keys().chain(retained).map(|(_, placement)| placement.as_str()).collect();
    for cluster in servers.started() {
        let databases = cluster.psql("postgres", "select datname from pg_database where datname like 't\\_%'");
        let roles = cluster.psql("postgres", "select rolname from pg_roles where rolname like 't\\_%'");
        for tenant in tenants {
            let id = tenant.id.uuid().simple().to_string();
            for name in databases.lines().filter(|name| name.contains(&id)) {
                assert!(wanted.contains(name), "I6: the database {name} is nobody's");
            }
            for name in roles.lines().filter(|name| name.contains(&id)) {
                assert!(wanted.iter().any(|database| name.starts_with(database)), "I6: the role {name} is nobody's");
            }
        }
    }
}

/// I1 and I5: the current database says what the catalog says; no other is `active`.
async fn identities(world: &World, known: &BTreeMap<Place, TenantRecord>, retained: &BTreeSet<Place>) {
    for ((server, placement), tenant) in known {
        let (engine, at) = world.app.context.resolve_placement(*server, placement).await.unwrap();
        let found = engine.inspect_database(&at, None, InspectionDepth::Full).await.unwrap();
        let state = match (tenant.state, tenant.block_writes) {
            (TenantState::Active | TenantState::Suspended, None) => IdentityState::Active,
            (TenantState::Active | TenantState::Suspended, Some(_)) => IdentityState::Frozen,
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
    for (server, placement) in retained {
        let (engine, at) = world.app.context.resolve_placement(*server, placement).await.unwrap();
        if let Ok(found) = engine.inspect_database(&at, None, InspectionDepth::Ledger).await {
            assert_ne!(found.identity.state, IdentityState::Active, "I1: {placement} is active");
        }
    }
}
