//! What tenants that a migration does not touch wait while it runs: routed point reads of 64 quiet tenants, alone and
//! beside the migration of the others, which is one long stream of changes in the catalog.
//!
//! `rollout_neighbours [--tenants 10000] [--quiet 64] [--seconds 5]`

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use catalog::tokens::{self, TokenScope};
use catalog::{TenantName, names};
use control_plane::App;
use control_plane::operations::{OperationParams, migrate};
use control_plane::plan::TenantSelection;
use control_plane::runner::submit::Submission;
use fleet_bench::fleet::{Fleet, arguments};
use fleet_bench::latency::Latencies;
use secrecy::ExposeSecret as _;
use tenant_engine::SqlValue;
use tenant_engine::migration::MigrationFile;
use tenant_router::{Read, RequestView, Role};

/// Between two reads of one tenant: 64 tenants ask 3,200 times a second, and leave room for the migration.
const PAUSE: Duration = Duration::from_millis(20);

fn main() -> Result<()> {
    let setup = arguments(&[("tenants", 10_000), ("quiet", 64), ("seconds", 5)])?;
    let run = run(setup["tenants"], setup["quiet"], Duration::from_secs(setup["seconds"] as u64));
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run)
}

async fn run(tenants: usize, quiet: usize, length: Duration) -> Result<()> {
    let fleet = Fleet::new().await?;
    fleet.migrate(vec![base()]).await?;
    fleet.create(0, tenants + quiet).await?;
    let requests = Arc::new(requests(fleet.app(), quiet).await?);
    let stop = Arc::new(AtomicBool::new(false));
    let alone = reads(fleet.app(), &requests, &stop);
    tokio::time::sleep(length).await;
    stop.store(true, Ordering::Release);
    let alone = told("alone", alone.await??);
    stop.store(false, Ordering::Release);
    let beside = reads(fleet.app(), &requests, &stop);
    let begun = Instant::now();
    fleet.succeed(migration(quiet, tenants)).await?;
    let took = begun.elapsed();
    stop.store(true, Ordering::Release);
    let beside = told("beside the migration", beside.await??);
    println!("{tenants} tenants migrated in {took:.1?}; p99 beside / alone: {:.2}", beside / alone);
    fleet.close().await;
    Ok(())
}

/// One more column for every tenant after the quiet ones.
fn migration(quiet: usize, tenants: usize) -> Submission {
    let change = MigrationFile {
        name: "0002_done.sql".to_owned(),
        sql: "alter table item add column done integer;\n".to_owned(),
    };
    let params = migrate::MigrateParams::to_head(migrate::ReleaseSource::Files(vec![base(), change]));
    let names = (quiet..quiet + tenants).map(|n| format!("tenant-{n:06}")).collect();
    Submission::new(OperationParams::Migrate(params), TenantSelection { names, ..TenantSelection::default() })
}

fn base() -> MigrationFile {
    let sql = "create table item (id integer primary key, title text not null);\n\
               insert into item values (7, 'seven');\n";
    MigrationFile { name: "0001_item.sql".to_owned(), sql: sql.to_owned() }
}

/// Path and token of each quiet tenant.
async fn requests(app: &App, quiet: usize) -> Result<Vec<(String, String)>> {
    let mut tx = app.catalog.write().await?;
    let mut requests = Vec::new();
    for n in 0..quiet {
        let name = format!("tenant-{n:06}");
        let found = names::taken_names(&mut tx, &[TenantName::parse_slug(&name)?]).await?;
        let (_, tenant) = found.first().context("it was created")?;
        let scope = TokenScope::Tenant { tenant: *tenant, role: Role::Reader };
        let (_, secret) = tokens::create_token(&mut tx, scope, None, None).await?;
        requests.push((format!("/t/{name}/item"), secret.expose_secret().to_owned()));
    }
    tx.commit().await?;
    Ok(requests)
}

/// Reads of every quiet tenant until told to stop.
fn reads(
    app: &Arc<App>,
    requests: &Arc<Vec<(String, String)>>,
    stop: &Arc<AtomicBool>,
) -> tokio::task::JoinHandle<Result<Latencies>> {
    let (app, requests, stop) = (Arc::clone(app), Arc::clone(requests), Arc::clone(stop));
    tokio::spawn(async move {
        let tasks: Vec<_> = (0..requests.len())
            .map(|n| {
                let (app, requests, stop) = (Arc::clone(&app), Arc::clone(&requests), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut latencies = Latencies::default();
                    while !stop.load(Ordering::Acquire) {
                        let begun = Instant::now();
                        read(&app, &requests[n]).await?;
                        latencies.record(begun.elapsed());
                        tokio::time::sleep(PAUSE).await;
                    }
                    anyhow::Ok(latencies)
                })
            })
            .collect();
        let mut all = Latencies::default();
        for task in tasks {
            all.merge(task.await??);
        }
        Ok(all)
    })
}

async fn read(app: &App, (path, token): &(String, String)) -> Result<()> {
    let request = RequestView { credential: Some(token), path, ..RequestView::default() };
    let answer =
        app.router.open::<Read>(&request).await?.query("select id, title from item where id = ?1", [7]).await?;
    ensure!(answer.rows[0][0] == SqlValue::Integer(7), "the wrong row came back");
    Ok(())
}

/// Prints one side; returns its 99th percentile, seconds.
fn told(side: &str, mut latencies: Latencies) -> f64 {
    let (p50, p99) = (latencies.percentile(50.0), latencies.percentile(99.0));
    println!("{side:<22} p50 {p50:>8.1?}  p99 {p99:>8.1?}  ({} reads)", latencies.count());
    p99.as_secs_f64()
}
