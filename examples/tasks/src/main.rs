//! The binary: sets up the log, and serves the application until a signal stops it.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use control_plane::telemetry::{LogFormat, init_logging};
use tasks::Application;
use tasks::options::CommandOptions;
use tasks::serving::{ServedRoutes, serve_until_signal};

#[tokio::main]
async fn main() -> ExitCode {
    match serve(&CommandOptions::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without stderr there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: &CommandOptions) -> Result<()> {
    init_logging(LogFormat::for_stderr(), "warn").map_err(anyhow::Error::msg)?;
    let routes = |application: Application| Ok(application.routes());
    serve_until_signal(options, ServedRoutes { title: "Tasks".to_owned(), routes }).await
}
