//! Whether the time of a refusal tells which tenants exist: requests of a stranger for tenants that exist, that are
//! suspended, and that do not exist, over loopback, in random turns.
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
    App::init_fleet(&config).await?;
    let app = App::open(config.clone()).await?;
    let serving = start_server(Arc::clone(&app), ServeOptions::default()).await?;
    let address = |url: &str| url.trim_start_matches("http://").parse::<SocketAddr>();
    let (admin, data) = (address(&serving.server_endpoint().admin_url)?, address(&serving.server_endpoint().data_url)?);
    let operator = std::fs::read_to_string(config.data_dir.join("operator.token"))?.trim().to_owned();
    let names: Vec<String> = (0..NAMES / 2).map(|n| format!("known{n:02}")).collect();
    let all: Vec<_> = names.iter().map(String::as_str).chain(["own", "foreign", "asleep"]).collect();
    let tenants: Vec<_> = all.iter().map(|name| json!({ "name": name })).collect();
    done(admin, &operator, "/v1/tenants/batch", &json!({ "tenants": tenants })).await?;
    done(admin, &operator, "/v1/lifecycle/suspend", &json!({ "selection": { "names": ["asleep"] } })).await?;
    let token = post(admin, &operator, "/v1/tokens", &json!({ "tenant": "own", "role": "reader" })).await?;
    let token = token["secret"].as_str().context("a token")?.to_owned();
    distributions(data, &token).await?;
    sorting(data, &token, &names).await?;
    serving.stop_serving().await;
    Ok(())
}

async fn distributions(data: SocketAddr, token: &str) -> Result<()> {
    let classes = ["foreign", "asleep", "unknown", "missing"];
    let mut times = measure(data, token, &classes.map(str::to_owned), SAMPLES).await?;
    times.iter_mut().for_each(|times| times.sort_unstable());
    let bound = 1.63 * (2.0 / SAMPLES as f64).sqrt();
    println!("{SAMPLES} samples each; a distance below {bound:.4} is not a difference (99 %)");
    for (class, of) in classes.iter().zip(&times) {
        let at = |part: f64| of[((of.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
        let distance = distance(of, &times[2]);
        println!("{class:8} p10 {:8.0} p50 {:8.0} p90 {:8.0} us   distance {distance:.4}", at(0.1), at(0.5), at(0.9));
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
    let names: Vec<_> = known.iter().cloned().chain(unknown).collect();
    let times = measure(data, token, &names, LOOKS).await?;
    let mut means: Vec<_> = times.iter().map(|of| of.iter().sum::<Duration>() / LOOKS as u32).enumerate().collect();
    means.sort_by_key(|(_, mean)| *mean);
    let slow = means[NAMES / 2..].iter().filter(|(at, _)| *at < NAMES / 2).count();
    println!("{NAMES} names by their means of {LOOKS}: {} sorted rightly", 2 * slow.max(NAMES / 2 - slow));
    Ok(())
}

/// The times of so many requests for each name, in random turns on a few connections.
async fn measure(data: SocketAddr, token: &str, names: &[String], samples: usize) -> Result<Vec<Vec<Duration>>> {
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

async fn ask(data: SocketAddr, token: &str, names: &[String], turns: &[usize]) -> Result<Vec<(usize, Duration)>> {
    let mut stream = TcpStream::connect(data).await?;
    stream.set_nodelay(true)?;
    let (mut times, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    for at in turns {
        let request =
            request("POST", &format!("/t/{}/query", names[*at]), token, r#"{"sql":"select 1"}"#, "keep-alive");
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let read = stream.read(&mut buffer).await?;
        times.push((*at, begun.elapsed()));
        ensure!(buffer[..read].starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&buffer[..read]));
    }
    Ok(times)
}

fn request(method: &str, path: &str, token: &str, body: &str, connection: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\nconnection: {connection}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn post(at: SocketAddr, token: &str, path: &str, body: &Value) -> Result<Value> {
    send(at, &request("POST", path, token, &body.to_string(), "close")).await
}

/// Starts an operation and waits for its end.
async fn done(at: SocketAddr, token: &str, path: &str, body: &Value) -> Result<()> {
    let started = post(at, token, path, body).await?;
    let id = started["id"].as_str().with_context(|| format!("{path}: {started}"))?;
    let path = format!("/v1/operations/{id}?wait_seconds=60");
    let ended = send(at, &request("GET", &path, token, "", "close")).await?;
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
