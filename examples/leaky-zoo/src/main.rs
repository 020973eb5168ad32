//! The binary: serves the application with the chosen leak until a signal stops it.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use control_plane::telemetry::{LogFormat, init_logging};
use leaky_zoo::options::{ZooOptions, list_leaks};
use leaky_zoo::routes_of;
use leaky_zoo::zoo::Zoo;
use tasks::serving::{ServedRoutes, serve_until_signal};

#[tokio::main]
async fn main() -> ExitCode {
    match run(&ZooOptions::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without stderr there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &ZooOptions) -> Result<()> {
    if options.list {
        write!(std::io::stdout(), "{}", list_leaks())?;
        return Ok(());
    }
    let leak = options.chosen_leak()?;
    init_logging(LogFormat::for_stderr(), "warn,leaky_zoo=info").map_err(anyhow::Error::msg)?;
    let name = leak.map_or("no leak", |leak| leak.name);
    tracing::info!(leak = name, "the zoo opens");
    let routes = |application| Ok(routes_of(&Zoo::new(application, options.admin_key.clone())?, leak));
    serve_until_signal(&options.tasks, ServedRoutes { title: format!("Leaky zoo ({name})"), routes }).await
}
