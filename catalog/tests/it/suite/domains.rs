//! Custom domains: many may claim a host, one has it, and only while it is proven.

use catalog::domains::{self, DomainRecord, DomainState, FailedCheck};
use catalog::tenants::{self, TenantUpdate};
use catalog::{Catalog, ErrorKind, Generation, TenantId, TenantName, TenantState, WriteTx, identity, names};

use super::super::world::World;
use super::{Fixture, START, older_schema, open, seed};

fn host(text: &str) -> TenantName {
    TenantName::parse_host(text).unwrap()
}

async fn owner(tx: &mut WriteTx, name: &str) -> Option<TenantId> {
    names::resolve_name(tx, &host(name)).await.unwrap()
}

async fn claim(tx: &mut WriteTx, tenant: TenantId, name: &str) -> DomainRecord {
    domains::add_domain(tx, tenant, &host(name)).await.unwrap()
}

async fn active(tx: &mut WriteTx, tenant: TenantId, name: &str) -> DomainRecord {
    let claimed = claim(tx, tenant, name).await;
    domains::activate_domain(tx, &claimed).await.unwrap();
    domains::get(tx, tenant, &claimed.host).await.unwrap().unwrap()
}

#[tokio::test]
async fn the_first_that_proves_a_host_has_it() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 2).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let (first, second) = (claim(&mut tx, ids[0], "shop.example").await, claim(&mut tx, ids[1], "shop.example").await);
    assert_eq!((first.state, first.created_at, first.verified_at), (DomainState::Pending, START, None));
    assert_ne!(first.challenge, second.challenge);
    assert!(first.challenge.len() == 64 && first.challenge.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(owner(&mut tx, "shop.example").await, None, "a claim leads nowhere");
    domains::activate_domain(&mut tx, &second).await.unwrap();
    assert_eq!(owner(&mut tx, "shop.example").await, Some(ids[1]));
    let refused = domains::activate_domain(&mut tx, &first).await.unwrap_err();
    assert_eq!((refused.kind(), refused.to_string().contains("t1")), (ErrorKind::AlreadyExists, false), "{refused}");
    domains::activate_domain(&mut tx, &second).await.unwrap();
    domains::remove_domain(&mut tx, ids[1], &second.host).await.unwrap();
    assert_eq!(owner(&mut tx, "shop.example").await, None);
    domains::activate_domain(&mut tx, &first).await.unwrap();
    assert_eq!(owner(&mut tx, "shop.example").await, Some(ids[0]));
    let again = claim(&mut tx, ids[1], "shop.example").await;
    assert_ne!(again.challenge, second.challenge, "a new claim needs a new proof");
    for (error, kind) in [
        (domains::activate_domain(&mut tx, &second).await.unwrap_err(), ErrorKind::AlreadyExists),
        (domains::remove_domain(&mut tx, ids[0], &host("b.example")).await.unwrap_err(), ErrorKind::NotFound),
        (domains::add_domain(&mut tx, ids[0], &first.host).await.unwrap_err(), ErrorKind::AlreadyExists),
        (domains::add_domain(&mut tx, ids[0], &host("shop")).await.unwrap_err(), ErrorKind::Invalid),
    ] {
        assert_eq!(error.kind(), kind, "{error}");
    }
    let nobodys = domains::add_domain(&mut tx, TenantId::generate(), &host("c.example")).await.unwrap_err();
    assert_eq!(nobodys.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_domain_expires_and_is_proven_again() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let old = active(&mut tx, ids[0], "shop.example").await;
    let failed = FailedCheck { error: "gone".to_owned(), failing_since: Some(START), failed_checks: 1 };
    domains::record_failed_check(&mut tx, &old, failed).await.unwrap();
    let failing = domains::get(&mut tx, ids[0], &old.host).await.unwrap().unwrap();
    assert_eq!((failing.state, failing.failed_checks, failing.failing_since), (DomainState::Active, 1, Some(START)));
    assert!(domains::is_active(&mut tx, &old.host).await.unwrap(), "one failure ends nothing");
    domains::expire_domain(&mut tx, &failing, "still gone").await.unwrap();
    assert!(!domains::is_active(&mut tx, &old.host).await.unwrap());
    assert_eq!(owner(&mut tx, "shop.example").await, None);
    let twice = domains::expire_domain(&mut tx, &failing, "x").await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Conflict);
    let expired = domains::get(&mut tx, ids[0], &old.host).await.unwrap().unwrap();
    assert_eq!((expired.state, expired.check_error.as_deref()), (DomainState::Expired, Some("still gone")));
    assert_eq!(expired.challenge, old.challenge);
    domains::activate_domain(&mut tx, &expired).await.unwrap();
    assert_eq!(domains::get(&mut tx, ids[0], &old.host).await.unwrap().unwrap(), old);
    assert_eq!(owner(&mut tx, "shop.example").await, Some(ids[0]));
}

#[tokio::test]
async fn lists_are_pages_and_only_old_checks_are_due() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    for name in ["c.example", "a.example", "b.example"] {
        active(&mut tx, ids[0], name).await;
    }
    claim(&mut tx, ids[0], "d.example").await;
    let hosts = |found: Vec<DomainRecord>| found.iter().map(|one| one.host.to_string()).collect::<Vec<_>>();
    assert_eq!(hosts(domains::list_domains(&mut tx, ids[0], None, 2).await.unwrap()), ["a.example", "b.example"]);
    let rest = domains::list_domains(&mut tx, ids[0], Some("b.example"), 9).await.unwrap();
    assert_eq!(hosts(rest), ["c.example", "d.example"]);
    assert!(domains::due_domains(&mut tx, START, 9).await.unwrap().is_empty());
    let due = domains::due_domains(&mut tx, START + 1, 9).await.unwrap();
    assert_eq!(hosts(due), ["a.example", "b.example", "c.example"]);
    for number in 4..100 {
        claim(&mut tx, ids[0], &format!("n{number}.example")).await;
    }
    let full = domains::add_domain(&mut tx, ids[0], &host("more.example")).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Conflict);
}

async fn set_state(tx: &mut WriteTx, tenant: TenantId, from: i64, state: TenantState) {
    let mut update = TenantUpdate::for_generation(tenant, Generation(from));
    update.state = Some(state);
    assert!(tenants::update_many(tx, &[update]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_deleted_tenant_keeps_its_domains_until_it_is_purged() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 3).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    for (id, name) in [(ids[0], "a.example"), (ids[1], "b.example"), (ids[2], "c.example")] {
        active(&mut tx, id, name).await;
    }
    set_state(&mut tx, ids[0], 1, TenantState::Deleted).await;
    assert!(!domains::is_active(&mut tx, &host("a.example")).await.unwrap());
    assert_eq!(owner(&mut tx, "a.example").await, Some(ids[0]), "it can be undeleted");
    set_state(&mut tx, ids[0], 2, TenantState::Active).await;
    assert!(domains::is_active(&mut tx, &host("a.example")).await.unwrap());
    set_state(&mut tx, ids[0], 3, TenantState::Deleted).await;
    set_state(&mut tx, ids[0], 4, TenantState::Purged).await;
    tenants::remove_provisioning(&mut tx, ids[1]).await.unwrap();
    for (id, name) in [(ids[0], "a.example"), (ids[1], "b.example")] {
        assert_eq!(owner(&mut tx, name).await, None, "{name}");
        assert!(domains::list_domains(&mut tx, id, None, 9).await.unwrap().is_empty(), "{name}");
    }
    assert_eq!(owner(&mut tx, "c.example").await, Some(ids[2]));
}

#[tokio::test]
async fn a_copy_of_the_fleet_proves_its_domains_anew() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 1).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let before = active(&mut tx, ids[0], "shop.example").await;
    let next = identity::begin_new_identity(&mut tx).await.unwrap();
    identity::finish_new_identity(&mut tx, next, "/srv/copy").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(challenge(&fixture.catalog, ids[0]).await, before.challenge);
    let copy = fixture.other_process().await;
    assert_ne!(challenge(&copy, ids[0]).await, before.challenge);
    assert!(!domains::is_active(&mut copy.read().await.unwrap(), &before.host).await.unwrap());
}

async fn challenge(catalog: &Catalog, tenant: TenantId) -> String {
    let mut tx = catalog.read().await.unwrap();
    let found = domains::get(&mut tx, tenant, &host("shop.example")).await.unwrap().unwrap();
    assert_eq!(found.state, DomainState::Pending);
    found.challenge
}

#[tokio::test]
async fn a_catalog_without_the_table_gets_it() {
    let (world, key) = (World::new(), catalog::seal::FleetKey::generate());
    world.tool(older_schema(&key, 18).leak()).await;
    let catalog = open(&world, &key).await.unwrap();
    let (_, ids) = seed(&catalog, 1).await;
    let mut tx = catalog.write().await.unwrap();
    active(&mut tx, ids[0], "shop.example").await;
    tx.commit().await.unwrap();
}
