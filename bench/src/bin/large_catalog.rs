//! What a large catalog costs: processor time of an idle `serve`, and a dry run of all tenants beside it.
//!
//! The history is written into the catalog's file directly, and no tenant has a database: neither an idle server nor a
//! plan looks into one. `FLEETCTL` names the program, `FLEETCTL_BEFORE` one to compare with:
//! `FLEETCTL=target/release/fleetctl cargo run --release -p fleet-bench --bin large_catalog -- --tenants 100000 --operations 10`
#![expect(clippy::print_stdout, reason = "the figures are the output")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use catalog::{OperationId, TenantId};
use fleet_bench::fleet::{Setup, arguments, median};
use rusqlite::{Connection, params};

/// An hour, in milliseconds: the distance of two operations.
const HOUR_MS: i64 = 3_600_000;
/// A server that is not ready by then will not be.
const READY_MAX: Duration = Duration::from_secs(120);

/// What one program costs.
struct Costs {
    /// Processor time while nothing is asked.
    idle: Duration,
    dry_run: Duration,
    /// The longest wait of another writer of the catalog during the dry runs.
    writer_wait: Duration,
    /// Memory of the server before the dry runs, and its largest after them, in MiB.
    memory: (u64, u64),
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is a program, and this is its configuration")]
fn program(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

fn main() -> Result<()> {
    let setup = arguments(&[("tenants", 100_000), ("operations", 10), ("idle-seconds", 40), ("rounds", 3)])?;
    let now = program("FLEETCTL").unwrap_or_else(|| PathBuf::from("target/release/fleetctl"));
    let now = measure(&now, &setup)?;
    report("now", &now, &setup);
    if let Some(before) = program("FLEETCTL_BEFORE") {
        let before = measure(&before, &setup)?;
        report("before", &before, &setup);
        let times = |old: Duration, new: Duration| old.as_secs_f64() / new.as_secs_f64();
        println!(
            "before / now: idle {:.1}, dry run {:.1}, wait of a writer {:.1}, memory of dry runs {} MiB to {} MiB",
            times(before.idle, now.idle),
            times(before.dry_run, now.dry_run),
            times(before.writer_wait, now.writer_wait),
            before.memory.1.saturating_sub(before.memory.0),
            now.memory.1.saturating_sub(now.memory.0),
        );
    }
    Ok(())
}

fn report(name: &str, costs: &Costs, setup: &Setup) {
    println!(
        "{name:<7} {} tenants x {} operations: idle {:.2} s in {} s; dry run {:.2} s (median of {}), longest wait of a \
         writer {:.0} ms, memory {} MiB, largest {} MiB",
        setup["tenants"],
        setup["operations"],
        costs.idle.as_secs_f64(),
        setup["idle-seconds"],
        costs.dry_run.as_secs_f64(),
        setup["rounds"],
        costs.writer_wait.as_secs_f64() * 1e3,
        costs.memory.0,
        costs.memory.1,
    );
}

fn measure(program: &Path, setup: &Setup) -> Result<Costs> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    ensure!(fleetctl(program, &data).arg("init").output()?.status.success(), "{} init failed", program.display());
    fill(&data.join("catalog.db"), setup["tenants"], setup["operations"])?;
    let mut server = Server::start(program, &data)?;
    // The first rounds of the periodic tasks are not what an idle server does for the rest of its life.
    std::thread::sleep(Duration::from_secs(10));
    let before = server.processor_time()?;
    std::thread::sleep(Duration::from_secs(setup["idle-seconds"] as u64));
    let idle = server.processor_time()? - before;
    let memory_before = server.memory("VmRSS")?;
    let writer = Writer::start(&data.join("catalog.db"))?;
    let mut times = Vec::new();
    for _ in 0..setup["rounds"] {
        let began = Instant::now();
        let planned = fleetctl(program, &data).args(["backup", "run", "--all", "--dry-run", "-o", "json"]).output()?;
        times.push(began.elapsed());
        let said = String::from_utf8_lossy(&planned.stdout);
        ensure!(said.contains(&setup["tenants"].to_string()), "no plan: {said} {:?}", planned.stderr);
    }
    let writer_wait = writer.stop()?;
    let memory = (memory_before, server.memory("VmHWM")?);
    server.stop()?;
    Ok(Costs { idle, dry_run: median(&mut times), writer_wait, memory })
}

fn fleetctl(program: &Path, data: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--data-dir").arg(data).env("FLEET_ADMIN_LISTEN", "127.0.0.1:0").env("FLEET_LISTEN", "127.0.0.1:0");
    command
}

/// Every tenant is active, and has one step of every operation that ended.
fn fill(file: &Path, tenants: usize, operations: usize) -> Result<()> {
    let mut catalog = Connection::open(file)?;
    let server: String = catalog.query_row("select id from servers", [], |row| row.get(0))?;
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())?;
    let tx = catalog.transaction()?;
    let ids: Vec<String> = (0..tenants).map(|_| TenantId::generate().to_string()).collect();
    {
        let mut tenant = tx.prepare(
            "insert into tenants (id, name, state, server_id, placement, generation, placement_epoch, protected, \
             created_at, updated_at) values (?1, ?2, 'active', ?3, ?4, 2, 1, 0, ?5, ?5)",
        )?;
        let mut name =
            tx.prepare("insert into names (name, tenant_id, kind, created_at) values (?1, ?2, 'slug', ?3)")?;
        for (number, id) in ids.iter().enumerate() {
            let slug = format!("tenant-{number:06}");
            tenant.execute(params![id, slug, server, format!("{id}.1.db"), now])?;
            name.execute(params![slug, id, now])?;
        }
        let mut operation = tx.prepare(
            "insert into operations (id, kind, state, params, steps_total, steps_skipped, concurrency, requested_by, \
             created_at, started_at, finished_at, seq) \
             values (?1, 'backup', 'succeeded', '{\"kind\":\"backup\"}', ?2, 0, 8, 'cron', ?3, ?3, ?3, ?4)",
        )?;
        let mut step = tx.prepare(
            "insert into steps (op_id, tenant_id, state, phase, facts, attempt, not_before, lease_epoch, started_at, \
             finished_at) values (?1, ?2, 'succeeded', '', '{\"size_bytes\":102400}', 1, 0, 1, ?3, ?3)",
        )?;
        let mut event = tx.prepare(
            "insert into events (seq, at, kind, actor, tenant_id, op_id, data) \
             values ((select coalesce(max(seq), 0) + 1 from events), ?1, 'backup.created', 'cron', ?2, ?3, '{}')",
        )?;
        for number in 0..operations {
            let op = OperationId::generate().to_string();
            let at = now - i64::try_from(operations - number)? * HOUR_MS;
            operation.execute(params![op, i64::try_from(tenants)?, at, i64::try_from(number)? + 1])?;
            for id in &ids {
                step.execute(params![op, id, at])?;
                event.execute(params![at, id, op])?;
            }
        }
    }
    tx.commit()?;
    Ok(())
}

/// A running `serve`.
struct Server {
    child: Child,
}

impl Server {
    fn start(program: &Path, data: &Path) -> Result<Self> {
        let mut command = fleetctl(program, data);
        let child = command.arg("serve").stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let server = Self { child };
        let began = Instant::now();
        // A command beside the server finds it by the file that it writes when it listens.
        while !fleetctl(program, data).args(["status"]).output()?.status.success() {
            ensure!(began.elapsed() < READY_MAX, "the server is not ready");
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(server)
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }

    /// In user and kernel mode together; the kernel counts in hundredths of a second.
    fn processor_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(self.proc("stat"))?;
        let after_name = stat.rsplit_once(") ").context("it has a name")?.1;
        let fields: Vec<&str> = after_name.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// In MiB.
    fn memory(&self, field: &str) -> Result<u64> {
        let status = std::fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find(|line| line.starts_with(field)).context("it has memory")?;
        let kib: u64 = line.split_whitespace().nth(1).context("it is a number")?.parse()?;
        Ok(kib / 1024)
    }

    fn stop(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Another writer of the catalog, which notes how long it waits.
struct Writer {
    ends: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<Duration>>,
}

impl Writer {
    fn start(file: &Path) -> Result<Self> {
        let catalog = Connection::open(file)?;
        catalog.busy_timeout(Duration::from_secs(60))?;
        let ends = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                catalog.execute_batch("begin immediate; commit")?;
                longest = longest.max(began.elapsed());
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(longest)
        });
        Ok(Self { ends, thread })
    }

    fn stop(self) -> Result<Duration> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?
    }
}
