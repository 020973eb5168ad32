//! Serves routes on an open fleet until a signal stops the process, and closes both in order.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::Application;
use crate::fleet_setup::OpenFleet;
use crate::options::CommandOptions;

/// How long running requests may take after the signal to stop.
const REQUESTS_END_MAX: Duration = Duration::from_secs(10);

/// What a process serves.
#[derive(Debug)]
pub struct ServedRoutes<F> {
    /// The name that the first line of output gives to the program.
    pub title: String,
    /// Makes the routes, when the fleet is open.
    pub routes: F,
}

/// Opens the fleet, prints the address and serves the routes until a signal stops the process.
///
/// # Errors
/// When the address or the fleet cannot be used.
pub async fn serve_until_signal<F>(options: &CommandOptions, served: ServedRoutes<F>) -> Result<()>
where
    F: FnOnce(Application) -> Result<axum::Router>,
{
    // Watched before the address is printed: a program that reads it may stop this one at once.
    let signals =
        StopSignals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let listen = options.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let fleet = OpenFleet::open(options).await?;
    let application = fleet.application();
    let router = application.router.clone();
    let routes = (served.routes)(application)?;
    writeln!(std::io::stdout(), "{} is at http://{}", served.title, listener.local_addr()?)?;
    let (stop, stopped) = watch::channel(());
    let serving = axum::serve(listener, routes).with_graceful_shutdown(async move {
        signals.wait().await;
        drop(stop);
        // A live connection would keep the server until its time to stop is over.
        router.end_subscriptions().await;
    });
    let result = tokio::select! {
        result = serving => result,
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
