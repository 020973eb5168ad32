//! The suite, and what its functions need.

mod clocks;
mod domains;
mod external_accounts;
mod feed;
mod history;
mod job_queues;
mod leases;
mod nouns;
pub(crate) mod opening;
mod order;
mod plans;
mod steps;
mod tenants;
mod topics;
mod waking;
mod webhooks;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aws_lc_rs::digest;
use catalog::seal::{FleetKey, SecretSealer};
use catalog::servers::NewServer;
use catalog::tenants::NewTenant;
use catalog::{Catalog, FleetId, ServerId, TenantId, TenantName, WriteTx, servers};

use super::world::World;

/// A moment to start from.
pub(crate) const START: i64 = 1_790_000_000_000;

/// A catalog in a place of its own, with a clock moved by hand.
pub(crate) struct Fixture {
    pub(crate) catalog: Catalog,
    pub(crate) clock: Arc<AtomicI64>,
    pub(crate) world: World,
    key: FleetKey,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::in_world(World::new()).await
    }

    pub(crate) async fn in_world(world: World) -> Self {
        let clock = Arc::new(AtomicI64::new(START));
        let key = FleetKey::generate();
        let catalog = Catalog::create(&world.location(), copy(&key), reader(&clock)).await.unwrap();
        Self { catalog, clock, world, key }
    }

    /// The same catalog as another process has it: own connections, own caches.
    pub(crate) async fn other_process(&self) -> Catalog {
        Catalog::open(&self.world.location(), copy(&self.key), reader(&self.clock)).await.unwrap()
    }

    pub(crate) fn advance(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn key(&self) -> FleetKey {
        copy(&self.key)
    }
}

pub(crate) async fn open(world: &World, key: &FleetKey) -> catalog::Result<Catalog> {
    Catalog::open(&world.location(), copy(key), clock()).await
}

pub(crate) async fn create(world: &World, key: &FleetKey) -> catalog::Result<Catalog> {
    Catalog::create(&world.location(), copy(key), clock()).await
}

pub(crate) fn copy(key: &FleetKey) -> FleetKey {
    use secrecy::ExposeSecret as _;
    FleetKey::from_text(key.secret_text().expose_secret()).unwrap()
}

/// The SQL of an empty catalog at an older schema version, opened by `key`.
pub(crate) fn older_schema(key: &FleetKey, version: usize) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/catalog");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let mut sql = "create table _catalog_migrations (version bigint not null primary key, name text not null, \
                   checksum text not null, applied_at bigint not null);"
        .to_owned();
    for (number, file) in (1..=version).zip(files) {
        let text = std::fs::read_to_string(file).unwrap();
        let sum = digest::digest(&digest::SHA256, text.as_bytes());
        let sum: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        sql += &text;
        sql += &format!("insert into _catalog_migrations values ({number}, 'old', '{sum}', 1);");
    }
    let fleet = FleetId::generate().to_string();
    let check = SecretSealer::new(key).seal_value(("fleet", "key_check", &fleet), b"this key belongs to this catalog");
    sql + &format!("insert into fleet (one, id, created_at, key_check) values (1, '{fleet}', 1, '{check}');")
}

/// A clock that stands still.
pub(crate) fn clock() -> catalog::CatalogClock {
    Arc::new(|| START)
}

pub(crate) fn reader(clock: &Arc<AtomicI64>) -> catalog::CatalogClock {
    let clock = clock.clone();
    Arc::new(move || clock.load(Ordering::SeqCst))
}

pub(crate) async fn server(tx: &mut WriteTx, name: &str, base: &Path) -> ServerId {
    servers::insert_server(tx, NewServer::in_directory(name, base.to_str().unwrap())).await.unwrap().id
}

/// A server and tenants named `t0`, `t1`, …
pub(crate) async fn seed(catalog: &Catalog, count: usize) -> (ServerId, Vec<TenantId>) {
    let mut tx = catalog.write().await.unwrap();
    let server = server(&mut tx, "local", Path::new("/srv/tenants")).await;
    let new: Vec<NewTenant> = (0..count).map(|n| new_tenant(&format!("t{n}"), server)).collect();
    catalog::tenants::insert_many(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    (server, new.iter().map(|tenant| tenant.id).collect())
}

pub(crate) fn new_tenant(name: &str, server_id: ServerId) -> NewTenant {
    NewTenant {
        id: TenantId::generate(),
        name: TenantName::parse_slug(name).unwrap(),
        server_id,
        labels: BTreeMap::new(),
        plan: None,
    }
}
