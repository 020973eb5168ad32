//! What a dump leaves out, and what a restore may not make, is said by every operation that makes a database from one.

use control_plane::operations::restore::{self, RestorePoint};
use control_plane::operations::{OperationParams, archive, clone, r#move, unarchive};
use control_plane::plan::TenantSelection;

use crate::world::{On, World, restoring, verifying};

/// Gives the tenant's current database a setting, which no dump holds, and a publication that only a superuser may make.
async fn spoil(world: &World) {
    let On::Postgres(servers) = &world.on else { unreachable!("only a dump leaves something out") };
    let database = world.tenant("acme").await.placement.unwrap();
    let setting = format!("alter database {database} set work_mem = '8MB'");
    let here = servers.started().find(|cluster| {
        cluster.psql("postgres", &format!("select count(*) from pg_database where datname = '{database}'")) == "1"
    });
    let here = here.expect("the catalog names a database that is there");
    here.psql("postgres", &setting);
    here.psql(&database, "drop publication if exists everything; create publication everything for all tables");
}

/// Runs the operation and looks for both in what its step says.
async fn is_said(world: &World, params: OperationParams) {
    let kind = format!("{params:?}");
    let ended = world.succeed(params, TenantSelection::one_tenant("acme")).await;
    let steps = world.steps(ended.id, &[]).await;
    let facts: serde_json::Value = serde_json::from_str(&steps[0].0.facts).unwrap();
    let said = facts["left_out"].to_string();
    for part in ["setting work_mem of the database", "PUBLICATION", "everything"] {
        assert!(said.contains(part), "{kind} does not say {part}: {facts}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_says_what_was_left_out() {
    let world = World::on(On::postgres()).await;
    world.add_other().await;
    world.migrate(&[("0001_tasks.sql", "create table tasks (title text not null);\n")]).await;
    world.create(&["acme"]).await;
    spoil(&world).await;
    is_said(&world, crate::world::backing_up()).await;
    is_said(&world, verifying()).await;
    let as_name = Some("restored".to_owned());
    is_said(
        &world,
        OperationParams::Restore(restore::RestoreParams {
            to: RestorePoint::Latest,
            as_name,
            schema: restore::RestoredSchema::Backup,
            resolved: None,
        }),
    )
    .await;
    is_said(&world, OperationParams::Clone(clone::CloneParams { name: "cloned".to_owned(), source: None })).await;
    is_said(&world, restoring(RestorePoint::Latest)).await;
    spoil(&world).await;
    world.succeed(OperationParams::Archive(archive::ArchiveParams {}), TenantSelection::one_tenant("acme")).await;
    is_said(&world, OperationParams::Unarchive(unarchive::UnarchiveParams {})).await;
    spoil(&world).await;
    is_said(&world, OperationParams::Move(r#move::MoveParams { to: Some("other".to_owned()), ..Default::default() }))
        .await;
}
