//! `fleetctl serve`: serves both APIs of a data directory until a signal arrives.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use control_plane::config::ProcessRole;
use control_plane::serve::{PlainAdmin, RunningServer, ServeOptions};
use control_plane::telemetry;
use control_plane::{App, ErrorKind};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::context::CommandContext;
use crate::embedded::EmbeddedFleet;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::table::{TableColumn, TableView};

const ENDPOINT: TableView = TableView {
    name: "/data_url",
    columns: &[
        TableColumn::of_text("data", "/data_url"),
        TableColumn::of_text("admin", "/admin_url"),
        TableColumn::of_text("process", "/pid").only_wide(),
    ],
};

/// The addresses to listen on.
#[derive(Debug, Default, Args)]
pub(crate) struct ListenerArgs {
    /// The data API; port 0 is any free one [FLEET_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The admin API; port 0 is any free one [FLEET_ADMIN_LISTEN] [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
}

impl ListenerArgs {
    pub(crate) fn given_settings(&self) -> Vec<(&'static str, String)> {
        let flags = [("listen", &self.listen), ("admin_listen", &self.admin_listen)];
        flags.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect()
    }
}

/// Flags of `serve`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl serve
  fleetctl serve --listen 0.0.0.0:443 --tls-certificate chain.pem --tls-key key.pem --domain tenants.example.org
  fleetctl serve --backup-url s3://bucket/prefix

SIGTERM or Ctrl-C: refuses new requests, finishes running ones, then exits. A second signal exits at once.
SIGHUP: reads the certificate and its key again at once. Without it, changed files are noticed within seconds.
Commands on the same machine that use the data directory connect through a socket in it, with any certificate.")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    listeners: ListenerArgs,
    /// Path of the data API that names a tenant [FLEET_DATA_PATH] [default: /t/{tenant}]
    #[arg(long, value_name = "PATH")]
    data_path: Option<String>,
    /// `tenant.DOMAIN` names a tenant [FLEET_DOMAIN]
    #[arg(long)]
    domain: Option<String>,
    /// Certificate chain of both listeners, PEM [FLEET_TLS_CERTIFICATE]
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<String>,
    /// Private key of the certificate, PEM [FLEET_TLS_KEY]
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Backup store [FLEET_BACKUP_URL] [default: DATA_DIR/backups]
    #[arg(long, value_name = "URL")]
    backup_url: Option<String>,
    /// Maximum number of steps at once [FLEET_CONCURRENCY] [default: by the limit of open files, at most 128]
    #[arg(long, value_name = "N")]
    concurrency: Option<String>,
    /// Let other machines reach the admin API without TLS, because a proxy in front encrypts
    #[arg(long)]
    allow_plain_admin: bool,
}

impl ServeArgs {
    /// The flags that are settings, by their keys.
    pub(crate) fn given_settings(&self) -> Vec<(&'static str, String)> {
        let flags = [
            ("data_path", &self.data_path),
            ("domain", &self.domain),
            ("tls_certificate", &self.tls_certificate),
            ("tls_key", &self.tls_key),
            ("backup_url", &self.backup_url),
            ("concurrency", &self.concurrency),
        ];
        let given = flags.into_iter().filter_map(|(key, value)| Some((key, value.clone()?)));
        given.chain(self.listeners.given_settings()).collect()
    }
}

/// Runs `fleetctl serve`.
pub(crate) async fn run_serve_command(args: &ServeArgs, context: &mut CommandContext) -> Result<CommandExit> {
    refuse_url(context, "serve")?;
    let hangup = HangupSignal::watch_hangup()?;
    let config = context.settings.control_plane_config(ProcessRole::Serving)?;
    set_up_log(context)?;
    require_unserved(&config.data_dir)?;
    let app = EmbeddedFleet::open(config, &context.environment.actor_name()).await?.app();
    let mut options = ServeOptions::default();
    if args.allow_plain_admin {
        options.plain_admin = PlainAdmin::Anywhere;
    }
    let signals = ServerSignals::watch_signals(hangup)?;
    let serving = start_serving(app, options).await?;
    print_addresses(context, &serving)?;
    signals.serve_until_signal(serving).await
}

/// Sends the log to stderr, where this command's own messages go.
pub(crate) fn set_up_log(context: &CommandContext) -> Result<()> {
    let filter = context.settings.get("log").unwrap_or("info");
    telemetry::init_logging(telemetry::LogFormat::for_stderr(), filter)
        .map_err(|why| CommandFailure::usage_error(format!("log cannot be {filter:?}")).with_cause(why))
}

/// Refuses a directory that another process already serves, before anything is opened. [`start_serving`] takes the
/// actual lock.
pub(crate) fn require_unserved(data_dir: &Path) -> Result<()> {
    match control_plane::serve::find_running(data_dir)? {
        None => Ok(()),
        Some(endpoint) => Err(CommandFailure::new(CommandExit::Conflict, "this data directory is served already")
            .with_cause(format!("process {} answers at {}", endpoint.pid, endpoint.admin_url))
            .code(ErrorKind::AlreadyServing.code())
            .try_next("use the server that runs, or stop it first")),
    }
}

/// Starts serving. If that fails, closes the app again.
pub(crate) async fn start_serving(app: Arc<App>, options: ServeOptions) -> Result<RunningServer> {
    match control_plane::serve::start_server(Arc::clone(&app), options).await {
        Ok(serving) => Ok(serving),
        Err(error) => {
            // Long enough for loops to notice the shutdown, short enough for the user who waits for the error.
            app.shut_down(std::time::Duration::from_secs(1)).await;
            Err(error.into())
        }
    }
}

/// Refuses a configured url: `serve` uses its own directory, so an address of another server is a mistake.
pub(crate) fn refuse_url(context: &CommandContext, verb: &str) -> Result<()> {
    match context.settings.value_origin("url") {
        None => Ok(()),
        Some(origin) => Err(CommandFailure::usage_error(format!("{verb} serves a data directory, but a url is set"))
            .with_cause(format!("it was set by: {origin}"))
            .try_next("unset it, and name the directory with --data-dir")),
    }
}

/// Prints both addresses at once, because the program that started this waits for them.
fn print_addresses(context: &mut CommandContext, serving: &RunningServer) -> Result<()> {
    let endpoint = serving.server_endpoint();
    let item = json!({"data_url": endpoint.data_url, "admin_url": endpoint.admin_url, "pid": endpoint.pid});
    context.out.print_facts(&ENDPOINT, &item)?;
    context.out.flush_stdout()
}

/// SIGHUP, watched from the server's start, because it would otherwise end the process.
pub(crate) struct HangupSignal(Signal);

impl HangupSignal {
    pub(crate) fn watch_hangup() -> Result<Self> {
        watch_signal(SignalKind::hangup()).map(Self)
    }
}

/// The signals that end a server or make it reload. Watched before its addresses are printed: a program that reads them
/// may stop the server at once.
pub(crate) struct ServerSignals {
    hangup: HangupSignal,
    terminate: Signal,
    interrupt: Signal,
}

impl ServerSignals {
    pub(crate) fn watch_signals(hangup: HangupSignal) -> Result<Self> {
        let terminate = watch_signal(SignalKind::terminate())?;
        Ok(Self { hangup, terminate, interrupt: watch_signal(SignalKind::interrupt())? })
    }

    /// Serves until SIGTERM or SIGINT, then shuts down in order. A second signal ends the process at once.
    pub(crate) async fn serve_until_signal(mut self, serving: RunningServer) -> Result<CommandExit> {
        loop {
            tokio::select! {
                _ = self.hangup.0.recv() => serving.reload_certificate().await,
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
            }
        }
        tokio::select! {
            () = serving.stop_serving() => Ok(CommandExit::Done),
            _ = self.terminate.recv() => Ok(CommandExit::Interrupted),
            _ = self.interrupt.recv() => Ok(CommandExit::Interrupted),
        }
    }
}

fn watch_signal(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|e| CommandFailure::new(CommandExit::Failed, "cannot wait for signals").with_cause(e))
}
