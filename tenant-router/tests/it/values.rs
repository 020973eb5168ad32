//! The cache of an application's own values: per tenant, never older than a change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use catalog::tenants::ReachedSchema;
use catalog::tokens::TokenScope;
use catalog::{TenantId, TenantState};
use tenant_router::{CacheNamespace, Error, ErrorKind, PublicCache, Read, Role, Router, Tenant};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::world::{World, canary, note, open, slug};

const FIRST_NOTE: CacheNamespace<String> = CacheNamespace::new("first-note", Duration::from_secs(3_600));
/// The name of the other one, with another type.
const LENGTH: CacheNamespace<usize> = CacheNamespace::new("first-note", Duration::from_secs(3_600));
const SHORT: CacheNamespace<u64> = CacheNamespace::new("short", Duration::from_millis(20));

async fn first_note(tenant: &Tenant<Read>) -> String {
    let cached = tenant.cache(&FIRST_NOTE).get_or_load(&["1"], || note(tenant, 1)).await.unwrap();
    String::clone(&cached)
}

/// Two processes with one catalog.
struct TwoProcesses {
    world: World,
    acme: TenantId,
    routers: [Router; 2],
    token: String,
}

impl TwoProcesses {
    async fn start() -> Self {
        let world = World::new().await;
        let acme = world.tenants(&["acme", "globex"]).await[0];
        let token = world.token(TokenScope::Service { role: Role::Manager }).await;
        let other = Router::builder(world.other_catalog().await).engine(world.engine.clone());
        let routers = [world.router().await, other.build().await.unwrap()];
        Self { world, acme, routers, token }
    }

    async fn open(&self, process: usize, name: &str) -> Tenant<Read> {
        open(&self.routers[process], name, &self.token).await.unwrap()
    }

    /// Puts a value that the database does not have into both caches, and checks that they answer it.
    async fn plant(&self, name: &str) {
        for process in [0, 1] {
            let tenant = self.open(process, name).await;
            tenant.cache(&FIRST_NOTE).forget(&["1"]);
            let planted = tenant.cache(&FIRST_NOTE).get_or_load(&["1"], async || Ok::<_, Error>("planted".to_owned()));
            assert_eq!(*planted.await.unwrap(), "planted");
            assert_eq!(first_note(&tenant).await, "planted");
        }
    }

    async fn values(&self, name: &str) -> [String; 2] {
        self.routers[1].catch_up().await.unwrap();
        [first_note(&self.open(0, name).await).await, first_note(&self.open(1, name).await).await]
    }
}

/// Records a migration, which leaves the generation.
async fn migrate(world: &World, tenant: TenantId) {
    let mut tx = world.catalog.write().await.unwrap();
    let reached = ReachedSchema { tenant, version: Some(7), release: None, ledger: None };
    catalog::tenants::set_schema_many(&mut tx, &[reached]).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn the_same_key_of_two_tenants_has_two_values() {
    let fleet = TwoProcesses::start().await;
    let (acme, globex) = (fleet.open(0, "acme").await, fleet.open(0, "globex").await);
    for _ in 0..2 {
        assert_eq!(first_note(&acme).await, canary("acme", 1));
        assert_eq!(first_note(&globex).await, canary("globex", 1));
    }
    assert_eq!(acme.cache(&LENGTH).get(&["1"]).await, None, "another type is another value");
    // The parts are not joined.
    let planted = acme.cache(&FIRST_NOTE).get_or_load(&["a", "bc"], async || Ok::<_, Error>("a+bc".to_owned())).await;
    assert_eq!(*planted.unwrap(), "a+bc");
    for other in [&["ab", "c"][..], &["abc"], &["a", "bc", ""], &["a,2:bc"]] {
        assert_eq!(acme.cache(&FIRST_NOTE).get(other).await, None, "{other:?}");
    }
    acme.clear_cache();
    assert_eq!(acme.cache(&FIRST_NOTE).get(&["a", "bc"]).await, None);
    assert!(globex.cache(&FIRST_NOTE).get(&["1"]).await.is_some(), "the other tenant's values stay");
}

#[tokio::test]
async fn every_change_of_a_tenant_empties_the_cache_in_every_process() {
    let fleet = TwoProcesses::start().await;
    let (world, acme) = (&fleet.world, fleet.acme);
    fleet.plant("globex").await;

    fleet.plant("acme").await;
    world.fill(acme, "restored").await;
    assert_eq!(fleet.values("acme").await, ["restored, note 1"; 2], "after a restore");

    fleet.plant("acme").await;
    migrate(world, acme).await;
    assert_eq!(fleet.open(0, "acme").await.record().schema_version, Some(7));
    assert_eq!(fleet.values("acme").await, ["restored, note 1"; 2], "after a migration");

    fleet.plant("acme").await;
    for state in [TenantState::Suspended, TenantState::Active] {
        world.update_tenant(acme, |update| update.state = Some(state)).await;
    }
    assert_eq!(fleet.values("acme").await, ["restored, note 1"; 2], "after a suspension");

    fleet.plant("acme").await;
    let mut tx = world.catalog.write().await.unwrap();
    catalog::tenants::rename_tenant(&mut tx, acme, &slug("acme-2")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(fleet.values("acme-2").await, ["restored, note 1"; 2], "after a rename");

    assert_eq!(fleet.values("globex").await, ["planted"; 2], "nothing has changed globex");
}

/// The key for an external cache is another one after a restore and a migration.
#[tokio::test]
async fn the_key_for_other_caches_names_generation_and_version() {
    let fleet = TwoProcesses::start().await;
    let key = async || fleet.open(0, "acme").await.cache_key("counts", &["open"]);
    let first = key().await;
    assert_eq!(first, key().await);
    assert!(
        first.as_str().contains(&fleet.acme.to_string()) && first.as_str().ends_with("6:counts,4:open,"),
        "{first}"
    );
    migrate(&fleet.world, fleet.acme).await;
    let migrated = key().await;
    fleet.world.fill(fleet.acme, "restored").await;
    let restored = key().await;
    assert!(first != migrated && migrated != restored && first != restored);
    assert_ne!(fleet.open(0, "globex").await.cache_key("counts", &["open"]), restored);
}

#[tokio::test]
async fn one_load_serves_all_who_wait_and_an_error_is_not_kept() {
    let fleet = TwoProcesses::start().await;
    let (acme, loads) = (fleet.open(0, "acme").await, AtomicUsize::new(0));
    let load = async || {
        loads.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        Ok::<_, Error>("loaded".to_owned())
    };
    let cache = acme.cache(&FIRST_NOTE);
    let (one, two, three) =
        tokio::join!(cache.get_or_load(&["x"], load), cache.get_or_load(&["x"], load), cache.get_or_load(&["x"], load));
    assert!([one, two, three].into_iter().all(|value| *value.unwrap() == "loaded"));
    assert_eq!(loads.load(Ordering::SeqCst), 1);

    let fail = async || {
        tokio::task::yield_now().await;
        Err::<String, _>(Error::from(ErrorKind::Forbidden))
    };
    let (failed, loaded) = tokio::join!(cache.get_or_load(&["y"], fail), cache.get_or_load(&["y"], load));
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Forbidden);
    assert_eq!(*loaded.unwrap(), "loaded", "the failure of another caller is not this caller's");
    // A load that was dropped in the middle leaves nothing behind.
    let endless = Notify::new();
    let dropped = cache.get_or_load(&["z"], async || {
        endless.notified().await;
        Ok::<_, Error>("never".to_owned())
    });
    assert!(tokio::time::timeout(Duration::from_millis(20), dropped).await.is_err());
    assert_eq!(*cache.get_or_load(&["z"], load).await.unwrap(), "loaded");
}

/// Writers raise a number and forget it; no reader gets a number from before a finished call of `forget`.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_gets_a_value_from_before_it_was_forgotten() {
    let fleet = TwoProcesses::start().await;
    let acme = Arc::new(fleet.open(0, "acme").await);
    let (stored, forgotten) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let (acme, stored, forgotten) = (Arc::clone(&acme), Arc::clone(&stored), Arc::clone(&forgotten));
        tasks.spawn(async move {
            const NUMBER: CacheNamespace<u64> = CacheNamespace::new("number", Duration::from_secs(3_600));
            for _ in 0..2_000 {
                if task < 2 {
                    let written = stored.fetch_add(1, Ordering::SeqCst) + 1;
                    acme.cache(&NUMBER).forget(&[]);
                    forgotten.fetch_max(written, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    continue;
                }
                let least = forgotten.load(Ordering::SeqCst);
                let load = async || {
                    let read = stored.load(Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    Ok::<_, Error>(read)
                };
                let number = *acme.cache(&NUMBER).get_or_load(&[], load).await.unwrap();
                assert!(number >= least, "{number} is from before the last call of forget, {least}");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_value_ends_with_its_age() {
    let fleet = TwoProcesses::start().await;
    let (acme, loads) = (fleet.open(0, "acme").await, AtomicU64::new(0));
    let load = async || Ok::<_, Error>(loads.fetch_add(1, Ordering::SeqCst));
    assert_eq!(*acme.cache(&SHORT).get_or_load(&[], load).await.unwrap(), 0);
    while acme.cache(&SHORT).get(&[]).await.is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(*acme.cache(&SHORT).get_or_load(&[], load).await.unwrap(), 1);
}

#[tokio::test]
async fn public_values_have_a_cache_of_their_own() {
    let rates = PublicCache::new(10, Duration::from_secs(3_600));
    let load = |rate: f64| async move { Ok::<_, Error>(rate) };
    assert_eq!(*rates.get_or_load("EUR", || load(1.1)).await.unwrap(), 1.1);
    assert_eq!(*rates.get_or_load("EUR", || load(2.2)).await.unwrap(), 1.1);
    rates.clear();
    assert_eq!(*rates.get_or_load("EUR", || load(2.2)).await.unwrap(), 2.2);
}
