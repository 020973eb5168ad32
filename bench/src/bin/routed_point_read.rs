//! Point reads of routed requests: token, name, membership, pool and statement through `Router::open` and
//! `Tenant::query`, against one sqlx `SqlitePool` per tenant with its defaults, which does none of the first four.
//!
//! `routed_point_read [--tasks 64] [--rounds 5] [--seconds 2]` compares; `routed_point_read --tenants 100000 --open 2000`
//! says what many tenants cost: memory, and time per request as the catalog grows.

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use catalog::db::CatalogLocation;
use catalog::seal::FleetKey;
use catalog::tenants::{NewTenant, TenantUpdate};
use catalog::tokens::TokenScope;
use catalog::{Catalog, Generation, ServerId, TenantId, TenantName, TenantState, servers, tenants, tokens};
use fleet_bench::fleet::arguments;
use fleet_bench::latency::Latencies;
use fleet_bench::side::Side;
use fleet_bench::tenants::{ROWS, make_one};
use secrecy::ExposeSecret as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tempfile::TempDir;
use tenant_engine::SqlValue;
use tenant_engine::sqlite::{SqliteEngine, SqliteOptions};
use tenant_router::{Read, RequestView, Role, Router};

const SQL: &str = "select id, title from item where id = ?1";

/// Rows of one catalog transaction while filling it.
const BATCH: usize = 2_000;

#[tokio::main]
async fn main() -> Result<()> {
    let setup = arguments(&[("tasks", 64), ("rounds", 5), ("seconds", 2), ("tenants", 0), ("open", 2_000)])?;
    if setup["tenants"] == 0 {
        compare(setup["tasks"], setup["rounds"], Duration::from_secs(setup["seconds"] as u64)).await
    } else {
        many(setup["tenants"], setup["open"].min(setup["tenants"]), setup["tasks"]).await
    }
}

async fn compare(tasks: usize, rounds: usize, length: Duration) -> Result<()> {
    let fleet = Arc::new(Fleet::new(tasks, tasks).await?);
    let mut theirs = Vec::new();
    for path in &fleet.files {
        theirs.push(SqlitePool::connect_with(SqliteConnectOptions::new().filename(path)).await?);
    }
    let theirs = Arc::new(theirs);
    let mut sides = [Side::new("Router::open"), Side::new("sqlx SqlitePool")];
    for round in 0..=rounds as u64 {
        let length = if round == 0 { Duration::from_millis(300) } else { length };
        let ours = Arc::clone(&fleet);
        let read_ours = move |task, id| {
            let ours = Arc::clone(&ours);
            async move { ours.read(task, id).await }
        };
        let one = sides[0].round(round, tasks as u64, length, read_ours).await?;
        let pools = Arc::clone(&theirs);
        let read_theirs = move |task: usize, id| read_theirs(pools[task].clone(), id);
        let two = sides[1].round(round, tasks as u64, length, read_theirs).await?;
        if round > 0 {
            println!("round {round}: {one:>9.0}/s  {two:>9.0}/s  ratio {:.2}", one / two);
        }
    }
    let [one, two] = &mut sides;
    let (one, two) = (one.report(), two.report());
    println!("{tasks} tasks, {tasks} tenants: ratio of the median rates {:.2}  (must reach 2.5)", one / two);
    Ok(())
}

async fn read_theirs(pool: SqlitePool, id: i64) -> Result<()> {
    let (found, _title): (i64, String) = sqlx::query_as(SQL).bind(id).fetch_one(&pool).await?;
    ensure!(found == id, "the wrong row came back");
    Ok(())
}

/// Opens `open` of `count` tenants, then reads from all of those in turn.
async fn many(count: usize, open: usize, tasks: usize) -> Result<()> {
    let fleet = Arc::new(Fleet::new(count, open).await?);
    let before = resident_bytes()?;
    let cold = in_turn(&fleet, open, 1, tasks).await?;
    let opened = resident_bytes()?;
    let warm = in_turn(&fleet, open, 10, tasks).await?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("{count} tenants in the catalog, {open} open, {tasks} tasks");
    println!("  first request of a tenant  {}", describe(cold));
    println!("  later requests             {}", describe(warm));
    println!("  resident memory            {:.0} MiB before, {:.0} MiB after", mib(before), mib(opened));
    println!("  an open tenant             {:.0} KiB", (mib(opened) - mib(before)) * 1024.0 / open as f64);
    Ok(())
}

fn describe((mut latencies, took): (Latencies, Duration)) -> String {
    let per_request = took / u32::try_from(latencies.count()).unwrap_or(u32::MAX);
    let (p50, p99) = (latencies.percentile(50.0), latencies.percentile(99.0));
    format!("{per_request:>8.1?} each, p50 {p50:>8.1?}, p99 {p99:>8.1?}")
}

async fn in_turn(fleet: &Arc<Fleet>, open: usize, rounds: usize, tasks: usize) -> Result<(Latencies, Duration)> {
    let begin = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let fleet = Arc::clone(fleet);
            tokio::spawn(async move {
                let mut latencies = Latencies::default();
                for step in 0..rounds {
                    for tenant in (task..open).step_by(tasks) {
                        let begin = Instant::now();
                        fleet.read(tenant, (step as i64 * 211) % ROWS + 1).await?;
                        latencies.record(begin.elapsed());
                    }
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    let mut all = Latencies::default();
    for task in running {
        all.merge(task.await.context("a task panicked")??);
    }
    Ok((all, begin.elapsed()))
}

fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the kernel tells VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// A catalog of tenants, of which the first ones have files and a token each.
struct Fleet {
    router: Router,
    /// Of each tenant with a file: path and token of its requests.
    requests: Vec<(String, String)>,
    files: Vec<std::path::PathBuf>,
    _dir: TempDir,
}

impl Fleet {
    async fn new(count: usize, with_files: usize) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let location = CatalogLocation::File(dir.path().join("catalog.db"));
        let catalog = Catalog::create(&location, FleetKey::generate(), Arc::new(now)).await?;
        let root = dir.path().join("tenants");
        let ids = fill(&catalog, &root, count).await?;
        let (mut requests, mut files) = (Vec::new(), Vec::new());
        let mut tx = catalog.write().await?;
        for (n, tenant) in ids.iter().take(with_files).enumerate() {
            files.push(make_one(&root, catalog.fleet_id(), *tenant, Generation::FIRST.next())?.path());
            let scope = TokenScope::Tenant { tenant: *tenant, role: Role::Reader };
            let (_, secret) = tokens::create_token(&mut tx, scope, None, None).await?;
            requests.push((format!("/t/tenant-{n}/item"), secret.expose_secret().to_owned()));
        }
        tx.commit().await?;
        let options = SqliteOptions::new(dir.path().join("scratch"));
        let engine = Arc::new(SqliteEngine::new(options)?);
        let router = Router::builder(catalog).engine(engine).pools_max(with_files as u64).build().await?;
        Ok(Self { router, requests, files, _dir: dir })
    }

    async fn read(&self, tenant: usize, id: i64) -> Result<()> {
        let (path, token) = &self.requests[tenant];
        let request = RequestView { credential: Some(token), path, ..RequestView::default() };
        let tenant = self.router.open::<Read>(&request).await?;
        let answer = tenant.query(SQL, [id]).await?;
        ensure!(answer.rows[0][0] == SqlValue::Integer(id), "the wrong row came back");
        Ok(())
    }
}

/// Active tenants `tenant-0`, `tenant-1` …
async fn fill(catalog: &Catalog, root: &Path, count: usize) -> Result<Vec<TenantId>> {
    let mut tx = catalog.write().await?;
    let base = root.to_str().context("a temporary path is text")?;
    let server = servers::insert_server(&mut tx, servers::NewServer::in_directory("local", base)).await?.id;
    tx.commit().await?;
    let mut ids = Vec::new();
    for first in (0..count).step_by(BATCH) {
        let batch = (first..count.min(first + BATCH)).map(|n| new_tenant(n, server)).collect::<Result<Vec<_>>>()?;
        let mut tx = catalog.write().await?;
        tenants::insert_many(&mut tx, &batch).await?;
        let flips: Vec<_> = batch.iter().map(|new| active(new.id)).collect();
        ensure!(tenants::update_many(&mut tx, &flips).await?.is_empty(), "a new tenant was flipped by somebody else");
        tx.commit().await?;
        ids.extend(batch.iter().map(|new| new.id));
    }
    Ok(ids)
}

fn new_tenant(n: usize, server_id: ServerId) -> Result<NewTenant> {
    Ok(NewTenant {
        id: TenantId::generate(),
        name: TenantName::parse_slug(&format!("tenant-{n}"))?,
        server_id,
        labels: Default::default(),
        plan: None,
    })
}

fn active(tenant: TenantId) -> TenantUpdate {
    let placement = tenant_engine::Placement::new_sqlite(Path::new("/"), tenant, Generation::FIRST.next(), 1);
    TenantUpdate {
        state: Some(TenantState::Active),
        placement: Some(Some(placement.catalog_reference().to_owned())),
        ..TenantUpdate::for_generation(tenant, Generation::FIRST)
    }
}
