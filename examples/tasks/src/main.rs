//! The binary: opens the fleet, serves the application, and closes both in order.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use control_plane::telemetry::{LogFormat, init_logging};
use tasks::fleet_setup::OpenFleet;
use tasks::options::CommandOptions;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// How long running requests may take after the signal to stop.
const REQUESTS_END_MAX: Duration = Duration::from_secs(10);

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
    // Watched before the address is printed: a program that reads it may stop this one at once.
    let signals =
        StopSignals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let listen = options.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let fleet = OpenFleet::open(options).await?;
    writeln!(std::io::stdout(), "Tasks is at http://{}", listener.local_addr()?)?;
    let (stop, stopped) = watch::channel(());
    let application = fleet.application();
    let router = application.router.clone();
    let served = axum::serve(listener, application.routes()).with_graceful_shutdown(async move {
        signals.wait().await;
        drop(stop);
        // A live connection would keep the server until its time to stop is over.
        router.end_subscriptions().await;
    });
    let result = tokio::select! {
        result = served => result,
        () = give_up(stopped) => Ok(()),
    };
    fleet.close().await;
    Ok(result?)
}

/// Returns some time after the signal to stop: a connection that sends nothing must not keep the process.
async fn give_up(mut stopped: watch::Receiver<()>) {
    // The sender is dropped at the signal.
    let _ = stopped.changed().await;
    tokio::time::sleep(REQUESTS_END_MAX).await;
}

/// The signals that stop the process in order.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    async fn wait(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
