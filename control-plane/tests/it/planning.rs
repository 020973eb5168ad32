//! Plans of selections that are larger than one page of the catalog.

use std::collections::{BTreeMap, BTreeSet};

use catalog::tenants::{self, NewTenant, TenantUpdate};
use catalog::{Generation, ServerState, TenantId, TenantName, TenantState, servers};
use control_plane::operations::{OperationParams, archive, r#move, suspend};
use control_plane::plan::TenantSelection;
use control_plane::runner::submit::Submission;

use crate::world::{DONE, TASKS, World, backing_up, migrating};

/// Three pages, of which the last one is not full.
const TENANTS: usize = 2_500;

/// Tenants that only the catalog knows, at `version`: no plan looks into their databases.
async fn fill(world: &World, tenants_at: impl Fn(usize) -> Option<i64>) -> Vec<TenantId> {
    let mut tx = world.app.catalog.write().await.unwrap();
    let server = servers::by_name(&mut tx, "local").await.unwrap().unwrap().id;
    let release = catalog::fleet::current_release(&mut tx).await.unwrap();
    let new = |number: usize| NewTenant {
        id: TenantId::generate(),
        name: TenantName::parse_slug(&format!("t{number}")).unwrap(),
        server_id: server,
        labels: BTreeMap::from([("group".to_owned(), (number % 2).to_string())]),
        plan: None,
    };
    let new: Vec<_> = (0..TENANTS).map(new).collect();
    tenants::insert_many(&mut tx, &new).await.unwrap();
    let active = |(number, tenant): (usize, &NewTenant)| TenantUpdate {
        state: Some(TenantState::Active),
        placement: Some(Some(format!("{}.1.db", tenant.id))),
        ..TenantUpdate::for_generation(tenant.id, Generation(1)).at(tenants_at(number))
    };
    let flips: Vec<_> = new.iter().enumerate().map(active).collect();
    assert!(tenants::update_many(&mut tx, &flips).await.unwrap().is_empty());
    let reached = |(number, tenant): (usize, &NewTenant)| tenants::ReachedSchema {
        tenant: tenant.id,
        version: tenants_at(number),
        release: None,
        ledger: release,
    };
    let reached: Vec<_> = new.iter().enumerate().map(reached).collect();
    tenants::set_schema_many(&mut tx, &reached).await.unwrap();
    tx.commit().await.unwrap();
    new.iter().map(|tenant| tenant.id).collect()
}

trait At {
    fn at(self, version: Option<i64>) -> Self;
}

impl At for TenantUpdate {
    fn at(self, version: Option<i64>) -> Self {
        Self { schema_version: Some(version), ..self }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_of_a_selection_is_planned_once() {
    let world = World::new().await;
    let all = fill(&world, |_| None).await;
    let plan = world.plan(backing_up(), TenantSelection::all_tenants()).await.unwrap();
    assert_eq!((plan.tenants, plan.skipped, plan.left_out), (2_500, 0, 0));
    let half = TenantSelection { selectors: vec!["group=1".to_owned()], ..TenantSelection::default() };
    assert_eq!(world.plan(backing_up(), half).await.unwrap().tenants, 1_250);
    let named =
        TenantSelection { names: all[..1_500].iter().map(ToString::to_string).collect(), ..TenantSelection::default() };
    assert_eq!(world.plan(backing_up(), named).await.unwrap().tenants, 1_500);

    let suspend = OperationParams::Suspend(suspend::SuspendParams {});
    let started = world.start(Submission::new(suspend, TenantSelection::all_tenants())).await.unwrap();
    world.app.simulate_kill().await;
    let steps: BTreeSet<_> = world.steps(started.id, &[]).await.into_iter().map(|(step, _)| step.tenant_id).collect();
    assert_eq!((started.steps_total, steps), (2_500, all.into_iter().collect()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_all_pages_can_say_is_said_of_all() {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    // The last page alone has passed the target, and the first one alone is behind it.
    fill(&world, |number| Some(if number < 2_400 { 1 } else { 2 })).await;
    let migrate = |target| match migrating(&[TASKS, DONE]) {
        OperationParams::Migrate(params) => {
            OperationParams::Migrate(control_plane::operations::migrate::MigrateParams { target, ..params })
        }
        other => other,
    };
    let refused = world.plan(migrate(Some(1)), TenantSelection::all_tenants()).await.unwrap_err();
    assert_eq!(refused.code(), "schema_unreachable", "{refused:?}");
    let changed = migrating(&[("0001_tasks.sql", "create table tasks (id integer);"), DONE]);
    let refused = world.plan(changed, TenantSelection::all_tenants()).await.unwrap_err();
    assert!(refused.detail.contains("2500 of 2500 tenants"), "{refused:?}");

    // Room for 30 more: what is lacking is counted over all pages.
    let base = world.data().join("other");
    std::fs::create_dir(&base).unwrap();
    let mut tx = world.app.catalog.write().await.unwrap();
    let new = servers::NewServer::in_directory("other", base.to_str().unwrap());
    servers::insert_server(&mut tx, servers::NewServer { tenants_max: Some(30), ..new }).await.unwrap();
    let local = servers::by_name(&mut tx, "local").await.unwrap().unwrap().id;
    servers::set_state(&mut tx, local, ServerState::Active).await.unwrap();
    tx.commit().await.unwrap();
    let to_other = OperationParams::Move(r#move::MoveParams { to: Some("other".to_owned()), ..Default::default() });
    let refused = world.plan(to_other, TenantSelection::all_tenants()).await.unwrap_err();
    assert!(refused.code() == "server_full" && refused.detail.contains("2470"), "{refused:?}");

    let plan =
        world.plan(OperationParams::Archive(archive::ArchiveParams {}), TenantSelection::all_tenants()).await.unwrap();
    assert_eq!((plan.tenants, plan.notes.len()), (2_500, 1), "a note is said once: {plan:?}");
}
