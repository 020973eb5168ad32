//! How subscriptions end, and which changes of a tenant they outlive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use catalog::tokens::{self, TokenScope};
use catalog::{Catalog, TenantId, TenantState, members};
use postgres_fixture::Cluster;
use tenant_router::realtime::{RealtimeLimits, Subscription, SubscriptionEnd, SubscriptionEvent, SubscriptionRequest};
use tenant_router::{ErrorKind, Memberships, Principal, Read, RequestView, Result, Role, Tenant};

use crate::realtime::{LONG, follow, next, next_text, publish, tenant};
use crate::world::World;

/// The longest time from a revocation to the end of the subscription.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

async fn end_of(mut subscription: Subscription) -> SubscriptionEnd {
    let ended = tokio::time::timeout(REVOKED_WITHIN, subscription.next_event()).await;
    ended.expect("the subscription ends in time").expect_err("nothing else comes")
}

async fn set_member(catalog: &Catalog, id: TenantId, principal: &str) {
    let mut tx = catalog.write().await.unwrap();
    members::set_member(&mut tx, id, principal, Role::Reader).await.unwrap();
    tx.commit().await.unwrap();
}

async fn remove_member(catalog: &Catalog, id: TenantId, principal: &str) {
    let mut tx = catalog.write().await.unwrap();
    members::remove_member(&mut tx, id, principal).await.unwrap();
    tx.commit().await.unwrap();
}

async fn member_token(world: &World, principal: &str) -> String {
    world.token(TokenScope::Member { principal: principal.to_owned() }).await
}

/// A member is removed in one process, and follows in another.
async fn a_removed_member_is_cut_off(world: World) {
    let ids = world.tenants(&["acme", "globex"]).await;
    for id in &ids {
        set_member(&world.catalog, *id, "ann").await;
    }
    set_member(&world.catalog, ids[0], "bob").await;
    let (here, there) = (world.router().await, world.other_router().await);
    let (ann, bob) = (member_token(&world, "ann").await, member_token(&world, "bob").await);
    there.catch_up().await.unwrap();
    let acme = tenant(&world, &here, "acme", ids[0]).await;
    let globex = tenant(&world, &here, "globex", ids[1]).await;
    let mut of_ann = [follow(&here, "acme", &ann).await.unwrap(), follow(&there, "acme", &ann).await.unwrap()];
    let mut others = [follow(&there, "acme", &bob).await.unwrap(), follow(&there, "globex", &ann).await.unwrap()];
    publish(&acme, "before").await;
    for subscription in &mut of_ann {
        assert_eq!(next_text(subscription).await, "before");
    }
    remove_member(&world.catalog, ids[0], "ann").await;
    publish(&acme, "after").await;
    publish(&globex, "of globex").await;
    for subscription in of_ann {
        assert_eq!(end_of(subscription).await, SubscriptionEnd::AccessEnded, "the later message did not come");
    }
    assert_eq!((next_text(&mut others[0]).await, next_text(&mut others[0]).await), ("before".into(), "after".into()));
    assert_eq!(next_text(&mut others[1]).await, "of globex");
    assert_eq!(follow(&there, "acme", &ann).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_who_is_removed_by_another_process_is_cut_off_on_sqlite() {
    a_removed_member_is_cut_off(World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_who_is_removed_by_another_process_is_cut_off_on_postgres() {
    let cluster = Cluster::start();
    a_removed_member_is_cut_off(World::on_postgres(&cluster).await).await;
}

#[tokio::test]
async fn a_credential_that_ends_ends_its_subscriptions_only() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.other_router().await;
    let scope = || TokenScope::Tenant { tenant: id, role: Role::Reader };
    let soon = world.token_until(scope(), world.catalog.now() + 1_500).await;
    let (revoked, other) = (world.token(scope()).await, world.token(scope()).await);
    set_member(&world.catalog, id, "ann").await;
    let of_member = member_token(&world, "ann").await;
    router.catch_up().await.unwrap();
    let mut ending = Vec::new();
    for token in [&soon, &revoked, &of_member] {
        ending.push(follow(&router, "acme", token).await.unwrap());
    }
    let mut stays = follow(&router, "acme", &other).await.unwrap();
    let mut tx = world.catalog.write().await.unwrap();
    for secret in [&revoked, &of_member] {
        let token = tokens::by_secret(&mut tx, secret).await.unwrap().unwrap();
        tokens::revoke_token(&mut tx, token.id).await.unwrap();
    }
    tx.commit().await.unwrap();
    for subscription in ending {
        assert_eq!(end_of(subscription).await, SubscriptionEnd::AccessEnded);
    }
    publish(&tenant(&world, &router, "acme", id).await, "goes on").await;
    assert_eq!(next_text(&mut stays).await, "goes on");
}

#[tokio::test]
async fn a_tenant_that_is_not_served_ends_its_subscriptions() {
    for (state, expected) in [
        (TenantState::Suspended, SubscriptionEnd::TenantSuspended),
        (TenantState::Deleted, SubscriptionEnd::AccessEnded),
        (TenantState::Archived, SubscriptionEnd::TenantArchived),
    ] {
        let world = World::new().await;
        let ids = world.tenants(&["acme", "globex"]).await;
        let router = world.other_router().await;
        let acme = follow(&router, "acme", &world.token_for(ids[0], Role::Reader).await).await.unwrap();
        let mut globex = follow(&router, "globex", &world.token_for(ids[1], Role::Reader).await).await.unwrap();
        world.update_tenant(ids[0], |update| update.state = Some(state)).await;
        assert_eq!(end_of(acme).await, expected);
        publish(&tenant(&world, &router, "globex", ids[1]).await, "goes on").await;
        assert_eq!(next_text(&mut globex).await, "goes on");
    }
}

#[tokio::test]
async fn a_tenant_that_moves_or_changes_keeps_its_subscriptions() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let (here, there) = (world.router().await, world.other_router().await);
    let mut subscription = follow(&there, "acme", &world.token_for(id, Role::Reader).await).await.unwrap();
    set_member(&world.catalog, id, "ann").await;
    // A new generation of the same database.
    world.update_tenant(id, |_| {}).await;
    publish(&tenant(&world, &here, "acme", id).await, "next generation").await;
    assert_eq!(next_text(&mut subscription).await, "next generation");
    world.fill(id, "restored").await;
    assert!(matches!(next(&mut subscription).await, Ok(SubscriptionEvent::Reload { .. })), "the data is other data");
    publish(&tenant(&world, &here, "acme", id).await, "goes on").await;
    assert_eq!(next_text(&mut subscription).await, "goes on");
}

#[tokio::test]
async fn a_slow_consumer_is_dropped_and_the_others_are_not() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let limits = RealtimeLimits { queue_messages_max: 3, ..RealtimeLimits::default() };
    let router = world.builder().realtime_limits(limits).build().await.unwrap();
    let acme = tenant(&world, &router, "acme", id).await;
    let token = world.token_for(id, Role::Reader).await;
    let (slow, mut quick) =
        (follow(&router, "acme", &token).await.unwrap(), follow(&router, "acme", &token).await.unwrap());
    for number in 0..10 {
        publish(&acme, &number.to_string()).await;
        assert_eq!(next_text(&mut quick).await, number.to_string());
    }
    assert_eq!(slow.revoked().await, SubscriptionEnd::SlowConsumer);
    assert_eq!(end_of(slow).await, SubscriptionEnd::SlowConsumer);
}

#[tokio::test]
async fn a_stop_sends_what_waits_and_refuses_new_subscriptions() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let token = world.token_for(id, Role::Reader).await;
    let mut subscription = follow(&router, "acme", &token).await.unwrap();
    let acme = tenant(&world, &router, "acme", id).await;
    publish(&acme, "waits").await;
    while subscription.position().is_some() {
        tokio::task::yield_now().await;
    }
    let consumer = async {
        assert_eq!(next_text(&mut subscription).await, "waits");
        assert_eq!(next(&mut subscription).await, Err(SubscriptionEnd::GoingAway));
        assert_eq!(next(&mut subscription).await, Err(SubscriptionEnd::GoingAway), "again");
        drop(subscription);
    };
    let both = async { tokio::join!(biased; router.end_subscriptions(), consumer) };
    tokio::time::timeout(LONG, both).await.expect("the stop ends when the subscriptions are dropped");
    assert_eq!(follow(&router, "acme", &token).await.unwrap_err().kind(), ErrorKind::ShuttingDown);
    publish(&acme, "a running request may still publish").await;
    drop(acme);
    tokio::time::timeout(LONG, router.shutdown()).await.unwrap();
}

/// The application's own memberships: the change feed says nothing of them.
struct OwnMembers(AtomicBool);

#[async_trait]
impl Memberships for OwnMembers {
    async fn role(&self, _tenant: TenantId, _principal: &str) -> Result<Option<Role>> {
        Ok(self.0.load(Ordering::SeqCst).then_some(Role::Reader))
    }
}

#[tokio::test]
async fn memberships_of_the_application_and_expired_principals_end_in_time() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let members = Arc::new(OwnMembers(AtomicBool::new(true)));
    let router = world.builder().memberships(members.clone()).build().await.unwrap();
    let request = RequestView { path: "/t/acme/x", ..RequestView::default() };
    let mut ends = Vec::new();
    for principal in
        [Principal::member("ann"), Principal::of_tenant("bob", id, Role::Reader).expiring_at(world.catalog.now() + 800)]
    {
        let tenant: Tenant<Read> = router.open_as(Arc::new(principal), &request).await.unwrap();
        ends.push(
            tenant.topic("tasks").unwrap().subscribe(SubscriptionRequest::proven_by_application()).await.unwrap(),
        );
    }
    members.0.store(false, Ordering::SeqCst);
    for subscription in ends {
        assert_eq!(end_of(subscription).await, SubscriptionEnd::AccessEnded);
    }
}

/// A process that cannot read the catalog does not learn of a revocation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_catalog_a_subscription_ends_because_nobody_can_confirm_it() {
    let cluster = Cluster::start();
    let world = World::on_postgres(&cluster).await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let mut subscription = follow(&router, "acme", &world.token_for(id, Role::Reader).await).await.unwrap();
    cluster.freeze();
    let ended = next(&mut subscription).await;
    cluster.thaw();
    assert_eq!(ended, Err(SubscriptionEnd::Unconfirmed));
}

#[tokio::test]
async fn a_subscription_ends_with_its_router() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let mut subscription = follow(&router, "acme", &world.token_for(id, Role::Reader).await).await.unwrap();
    drop(router);
    assert_eq!(next(&mut subscription).await, Err(SubscriptionEnd::GoingAway));
}
