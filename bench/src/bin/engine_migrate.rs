//! The engine's `migrate` alone: add a column and an index to many tenants of about 100 KB, against a bare rusqlite
//! loop over the same bytes with WAL and synchronous=FULL on as many threads. Both are durable when they end.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::{Path, PathBuf};

use anyhow::Result;
use fleet_bench::engine::{Server, Tenant, by_hand, on_threads, ten_files};
use fleet_bench::fleet::{Setup, arguments, median, ratio};
use tenant_engine::MigrationSet;
use tenant_engine::migration::MigrationFile;

fn main() -> Result<()> {
    let setup = arguments(&[("count", 10_000), ("rounds", 3), ("threads", 8)])?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&setup))
}

async fn run(setup: &Setup) -> Result<()> {
    let (count, threads) = (setup["count"], setup["threads"]);
    let server = Server::new(threads)?;
    let mut files = ten_files();
    let (tenants, created) = server.provision(&MigrationSet::from_files(&files)?, count).await?;
    println!("created {count} in {created:.2?}: {:.0}/s", count as f64 / created.as_secs_f64());
    let plain = tempfile::tempdir()?;
    let paths = copies(&tenants, plain.path())?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..setup["rounds"] {
        let sql = format!("alter table tasks add column x{round} text; create index ix{round} on tasks(x{round});");
        files.push(MigrationFile { name: format!("{:04}_x.sql", round + 11), sql: sql.clone() });
        let set = MigrationSet::from_files(&files)?;
        if round % 2 == 0 {
            ours.push(server.migrate(&tenants, &set).await?);
            theirs.push(on_threads(&paths, threads, |path| by_hand(path, &sql))?);
        } else {
            theirs.push(on_threads(&paths, threads, |path| by_hand(path, &sql))?);
            ours.push(server.migrate(&tenants, &set).await?);
        }
        println!("round {round}: engine {:.2?}, by hand {:.2?}", ours[round], theirs[round]);
    }
    let idle = server.migrate(&tenants, &MigrationSet::from_files(&files)?).await?;
    let rate = |seconds: f64| count as f64 / seconds;
    println!("\nadd column + create index on {count} tenants of ~100 KB, durable, {threads} threads, medians");
    println!("  engine         {:>8.0}/s", rate(median(&mut ours).as_secs_f64()));
    println!("  by hand        {:>8.0}/s", rate(median(&mut theirs).as_secs_f64()));
    println!("  ratio          {:>8.2}  (must reach 0.7)", ratio(&mut theirs, &mut ours));
    println!("  nothing to do  {:>8.0}/s  (every database opened)", rate(idle.as_secs_f64()));
    Ok(())
}

fn copies(tenants: &[Tenant], to: &Path) -> Result<Vec<PathBuf>> {
    let copy = |(n, tenant): (usize, &Tenant)| {
        let path = to.join(format!("{n}.db"));
        std::fs::copy(tenant.at.file_path(), &path)?;
        Ok(path)
    };
    tenants.iter().enumerate().map(copy).collect()
}
