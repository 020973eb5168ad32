//! Whether the time of a refusal tells which tenants exist: requests of a stranger for tenants that exist, that are
//! suspended, that were deleted, and that do not exist; for hosts that a tenant claimed without proof; and for tenants
//! on the admin API. All over loopback, in random turns, on both listeners.
//!
//! Prints the distributions, the Kolmogorov-Smirnov distance of each from that of unknown names, and how many of forty
//! names an attacker would sort rightly by their mean times (about half is chance).

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use control_plane::config::ProcessRole;
use control_plane::serve::{ServeOptions, start_server};
use control_plane::{App, Config};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SAMPLES: usize = 10_000;
const CONNECTIONS: usize = 4;
/// Names that an attacker wants to sort, and requests for each.
const NAMES: usize = 40;
const LOOKS: usize = 100;

#[tokio::main]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut config = Config::new(dir.path().canonicalize()?.join("data"), ProcessRole::Serving);
    config.listen = "127.0.0.1:0".parse()?;
    config.admin_listen = "127.0.0.1:0".parse()?;
    config.own_hosts = Some(vec!["bench".to_owned()]);
    App::init_fleet(&config).await?;
    let app = App::open(config.clone()).await?;
    let serving = start_server(Arc::clone(&app), ServeOptions::default()).await?;
    let address = |url: &str| url.trim_start_matches("http://").parse::<SocketAddr>();
    let (admin, data) = (address(&serving.server_endpoint().admin_url)?, address(&serving.server_endpoint().data_url)?);
    let operator = std::fs::read_to_string(config.data_dir.join("operator.token"))?.trim().to_owned();
    let names: Vec<String> = (0..NAMES / 2).map(|n| format!("known{n:02}")).collect();
    let all: Vec<_> = names.iter().map(String::as_str).chain(["own", "foreign", "asleep", "gone"]).collect();
    let tenants: Vec<_> = all.iter().map(|name| json!({ "name": name })).collect();
    done(admin, &operator, "/v1/tenants/batch", &json!({ "tenants": tenants })).await?;
    done(admin, &operator, "/v1/lifecycle/suspend", &json!({ "selection": { "names": ["asleep"] } })).await?;
    let gone =
        send(admin, &request("DELETE", "/v1/tenants/gone?no_backup=true", "bench", &operator, "", "close")).await?;
    wait_for(admin, &operator, &gone).await?;
    post(admin, &operator, "/v1/tenants/foreign/domains", &json!({ "host": "claimed.example" })).await?;
    let token = post(admin, &operator, "/v1/tokens", &json!({ "tenant": "own", "role": "reader" })).await?;
    let token = token["secret"].as_str().context("a token")?.to_owned();
    for (listener, baseline, others) in groups(data, admin) {
        distributions(listener, &token, &baseline, &others).await?;
    }
    sorting(data, &token, &names).await?;
    serving.stop_serving().await;
    Ok(())
}

/// A request whose refusal is timed.
#[derive(Clone)]
struct Refused {
    label: String,
    host: &'static str,
    method: &'static str,
    path: String,
    /// The start of the answer.
    status: &'static str,
}

impl Refused {
    fn on_data(label: &str, host: &'static str, path: String) -> Self {
        Self { label: label.to_owned(), host, method: "POST", path, status: "HTTP/1.1 404" }
    }

    /// A tenant by its name in the path.
    fn named(name: &str) -> Self {
        Self::on_data(name, "bench", format!("/t/{name}/query"))
    }
}

/// Requests that must not be told apart: the listener, the request for what nobody has, and the others.
fn groups(data: SocketAddr, admin: SocketAddr) -> [(SocketAddr, Refused, Vec<Refused>); 3] {
    let by_host = |host: &'static str| Refused::on_data(host, host, "/query".to_owned());
    let on_admin = |name: &str| {
        let path = format!("/v1/tenants/{name}");
        Refused { label: format!("admin {name}"), host: "bench", method: "GET", path, status: "HTTP/1.1 40" }
    };
    [
        (data, Refused::named("unknown"), ["foreign", "asleep", "gone", "missing"].map(Refused::named).to_vec()),
        (data, by_host("unknown.example"), vec![by_host("claimed.example"), by_host("missing.example")]),
        (admin, on_admin("unknown"), ["foreign", "own", "gone", "missing"].map(on_admin).to_vec()),
    ]
}

async fn distributions(at: SocketAddr, token: &str, baseline: &Refused, others: &[Refused]) -> Result<()> {
    let all: Vec<Refused> = others.iter().chain([baseline]).cloned().collect();
    let mut times = measure(at, token, &all, SAMPLES).await?;
    times.iter_mut().for_each(|times| times.sort_unstable());
    let bound = 1.63 * (2.0 / SAMPLES as f64).sqrt();
    println!("{SAMPLES} samples each; a distance below {bound:.4} is not a difference (99 %)");
    for (refused, of) in all.iter().zip(&times) {
        let at = |part: f64| of[((of.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
        let (label, distance) = (&refused.label, distance(of, &times[others.len()]));
        println!("{label:16} p10 {:8.0} p50 {:8.0} p90 {:8.0} us   distance {distance:.4}", at(0.1), at(0.5), at(0.9));
    }
    Ok(())
}

/// The largest difference of two sorted samples' distribution functions.
fn distance(one: &[Duration], other: &[Duration]) -> f64 {
    let below = |of: &[Duration], at: Duration| of.partition_point(|time| *time <= at) as f64 / of.len() as f64;
    one.iter().chain(other).map(|at| (below(one, *at) - below(other, *at)).abs()).fold(0.0, f64::max)
}

async fn sorting(data: SocketAddr, token: &str, known: &[String]) -> Result<()> {
    let unknown = (0..NAMES / 2).map(|n| format!("nobody{n:02}"));
    let names: Vec<_> = known.iter().cloned().chain(unknown).map(|name| Refused::named(&name)).collect();
    let times = measure(data, token, &names, LOOKS).await?;
    let mut means: Vec<_> = times.iter().map(|of| of.iter().sum::<Duration>() / LOOKS as u32).enumerate().collect();
    means.sort_by_key(|(_, mean)| *mean);
    let slow = means[NAMES / 2..].iter().filter(|(at, _)| *at < NAMES / 2).count();
    println!("{NAMES} names by their means of {LOOKS}: {} sorted rightly", 2 * slow.max(NAMES / 2 - slow));
    Ok(())
}

/// The times of so many requests for each name, in random turns on a few connections.
async fn measure(data: SocketAddr, token: &str, names: &[Refused], samples: usize) -> Result<Vec<Vec<Duration>>> {
    let mut turns: Vec<usize> = (0..names.len()).flat_map(|at| std::iter::repeat_n(at, samples)).collect();
    shuffle(&mut turns);
    let mut tasks = Vec::new();
    for part in turns.chunks(turns.len().div_ceil(CONNECTIONS)) {
        let (part, names, token) = (part.to_vec(), names.to_vec(), token.to_owned());
        tasks.push(tokio::spawn(async move { ask(data, &token, &names, &part).await }));
    }
    let mut times = vec![Vec::with_capacity(samples); names.len()];
    for task in tasks {
        task.await??.into_iter().for_each(|(at, time)| times[at].push(time));
    }
    Ok(times)
}

/// Any order that is not ours; a linear generator is random enough.
fn shuffle(turns: &mut [usize]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..turns.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        turns.swap(at, (state >> 33) as usize % (at + 1));
    }
}

async fn ask(data: SocketAddr, token: &str, names: &[Refused], turns: &[usize]) -> Result<Vec<(usize, Duration)>> {
    let mut stream = TcpStream::connect(data).await?;
    stream.set_nodelay(true)?;
    let (mut times, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    for at in turns {
        let Refused { host, method, path, status, .. } = &names[*at];
        let body = if *method == "POST" { r#"{"sql":"select 1"}"# } else { "" };
        let request = request(method, path, host, token, body, "keep-alive");
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let read = stream.read(&mut buffer).await?;
        times.push((*at, begun.elapsed()));
        ensure!(buffer[..read].starts_with(status.as_bytes()), "{}", String::from_utf8_lossy(&buffer[..read]));
    }
    Ok(times)
}

fn request(method: &str, path: &str, host: &str, token: &str, body: &str, connection: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nconnection: {connection}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn post(at: SocketAddr, token: &str, path: &str, body: &Value) -> Result<Value> {
    send(at, &request("POST", path, "bench", token, &body.to_string(), "close")).await
}

/// Starts an operation and waits for its end.
async fn done(at: SocketAddr, token: &str, path: &str, body: &Value) -> Result<()> {
    let started = post(at, token, path, body).await?;
    wait_for(at, token, &started).await
}

async fn wait_for(at: SocketAddr, token: &str, started: &Value) -> Result<()> {
    let id = started["id"].as_str().with_context(|| format!("no operation: {started}"))?;
    let path = format!("/v1/operations/{id}?wait_seconds=60");
    let ended = send(at, &request("GET", &path, "bench", token, "", "close")).await?;
    ensure!(ended["state"] == "succeeded", "{ended}");
    Ok(())
}

async fn send(at: SocketAddr, request: &str) -> Result<Value> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (_, body) = text.split_once("\r\n\r\n").context("an answer")?;
    Ok(serde_json::from_str(body)?)
}
