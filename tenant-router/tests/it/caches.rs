//! What is remembered: bounded, asked for once, dropped when it changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use catalog::tokens::TokenScope;
use catalog::{TenantId, members, tokens};
use tenant_engine::{
    DatabaseFingerprint, DatabaseServer, DatabaseTemplate, Engine, EngineKind, ExpectedIdentity, Identity, Inspection,
    InspectionDepth, ListedObject, MigrationOutcome, MigrationSet, Placement, Pool, RestoreOutcome, ServerListing,
    ServerSurvey, Snapshot, SnapshotImage,
};
use tenant_router::{Authenticate, ErrorKind, Memberships, Principal, Read, RequestView, Result, Role, Router};
use tokio::task::JoinSet;

use crate::world::{World, canary, note, open};

/// What another process does is noticed within this.
const NOTICED: Duration = Duration::from_secs(1);

/// The real engine, counting how often it opens a database.
#[derive(Debug)]
struct Counting {
    engine: Arc<dyn Engine>,
    opened: AtomicUsize,
}

impl Counting {
    fn over(world: &World) -> Arc<Self> {
        Arc::new(Self { engine: world.engine.clone(), opened: AtomicUsize::new(0) })
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Engine for Counting {
    fn kind(&self) -> EngineKind {
        self.engine.kind()
    }
    async fn open_pool(&self, at: &Placement, expected: &ExpectedIdentity) -> tenant_engine::Result<Pool> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.engine.open_pool(at, expected).await
    }
    async fn survey_server(&self, server: &DatabaseServer) -> tenant_engine::Result<ServerSurvey> {
        self.engine.survey_server(server).await
    }
    async fn prepare_template(
        &self,
        on: &DatabaseServer,
        set: &MigrationSet,
    ) -> tenant_engine::Result<Arc<DatabaseTemplate>> {
        self.engine.prepare_template(on, set).await
    }
    async fn provision_database(
        &self,
        at: &Placement,
        from: &DatabaseTemplate,
        identity: &Identity,
    ) -> tenant_engine::Result<()> {
        self.engine.provision_database(at, from, identity).await
    }
    async fn migrate_database(
        &self,
        at: &Placement,
        expected: &ExpectedIdentity,
        set: &MigrationSet,
        target: Option<i64>,
    ) -> tenant_engine::Result<MigrationOutcome> {
        self.engine.migrate_database(at, expected, set, target).await
    }
    async fn take_snapshot(&self, at: &Placement, expected: &ExpectedIdentity) -> tenant_engine::Result<Snapshot> {
        self.engine.take_snapshot(at, expected).await
    }
    async fn restore_database(
        &self,
        at: &Placement,
        image: SnapshotImage,
        source: TenantId,
        identity: &Identity,
    ) -> tenant_engine::Result<RestoreOutcome> {
        self.engine.restore_database(at, image, source, identity).await
    }
    async fn stamp_identity(
        &self,
        at: &Placement,
        expected: &ExpectedIdentity,
        identity: &Identity,
    ) -> tenant_engine::Result<()> {
        self.engine.stamp_identity(at, expected, identity).await
    }
    async fn freeze_database(
        &self,
        at: &Placement,
        expected: &ExpectedIdentity,
        identity: &Identity,
    ) -> tenant_engine::Result<()> {
        self.engine.freeze_database(at, expected, identity).await
    }
    async fn drop_database(&self, at: &Placement, expected: Option<&ExpectedIdentity>) -> tenant_engine::Result<()> {
        self.engine.drop_database(at, expected).await
    }
    async fn list_databases(&self, on: &DatabaseServer, of: Option<TenantId>) -> tenant_engine::Result<ServerListing> {
        self.engine.list_databases(on, of).await
    }
    async fn quarantine_object(
        &self,
        on: &DatabaseServer,
        found: &ListedObject,
        expected: Option<&ExpectedIdentity>,
        label: &str,
    ) -> tenant_engine::Result<String> {
        self.engine.quarantine_object(on, found, expected, label).await
    }
    async fn inspect_database(
        &self,
        at: &Placement,
        expected: Option<&ExpectedIdentity>,
        depth: InspectionDepth,
    ) -> tenant_engine::Result<Inspection> {
        self.engine.inspect_database(at, expected, depth).await
    }
    async fn compute_fingerprint(
        &self,
        at: &Placement,
        expected: &ExpectedIdentity,
    ) -> tenant_engine::Result<DatabaseFingerprint> {
        self.engine.compute_fingerprint(at, expected).await
    }
}

async fn counted(world: &World, pools_max: u64) -> (Arc<Counting>, Router) {
    let engine = Counting::over(world);
    let builder = Router::builder(world.catalog.clone()).engine(engine.clone()).pools_max(pools_max);
    (engine, builder.build().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_requests_at_once_open_a_database_once() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let token = world.token_for(id, Role::Reader).await;
    let (engine, router) = counted(&world, 10).await;
    let mut requests = JoinSet::new();
    for _ in 0..1_000 {
        let (router, token) = (router.clone(), token.clone());
        requests.spawn(async move { open::<Read>(&router, "acme", &token).await.map(|tenant| tenant.id()) });
    }
    while let Some(done) = requests.join_next().await {
        assert_eq!(done.unwrap().unwrap(), id);
    }
    assert_eq!(engine.opened(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn more_tenants_than_pools_are_served_right_under_load() {
    let world = World::new().await;
    let names: Vec<String> = (0..12).map(|n| format!("tenant-{n}")).collect();
    for name in &names {
        world.tenant(name).await;
    }
    let token = world.token(TokenScope::Service { role: Role::Reader }).await;
    let (engine, router) = counted(&world, 3).await;
    let mut requests = JoinSet::new();
    for task in 0..8 {
        let (router, token, names) = (router.clone(), token.clone(), names.clone());
        requests.spawn(async move {
            for step in 0..60 {
                let name = &names[(task * 7 + step * 5) % names.len()];
                let tenant = open::<Read>(&router, name, &token).await.unwrap();
                assert_eq!(note(&tenant, 2).await.unwrap(), canary(name, 2));
            }
        });
    }
    while let Some(done) = requests.join_next().await {
        done.unwrap();
    }
    assert!(engine.opened() > names.len(), "three pools for twelve tenants must have been opened again");
    router.shutdown().await;
}

#[tokio::test]
async fn whoever_holds_a_pool_shares_it_even_after_its_eviction() {
    let world = World::new().await;
    world.tenants(&["acme", "globex", "initech", "umbrella"]).await;
    let token = world.token(TokenScope::Service { role: Role::Reader }).await;
    let (engine, router) = counted(&world, 1).await;
    let held = open::<Read>(&router, "acme", &token).await.unwrap();
    for _ in 0..5 {
        for name in ["globex", "initech", "umbrella"] {
            note(&open::<Read>(&router, name, &token).await.unwrap(), 1).await.unwrap();
        }
    }
    let before = engine.opened();
    let again = open::<Read>(&router, "acme", &token).await.unwrap();
    assert_eq!(engine.opened(), before, "acme's pool was still held");
    assert_eq!(note(&again, 1).await.unwrap(), note(&held, 1).await.unwrap());
}

#[tokio::test]
async fn shutting_down_waits_for_the_last_user_and_refuses_new_ones() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let token = world.token_for(id, Role::Reader).await;
    let router = world.router().await;
    let tenant = open::<Read>(&router, "acme", &token).await.unwrap();
    let down = tokio::spawn({
        let router = router.clone();
        async move { router.shutdown().await }
    });
    assert_eq!(note(&tenant, 1).await.unwrap(), canary("acme", 1));
    drop(tenant);
    down.await.unwrap();
    assert_eq!(open::<Read>(&router, "acme", &token).await.unwrap_err().kind(), ErrorKind::ShuttingDown);
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_once_in_this_process() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    for scope in [TokenScope::Tenant { tenant: id, role: Role::Reader }, TokenScope::Service { role: Role::Reader }] {
        let token = world.token(scope).await;
        open::<Read>(&router, "acme", &token).await.unwrap();
        revoke(&world, &token).await;
        assert_eq!(open::<Read>(&router, "acme", &token).await.unwrap_err().kind(), ErrorKind::Unauthenticated);
    }
}

#[tokio::test]
async fn another_process_notices_within_a_second() {
    let world = World::new().await;
    let ids = world.tenants(&["acme", "globex"]).await;
    let other = Router::builder(world.other_catalog().await).engine(world.engine.clone()).build().await.unwrap();
    let token = world.token_for(ids[0], Role::Reader).await;
    let ann = world.token(TokenScope::Member { principal: "ann".to_owned() }).await;
    open::<Read>(&other, "acme", &token).await.unwrap();
    assert_eq!(open::<Read>(&other, "globex", &ann).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(open::<Read>(&other, "fresh", &ann).await.unwrap_err().kind(), ErrorKind::NotFound);

    let mut tx = world.catalog.write().await.unwrap();
    members::set_member(&mut tx, ids[1], "ann", Role::Reader).await.unwrap();
    tx.commit().await.unwrap();
    revoke(&world, &token).await;
    noticed(|| async {
        open::<Read>(&other, "acme", &token).await.is_err_and(|e| e.kind() == ErrorKind::Unauthenticated)
    })
    .await;
    noticed(|| async { open::<Read>(&other, "globex", &ann).await.is_ok() }).await;

    let fresh = world.tenant("fresh").await;
    let service = world.token(TokenScope::Service { role: Role::Reader }).await;
    noticed(|| async { open::<Read>(&other, "fresh", &service).await.is_ok_and(|tenant| tenant.id() == fresh) }).await;
}

/// Asks until it is so; it must be so within [`NOTICED`].
async fn noticed<F: Future<Output = bool>>(is_so: impl Fn() -> F) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < NOTICED, "not noticed after {:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn revoke(world: &World, secret: &str) {
    let mut tx = world.catalog.write().await.unwrap();
    let token = tokens::by_secret(&mut tx, secret).await.unwrap().unwrap();
    tokens::revoke_token(&mut tx, token.id).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn without_its_catalog_a_router_says_so_and_serves_what_it_knows() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let (known, unknown) = (world.token_for(id, Role::Reader).await, world.token_for(id, Role::Reader).await);
    let tenant = open::<Read>(&router, "acme", &known).await.unwrap();
    world.catalog.close().await;
    let refused = open::<Read>(&router, "acme", &unknown).await.unwrap_err();
    assert_eq!((refused.kind(), refused.status()), (ErrorKind::CatalogUnavailable, 503));
    assert!(refused.retry_after().is_some());
    // The database itself says whether it is still the right one.
    assert_eq!(note(&tenant, 1).await.unwrap(), canary("acme", 1));
}

#[tokio::test]
async fn a_change_of_ours_before_the_catalog_went_away_stops_only_whom_it_concerns() {
    let world = World::new().await;
    let ids = world.tenants(&["acme", "globex"]).await;
    let router = world.router().await;
    let [acme, globex] = [world.token_for(ids[0], Role::Reader).await, world.token_for(ids[1], Role::Reader).await];
    for (name, token) in [("acme", &acme), ("globex", &globex)] {
        open::<Read>(&router, name, token).await.unwrap();
    }
    world.update_tenant(ids[0], |update| update.state = Some(catalog::TenantState::Suspended)).await;
    world.catalog.close().await;
    let known = open::<Read>(&router, "globex", &globex).await.unwrap();
    assert_eq!(note(&known, 1).await.unwrap(), canary("globex", 1));
    let changed = open::<Read>(&router, "acme", &acme).await.unwrap_err();
    assert_eq!(changed.kind(), ErrorKind::CatalogUnavailable, "what was known of it before must not count");
}

/// An application with its own sessions and its own members.
struct Application {
    asked: AtomicUsize,
    ends_at: i64,
}

#[async_trait]
impl Authenticate for Application {
    async fn authenticate(&self, credential: &str) -> Result<Option<Principal>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(credential.strip_prefix("session-of-").map(|who| Principal::member(who).expiring_at(self.ends_at)))
    }
}

#[async_trait]
impl Memberships for Application {
    async fn role(&self, _tenant: TenantId, principal: &str) -> Result<Option<Role>> {
        Ok((principal == "ann").then_some(Role::Reader))
    }
}

async fn own_login(world: &World, ends_at: i64) -> (Arc<Application>, Router) {
    let application = Arc::new(Application { asked: AtomicUsize::new(0), ends_at });
    let builder = world.builder().authenticate(application.clone()).memberships(application.clone());
    (application, builder.build().await.unwrap())
}

#[tokio::test]
async fn an_applications_own_login_and_members_decide() {
    let world = World::new().await;
    world.tenant("acme").await;
    let (application, router) = own_login(&world, i64::MAX).await;
    for _ in 0..5 {
        let tenant = open::<Read>(&router, "acme", "session-of-ann").await.unwrap();
        assert_eq!(note(&tenant, 1).await.unwrap(), canary("acme", 1));
    }
    assert_eq!(application.asked.load(Ordering::SeqCst), 1, "the answer is remembered");
    assert_eq!(open::<Read>(&router, "acme", "session-of-eve").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(open::<Read>(&router, "acme", "guess").await.unwrap_err().kind(), ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn what_is_remembered_expires_with_its_credential() {
    let world = World::new().await;
    world.tenant("acme").await;
    let ends_at = world.catalog.now() + 300;
    let (_, router) = own_login(&world, ends_at).await;
    let request = RequestView { credential: Some("session-of-ann"), path: "/t/acme", ..RequestView::default() };
    router.open::<Read>(&request).await.unwrap();
    while world.catalog.now() < ends_at {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(router.open::<Read>(&request).await.unwrap_err().kind(), ErrorKind::Unauthenticated);
}
