//! What a tenant waits beside a flooding one, through HTTP and the data API of a serving process, on both engines.
//!
//! `globex` reads one row 200 times a second. `acme` floods: with ten times that rate, slow statements, large answers,
//! connections that send nothing, and transactions that hold locks. Once without a plan, and once with a plan of `acme`.
//!
//! `noisy_neighbour [seconds per flood]`

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use control_plane::config::ProcessRole;
use control_plane::serve::{ServeOptions, start_server};
use control_plane::{App, Config};
use fleet_bench::latency::Latencies;
use postgres_fixture::Cluster;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SCHEMA: &str = "create table tasks (id integer primary key, title text not null);";
const FILL: &str = "insert into tasks (id, title) with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000) \
                    select i, 'title ' || i from n";
const READ: &str = "select id, title from tasks where id = 7";
const LARGE: &str = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 9000) \
                     select i, replace('aaaaaaaaaa', 'a', '0123456789012345678901234567890123456789') from n";
const ENDLESS: &str =
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000000000) select count(*) from n";
const UPDATE: &str = "update tasks set title = title where id = 7";
/// The time between two reads of `globex`.
const PACE: Duration = Duration::from_millis(5);
/// The time between two requests of one connection of `acme`.
const FLOOD_PACE: Duration = Duration::from_millis(10);

/// How `acme` floods: a name, the number of connections, and what each sends again and again.
struct Flood {
    name: &'static str,
    connections: usize,
    request: Option<(&'static str, Value)>,
}

fn floods() -> Vec<Flood> {
    let query = |sql: &str| Some(("query", json!({ "sql": sql })));
    let locks = json!({ "statements": [{ "sql": UPDATE }, { "sql": ENDLESS }] });
    vec![
        Flood { name: "10 times the rate", connections: 20, request: query(READ) },
        Flood { name: "slow statements", connections: 16, request: query(ENDLESS) },
        Flood { name: "large answers", connections: 8, request: query(LARGE) },
        Flood { name: "silent connections", connections: 200, request: None },
        Flood { name: "held locks", connections: 4, request: Some(("batch", locks)) },
    ]
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match args.first().map(String::as_str) {
        Some("--serve") => runtime.block_on(serve(args.get(1).map(String::as_str))),
        seconds => {
            let length = Duration::from_secs(seconds.map_or(Ok(5), str::parse)?);
            runtime.block_on(measure_engines(length))
        }
    }
}

async fn measure_engines(length: Duration) -> Result<()> {
    measure_engine("sqlite", None, length).await?;
    let cluster = Cluster::start();
    measure_engine("postgres", Some(&cluster.dsn("postgres")), length).await
}

async fn measure_engine(engine: &str, dsn: Option<&str>, length: Duration) -> Result<()> {
    let site = Site::start(dsn)?;
    for plan in [None, Some("small")] {
        site.set_plan(plan).await?;
        let plan = plan.map_or("without a plan", |_| "with a plan");
        // The first requests open pools and connections.
        site.reads(Duration::from_secs(1)).await?;
        let mut alone = site.reads(length).await?;
        let alone = alone.percentile(99.0).as_secs_f64() * 1e3;
        println!("{engine} {plan}: p99 alone {alone:.2} ms");
        for flood in floods() {
            let tasks: Vec<_> = (0..flood.connections).map(|_| tokio::spawn(site.flood(&flood))).collect();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let beside = site.reads(length).await?.percentile(99.0).as_secs_f64() * 1e3;
            tasks.iter().for_each(tokio::task::JoinHandle::abort);
            println!("  {:<20} p99 beside {beside:>8.2} ms, {:>5.1} times", flood.name, beside / alone);
            // Statements of the flood end at their limit.
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
    }
    Ok(())
}

/// A serving process, as this one knows it.
struct Site {
    child: Child,
    admin: SocketAddr,
    data: SocketAddr,
    operator: String,
    acme: String,
    globex: String,
}

impl Site {
    fn start(dsn: Option<&str>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--serve").args(dsn).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [admin, data, operator, acme, globex] = words[..] else { bail!("{line}") };
        let [operator, acme, globex] = [operator, acme, globex].map(str::to_owned);
        Ok(Self { child, admin: admin.parse()?, data: data.parse()?, operator, acme, globex })
    }

    async fn set_plan(&self, plan: Option<&str>) -> Result<()> {
        let body = json!({ "plan": plan });
        let mut admin = Connection::open(self.admin).await?;
        let (status, answer) = admin.ask("PATCH", "/v1/tenants/acme", &self.operator, &body).await?;
        ensure!(status == 200, "{answer}");
        Ok(())
    }

    /// How long each read of `globex` took.
    async fn reads(&self, length: Duration) -> Result<Latencies> {
        let mut connection = Connection::open(self.data).await?;
        let (mut times, body) = (Latencies::default(), json!({ "sql": READ }));
        let end = Instant::now() + length;
        while Instant::now() < end {
            let began = Instant::now();
            let (status, answer) = connection.ask("POST", "/t/globex/query", &self.globex, &body).await?;
            ensure!(status == 200, "{answer}");
            times.record(began.elapsed());
            tokio::time::sleep(PACE).await;
        }
        Ok(times)
    }

    /// One connection of the flood, until it is aborted.
    fn flood(&self, flood: &Flood) -> impl Future<Output = ()> + Send + use<> {
        let (data, token, request) = (self.data, self.acme.clone(), flood.request.clone());
        async move {
            loop {
                let _ = flood_connection(data, &token, request.as_ref()).await;
                tokio::time::sleep(FLOOD_PACE).await;
            }
        }
    }
}

/// Floods over one connection until it is closed.
async fn flood_connection(at: SocketAddr, token: &str, request: Option<&(&'static str, Value)>) -> Result<()> {
    let mut connection = Connection::open(at).await?;
    let Some((route, body)) = request else {
        let _ = connection.stream.read_u8().await;
        return Ok(());
    };
    let path = format!("/t/acme/{route}");
    loop {
        let began = Instant::now();
        connection.ask("POST", &path, token, body).await?;
        tokio::time::sleep(FLOOD_PACE.saturating_sub(began.elapsed())).await;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A kept HTTP connection.
struct Connection {
    stream: tokio::io::BufReader<TcpStream>,
}

impl Connection {
    async fn open(at: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: tokio::io::BufReader::new(stream) })
    }

    /// Sends one request, and reads its whole answer: the status and the body.
    async fn ask(&mut self, method: &str, path: &str, token: &str, body: &Value) -> Result<(u16, String)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all(format!("{head}{body}").as_bytes()).await?;
        let (mut status, mut length, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line).await? > 0, "the connection is closed");
            let text = line.trim_end().to_ascii_lowercase();
            match text.split_once(": ") {
                Some(("content-length", value)) => length = value.parse()?,
                Some(("transfer-encoding", _)) => bail!("the answer has no length"),
                _ if text.starts_with("http/1.1 ") => status = text[9..12].parse()?,
                _ if text.is_empty() => break,
                _ => {}
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await?;
        Ok((status, String::from_utf8(answer)?))
    }
}

/// Serves two tenants on the engine of `dsn`, prints how to reach them, and ends with the input.
async fn serve(dsn: Option<&str>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut config = Config::new(dir.path().canonicalize()?.join("data"), ProcessRole::Serving);
    config.listen = "127.0.0.1:0".parse()?;
    config.admin_listen = "127.0.0.1:0".parse()?;
    App::init_fleet(&config).await?;
    let app = App::open(config.clone()).await?;
    let serving = start_server(Arc::clone(&app), ServeOptions::default()).await?;
    let address = |url: &str| url.trim_start_matches("http://").parse::<SocketAddr>();
    let (admin, data) = (address(&serving.server_endpoint().admin_url)?, address(&serving.server_endpoint().data_url)?);
    let operator = std::fs::read_to_string(config.data_dir.join("operator.token"))?.trim().to_owned();
    let tokens = prepare_fleet((admin, data), &operator, dsn).await?;
    println!("{admin} {data} {operator} {tokens}");
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    serving.stop_serving().await;
    Ok(())
}

/// Makes both tenants and the plan. Returns the tokens of both.
async fn prepare_fleet((admin, data): (SocketAddr, SocketAddr), operator: &str, dsn: Option<&str>) -> Result<String> {
    let mut connection = Connection::open(admin).await?;
    let mut server = "local";
    if let Some(dsn) = dsn {
        server = "pg1";
        let new = json!({ "name": server, "engine": "postgres", "dsn": dsn });
        let (status, answer) = connection.ask("POST", "/v1/servers", operator, &new).await?;
        ensure!(status == 201, "{answer}");
    }
    let set = json!({ "files": [{ "name": "0001_tasks.sql", "sql": SCHEMA }], "selection": { "all": true, "allow_empty": true } });
    finish_operation(&mut connection, operator, "/v1/migrations", &set).await?;
    let tenants = json!({ "tenants": [{ "name": "acme" }, { "name": "globex" }], "server": server });
    finish_operation(&mut connection, operator, "/v1/tenants/batch", &tenants).await?;
    let limits = json!({
        "requests_per_second": 200, "burst": 50, "concurrency": 4, "statement_ms": 200, "rows_max": 1_000,
        "answer_bytes_max": 500_000, "connections_max": 1,
    });
    let (status, answer) =
        connection.ask("POST", "/v1/plans", operator, &json!({ "name": "small", "limits": limits })).await?;
    ensure!(status == 201, "{answer}");
    let mut tokens = Vec::new();
    for tenant in ["acme", "globex"] {
        let new = json!({ "tenant": tenant, "role": "writer" });
        let (_, answer) = connection.ask("POST", "/v1/tokens", operator, &new).await?;
        let token = serde_json::from_str::<Value>(&answer)?["secret"].as_str().context("a token")?.to_owned();
        let fill = json!({ "sql": FILL });
        let path = format!("/t/{tenant}/query");
        let (status, answer) = Connection::open(data).await?.ask("POST", &path, &token, &fill).await?;
        ensure!(status == 200, "{answer}");
        tokens.push(token);
    }
    Ok(tokens.join(" "))
}

/// Starts an operation and waits for its end.
async fn finish_operation(admin: &mut Connection, operator: &str, path: &str, body: &Value) -> Result<()> {
    let (_, answer) = admin.ask("POST", path, operator, body).await?;
    let started: Value = serde_json::from_str(&answer)?;
    let id = started["id"].as_str().with_context(|| format!("{path}: {started}"))?.to_owned();
    for _ in 0..600 {
        let path = format!("/v1/operations/{id}");
        let (_, found) = admin.ask("GET", &path, operator, &Value::Null).await?;
        if serde_json::from_str::<Value>(&found)?["state"] == "succeeded" {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("{path} does not end")
}
