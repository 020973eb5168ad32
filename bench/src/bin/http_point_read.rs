//! A whole point read over HTTP: this program's data API against a plain server of axum and rusqlite.
//!
//! Each side serves in a process of its own, the same client asks both in alternating rounds over kept connections, and
//! the processor time of the serving process alone is counted. The plain server checks nothing: no token, no tenant, no
//! identity, no limits, no log. Arguments: `--log FILTER` (default `info`, what `fleetctl serve` has; `off` shows what the
//! access log costs), `--rounds N`, `--hold SIDE` (serves one side until the input ends, for a profiler).

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use control_plane::config::ProcessRole;
use control_plane::serve::{ServeOptions, start_server};
use control_plane::{App, Config, telemetry};
use fleet_bench::latency::median;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SQL: &str = "select id, title, done from tasks where id = ?1";
const SCHEMA: &str =
    "create table tasks (id integer primary key, title text not null, done integer not null default 0);";
const ROWS: i64 = 1_000;
/// Fewer than any side has threads for: nobody waits for a connection to a database.
const CLIENTS: usize = 4;
const REQUESTS: usize = 8_000;
const ROUNDS: usize = 7;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let log = value("--log").unwrap_or_else(|| "info".to_owned());
    match value("--serve").or_else(|| value("--hold")).as_deref() {
        Some("plain") => runtime.block_on(plain()),
        Some("ours") => runtime.block_on(ours(&log)),
        Some(other) => bail!("a side is ours or plain, not {other}"),
        None => {
            let rounds = value("--rounds").map_or(Ok(ROUNDS), |text| text.parse())?;
            runtime.block_on(compare(&log, rounds))
        }
    }
}

async fn compare(log: &str, rounds: usize) -> Result<()> {
    let mut sides = [Side::start("ours", log)?, Side::start("plain", log)?];
    for round in 0..=rounds {
        for side in &mut sides {
            side.round(round > 0).await?;
        }
    }
    let [(ours, our_rate), (plain, plain_rate)] = sides.each_mut().map(Side::report);
    println!("processor time {:.2}×, rate {:.2}× (access log: {log})", ours / plain, our_rate / plain_rate);
    Ok(())
}

/// One serving process.
struct Side {
    name: &'static str,
    child: Child,
    at: SocketAddr,
    request: Arc<dyn Fn(i64) -> String + Send + Sync>,
    cpu: Vec<f64>,
    rates: Vec<f64>,
}

impl Side {
    fn start(name: &'static str, log: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["--serve", name, "--log", log])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        let (at, token) = line.trim().split_once(' ').context("an address and a token")?;
        let (at, token) = (at.parse()?, token.to_owned());
        let request = Arc::new(move |id| request("/t/acme/query", &token, &json!({ "sql": SQL, "params": [id] })));
        Ok(Self { name, child, at, request, cpu: Vec::new(), rates: Vec::new() })
    }

    async fn round(&mut self, counts: bool) -> Result<()> {
        let (began, cpu) = (Instant::now(), processor_time(self.child.id())?);
        let clients: Vec<_> =
            (0..CLIENTS).map(|client| tokio::spawn(ask(self.at, Arc::clone(&self.request), client))).collect();
        for client in clients {
            client.await??;
        }
        let all = (CLIENTS * REQUESTS) as f64;
        if counts {
            self.rates.push(all / began.elapsed().as_secs_f64());
            self.cpu.push((processor_time(self.child.id())? - cpu).as_secs_f64() * 1e6 / all);
        }
        Ok(())
    }

    fn report(&mut self) -> (f64, f64) {
        let (cpu, rate) = (median(&mut self.cpu), median(&mut self.rates));
        println!("{:<6} {cpu:>6.1} µs of processor time each, {rate:>7.0}/s", self.name);
        (cpu, rate)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time of a process, in ticks of a hundredth of a second.
fn processor_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("the name ends")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

async fn ask(at: SocketAddr, request: Arc<dyn Fn(i64) -> String + Send + Sync>, client: usize) -> Result<()> {
    let mut stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let (mut buffer, mut id) = (vec![0; 4 << 10], i64::try_from(client)? * 97 + 1);
    for _ in 0..REQUESTS {
        stream.write_all(request(id).as_bytes()).await?;
        let read = stream.read(&mut buffer).await?;
        let answer = std::str::from_utf8(&buffer[..read])?;
        ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains(&format!("\"title {id}\"")), "{answer}");
        id = (id + 211) % ROWS + 1;
    }
    Ok(())
}

fn request(path: &str, token: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Tells where it serves, and serves until the input ends.
fn announce(at: SocketAddr, token: &str) -> Result<()> {
    println!("{at} {token}");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// What somebody would write in an afternoon: a connection, a prepared statement, a thread that may block.
async fn plain() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let database = Connection::open(dir.path().join("acme.db"))?;
    database.execute_batch(&format!("pragma journal_mode = wal; {SCHEMA}"))?;
    for id in 1..=ROWS {
        database.execute("insert into tasks (id, title) values (?1, ?2)", (id, format!("title {id}")))?;
    }
    let state = Arc::new(Mutex::new(database));
    let router = Router::new().route("/t/{tenant}/query", post(point_read)).with_state(state);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream: &mut TcpStream| {
        let _ = stream.set_nodelay(true);
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    tokio::task::spawn_blocking(move || announce(at, "none")).await?
}

async fn point_read(State(database): State<Arc<Mutex<Connection>>>, Json(asked): Json<Value>) -> Json<Value> {
    let read = move || -> rusqlite::Result<Value> {
        let database = database.lock().expect("no reader panics");
        let mut statement = database.prepare_cached(asked["sql"].as_str().unwrap_or_default())?;
        let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
        let row = statement.query_row([asked["params"][0].as_i64()], |row| {
            Ok(json!([row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?]))
        })?;
        Ok(json!({ "columns": columns, "rows": [row], "rows_affected": 0 }))
    };
    let answer = tokio::task::spawn_blocking(read).await.expect("no reader panics");
    Json(answer.unwrap_or_else(|error| json!({ "error": error.to_string() })))
}

async fn ours(log: &str) -> Result<()> {
    if log != "off" {
        telemetry::init_logging(telemetry::LogFormat::Json, log).map_err(anyhow::Error::msg)?;
    }
    let dir = tempfile::tempdir()?;
    let mut config = Config::new(dir.path().canonicalize()?.join("data"), ProcessRole::Serving);
    config.listen = "127.0.0.1:0".parse()?;
    config.admin_listen = "127.0.0.1:0".parse()?;
    App::init_fleet(&config).await?;
    let app = App::open(config.clone()).await?;
    let serving = start_server(app, ServeOptions::default()).await?;
    let address = |url: &str| url.trim_start_matches("http://").parse::<SocketAddr>();
    let (admin, data) = (address(&serving.server_endpoint().admin_url)?, address(&serving.server_endpoint().data_url)?);
    let operator = std::fs::read_to_string(config.data_dir.join("operator.token"))?.trim().to_owned();
    let set = json!({ "files": [{ "name": "0001_tasks.sql", "sql": SCHEMA }], "selection": { "all": true } });
    done(admin, &operator, "/v1/migrations", &set).await?;
    done(admin, &operator, "/v1/tenants/batch", &json!({ "tenants": [{ "name": "acme" }] })).await?;
    let token = send(admin, "/v1/tokens", &operator, &json!({ "tenant": "acme", "role": "writer" })).await?;
    let token = token["secret"].as_str().context("a token")?.to_owned();
    let fill = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1) \
                insert into tasks (id, title) select i, 'title ' || i from n";
    let filled = send(data, "/t/acme/query", &token, &json!({ "sql": fill, "params": [ROWS] })).await?;
    ensure!(filled["rows_affected"] == ROWS, "{filled}");
    tokio::task::spawn_blocking(move || announce(data, &token)).await??;
    serving.stop_serving().await;
    Ok(())
}

/// Starts an operation and waits for its end.
async fn done(at: SocketAddr, operator: &str, path: &str, body: &Value) -> Result<()> {
    let started = send(at, path, operator, body).await?;
    let id = started["id"].as_str().with_context(|| format!("{path}: {started}"))?.to_owned();
    for _ in 0..600 {
        let found = get(at, &format!("/v1/operations/{id}"), operator).await?;
        if found["state"] == "succeeded" {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("{path} does not end")
}

async fn send(at: SocketAddr, path: &str, token: &str, body: &Value) -> Result<Value> {
    exchange(at, request(path, token, body).replacen("host: bench", "connection: close\r\nhost: bench", 1)).await
}

async fn get(at: SocketAddr, path: &str, token: &str) -> Result<Value> {
    let head = "connection: close\r\nhost: bench";
    exchange(at, format!("GET {path} HTTP/1.1\r\n{head}\r\nauthorization: Bearer {token}\r\n\r\n")).await
}

async fn exchange(at: SocketAddr, request: String) -> Result<Value> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (_, body) = text.split_once("\r\n\r\n").context("an answer")?;
    Ok(serde_json::from_str(body)?)
}
