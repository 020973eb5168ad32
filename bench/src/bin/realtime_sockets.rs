//! What open WebSockets cost: memory for each, fan-out, what stalled clients take, and the rate of publications.
//!
//! `realtime_sockets [--sockets 5000] [--tenants 50] [--messages 20]`
//!
//! The clients are another process, so that the memory is the server's alone.

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use axum::response::Response;
use axum::routing::get;
use catalog::Catalog;
use catalog::db::{CatalogDsn, CatalogLocation};
use catalog::seal::FleetKey;
use catalog::topics::{self, NewTopicMessage};
use fleet_bench::fleet::{arguments, durable, median};
use futures_util::StreamExt as _;
use postgres_fixture::{Cluster, ROLE};
use tenant_router::axum::RealtimeRequest;
use tenant_router::realtime::RealtimeLimits;
use tenant_router::test_fleet::TestFleet;
use tenant_router::{Error, Read, RequestView, Role, Router, Tenant, TenantId, Write};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

#[tokio::main]
async fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("client") {
        return run_clients().await;
    }
    let setup = arguments(&[("sockets", 5_000), ("tenants", 50), ("messages", 20)])?;
    let (sockets, messages) = (setup["sockets"], setup["messages"]);
    let names: Vec<String> = (0..setup["tenants"]).map(|number| format!("tenant-{number}")).collect();
    let fleet = TestFleet::start("create table t (id integer)", names.iter().map(String::as_str)).await?;
    let limits = RealtimeLimits { tenant_messages_per_second_max: u32::MAX, ..RealtimeLimits::default() };
    let router = fleet.router_builder().await?.realtime_limits(limits).build().await?;
    let tenants = open_tenants(&fleet, &router, &names).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let application = axum::Router::new().route("/t/{tenant}/live", get(live)).with_state(router.clone());
    tokio::spawn(axum::serve(listener, application).into_future());

    let before = resident_kib()?;
    let mut reading = SocketClients::start(&fleet, &address, &names, sockets, "read").await?;
    let open = resident_kib()?;
    println!(
        "{sockets} idle sockets: {} KiB resident before, {open} with them: {:.1} KiB for each",
        before,
        each(open - before, sockets)
    );
    let began = Instant::now();
    for _ in 0..messages {
        for tenant in &tenants {
            tenant.topic("live")?.publish(&"x".repeat(100)).await?;
        }
    }
    let received: usize = reading.finish(sockets * messages)?;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{messages} messages to each of {} topics: {received} received, {:.0}/s",
        names.len(),
        received as f64 / seconds
    );
    println!("resident afterwards: {} KiB", resident_kib()?);

    let stalled = SocketClients::start(&fleet, &address, &names, sockets, "stall").await?;
    let (began, mut most, mut sent) = (Instant::now(), 0, 0_usize);
    // Each message is as large as allowed, so that the buffers of the sockets fill up.
    while began.elapsed() < Duration::from_secs(30) {
        for tenant in &tenants {
            tenant.topic("live")?.publish(&"x".repeat(8_000)).await?;
        }
        sent += 1;
        most = most.max(resident_kib()?);
    }
    let left = std::fs::read_dir("/proc/self/fd")?.count();
    println!("{left} descriptors are open afterwards");
    println!(
        "{sockets} stalled clients, {sent} messages of 8 KB to each topic: at most {most} KiB, {:.1} KiB for each",
        each(most - before, sockets)
    );
    drop(stalled);
    router.end_subscriptions().await;
    publication(&tenants).await?;
    on_postgres().await
}

fn each(kib: i64, sockets: usize) -> f64 {
    kib as f64 / sockets as f64
}

async fn live(tenant: Tenant<Read>, request: RealtimeRequest) -> Result<Response, Error> {
    request.answer(tenant.topic("live")?).await
}

async fn open_tenants(fleet: &TestFleet, router: &Router, names: &[String]) -> Result<Vec<Arc<Tenant<Write>>>> {
    let mut tenants = Vec::new();
    for name in names {
        let (token, path) = (fleet.token(name, Role::Writer).await?, format!("/t/{name}/x"));
        router.catch_up().await?;
        let request = RequestView { credential: Some(&token), path: &path, ..RequestView::default() };
        tenants.push(Arc::new(router.open(&request).await?));
    }
    Ok(tenants)
}

/// Publications of one task, and of as many tasks as there are tenants, on a catalog in a file.
async fn publication(tenants: &[Arc<Tenant<Write>>]) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..500 {
        let began = Instant::now();
        tenants[0].topic("live")?.publish("hello").await?;
        times.push(began.elapsed());
    }
    let alone = median(&mut times);
    let (began, mut tasks) = (Instant::now(), tokio::task::JoinSet::new());
    for tenant in tenants {
        let tenant = Arc::clone(tenant);
        tasks.spawn(async move {
            for _ in 0..100 {
                tenant.topic("live")?.publish("hello").await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let rate = (tenants.len() * 100) as f64 / began.elapsed().as_secs_f64();
    println!(
        "publication, catalog in a file: p50 {:.2} ms alone, {rate:.0}/s by {} tasks",
        alone.as_secs_f64() * 1e3,
        tenants.len()
    );
    Ok(())
}

/// Transactions of one message and of 64 messages, on a PostgreSQL catalog with fsync.
async fn on_postgres() -> Result<()> {
    let cluster = Cluster::with(&durable(50));
    cluster.psql("postgres", &format!("create database catalog owner {ROLE}"));
    let location = CatalogLocation::Postgres(CatalogDsn::from_text(&cluster.dsn("catalog"))?);
    let catalog = Catalog::create(&location, FleetKey::generate(), Arc::new(|| 0)).await?;
    let message =
        NewTopicMessage { tenant: TenantId::generate(), topic: "live".to_owned(), payload: "\"hello\"".to_owned() };
    for size in [1, 64] {
        let (batch, began, mut count) = (vec![message.clone(); size], Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(3) {
            let mut tx = catalog.write().await?;
            topics::append_messages(&mut tx, &batch).await?;
            tx.commit().await?;
            count += size;
        }
        println!(
            "catalog on PostgreSQL, {size} messages in a transaction: {:.0}/s",
            count as f64 / began.elapsed().as_secs_f64()
        );
    }
    catalog.close().await;
    Ok(())
}

fn resident_kib() -> Result<i64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the kernel tells the memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The process of the clients.
struct SocketClients {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl SocketClients {
    /// Starts the process, and returns when all sockets are open.
    async fn start(fleet: &TestFleet, address: &str, names: &[String], sockets: usize, mode: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["client", address, &sockets.to_string(), mode]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut input = child.stdin.take().context("the input is a pipe")?;
        for name in names {
            writeln!(input, "{name} {}", fleet.token(name, Role::Reader).await?)?;
        }
        writeln!(input)?;
        let mut clients =
            Self { output: BufReader::new(child.stdout.take().context("the output is a pipe")?), child, input };
        tokio::task::block_in_place(|| clients.expect_line("open"))?;
        Ok(clients)
    }

    fn expect_line(&mut self, expected: &str) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line.trim() == expected, "the clients say {line:?} instead of {expected:?}");
        Ok(())
    }

    /// Waits until the clients have got this many messages.
    fn finish(&mut self, expected: usize) -> Result<usize> {
        writeln!(self.input, "{expected}")?;
        tokio::task::block_in_place(|| self.expect_line(&expected.to_string()))?;
        let _ = self.child.wait();
        Ok(expected)
    }
}

impl Drop for SocketClients {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The clients: `client ADDRESS SOCKETS read|stall`, with the tenants and their tokens as lines of the input.
async fn run_clients() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(2).collect();
    let (address, sockets, reads) = (&words[0], words[1].parse::<usize>()?, words[2] == "read");
    let mut lines = std::io::stdin().lines();
    let mut tenants = Vec::new();
    while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
        tenants.push(line);
    }
    let received = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut open = Vec::new();
    for number in 0..sockets {
        let (name, token) = tenants[number % tenants.len()].split_once(' ').context("a tenant and a token")?;
        let mut request = format!("ws://{address}/t/{name}/live").into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
        let (mut socket, _) = connect_async(request).await?;
        socket.next().await.context("the first message comes")??;
        open.push(socket);
    }
    println!("open");
    if !reads {
        std::future::pending::<()>().await;
    }
    for mut socket in open {
        let received = Arc::clone(&received);
        tokio::spawn(async move {
            while let Some(Ok(message)) = socket.next().await {
                let is_message = message.to_text().is_ok_and(|text| text.starts_with(r#"{"type":"message""#));
                received.fetch_add(usize::from(is_message), std::sync::atomic::Ordering::Relaxed);
            }
        });
    }
    let expected: usize = tokio::task::block_in_place(|| lines.next()).context("the number of messages")??.parse()?;
    while received.load(std::sync::atomic::Ordering::Relaxed) < expected {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("{expected}");
    Ok(())
}
