//! `fleetctl serve`: both APIs on a data directory, until a signal comes.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use control_plane::App;
use control_plane::config::Role;
use control_plane::serve::{Options, PlainAdmin, Serving};
use control_plane::telemetry;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::context::Context;
use crate::embedded::Embedded;
use crate::error::{Exit, Failure, Result};
use crate::table::{Column, View};

const ENDPOINT: View = View {
    name: "/data_url",
    columns: &[
        Column::text("data", "/data_url"),
        Column::text("admin", "/admin_url"),
        Column::text("process", "/pid").wide(),
    ],
};

/// Where to listen.
#[derive(Debug, Default, Args)]
pub(crate) struct Listeners {
    /// The data API; port 0 is any free one [FLEET_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The admin API; port 0 is any free one [FLEET_ADMIN_LISTEN] [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
}

impl Listeners {
    pub(crate) fn given(&self) -> Vec<(&'static str, String)> {
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

SIGTERM or Ctrl-C: no new requests, what has begun is finished, then it ends. A second one ends at once.")]
pub(crate) struct Serve {
    #[command(flatten)]
    listeners: Listeners,
    /// `tenant.DOMAIN` names a tenant [FLEET_DOMAIN]
    #[arg(long)]
    domain: Option<String>,
    /// Certificate chain of both listeners, PEM [FLEET_TLS_CERTIFICATE]
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<String>,
    /// Its key, PEM [FLEET_TLS_KEY]
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Where backups go [FLEET_BACKUP_URL] [default: DATA_DIR/backups]
    #[arg(long, value_name = "URL")]
    backup_url: Option<String>,
    /// Tenants worked on at once [FLEET_CONCURRENCY] [default: 2 × cores, at least 8]
    #[arg(long, value_name = "N")]
    concurrency: Option<String>,
    /// Let the admin API listen beyond this machine without TLS: something in front of it encrypts
    #[arg(long)]
    allow_plain_admin: bool,
}

impl Serve {
    /// The flags that are settings.
    pub(crate) fn given(&self) -> Vec<(&'static str, String)> {
        let flags = [
            ("domain", &self.domain),
            ("tls_certificate", &self.tls_certificate),
            ("tls_key", &self.tls_key),
            ("backup_url", &self.backup_url),
            ("concurrency", &self.concurrency),
        ];
        let given = flags.into_iter().filter_map(|(key, value)| Some((key, value.clone()?)));
        given.chain(self.listeners.given()).collect()
    }
}

/// Runs `fleetctl serve`.
pub(crate) async fn run(args: &Serve, context: &mut Context) -> Result<Exit> {
    refuse_url(context, "serve")?;
    let config = context.settings.config(Role::Serving)?;
    log(context)?;
    free(&config.data_dir)?;
    let app = Embedded::open(config, &context.environment.actor()).await?.app();
    let mut options = Options::default();
    if args.allow_plain_admin {
        options.plain_admin = PlainAdmin::Anywhere;
    }
    let signals = Signals::watch()?;
    let serving = start(app, options).await?;
    print(context, &serving)?;
    signals.end(serving).await
}

/// The log goes to stderr, beside what this command says.
pub(crate) fn log(context: &Context) -> Result<()> {
    let filter = context.settings.get("log").unwrap_or("info");
    telemetry::init(telemetry::Format::for_stderr(), filter)
        .map_err(|why| Failure::usage(format!("log cannot be {filter:?}")).because(why))
}

/// Refuses a directory that is served already, before anything is opened. The lock itself is taken by [`start`].
pub(crate) fn free(data_dir: &Path) -> Result<()> {
    match control_plane::serve::running(data_dir)? {
        None => Ok(()),
        Some(endpoint) => Err(Failure::new(Exit::Conflict, "this data directory is served already")
            .because(format!("process {} answers at {}", endpoint.pid, endpoint.admin_url))
            .code("already_serving")
            .try_next("use the server that runs, or stop it first")),
    }
}

/// Begins to answer; what was opened is closed again when that fails.
pub(crate) async fn start(app: Arc<App>, options: Options) -> Result<Serving> {
    match control_plane::serve::start(Arc::clone(&app), options).await {
        Ok(serving) => Ok(serving),
        Err(error) => {
            // Long enough for loops that only have to notice, short enough for who waits for the error.
            app.shutdown(std::time::Duration::from_secs(1)).await;
            Err(error.into())
        }
    }
}

/// A server serves its own directory; an address of another one is a misunderstanding.
pub(crate) fn refuse_url(context: &Context, verb: &str) -> Result<()> {
    match context.settings.origin("url") {
        None => Ok(()),
        Some(origin) => Err(Failure::usage(format!("{verb} serves a data directory, but a url is set"))
            .because(format!("it was set by: {origin}"))
            .try_next("unset it, and name the directory with --data-dir")),
    }
}

/// Both addresses, at once: whoever started this waits for them.
fn print(context: &mut Context, serving: &Serving) -> Result<()> {
    let endpoint = serving.endpoint();
    let item = json!({"data_url": endpoint.data_url, "admin_url": endpoint.admin_url, "pid": endpoint.pid});
    context.out.facts(&ENDPOINT, &item)?;
    context.out.flush()
}

/// What ends a server. Watched from before its addresses are told: whoever reads them may stop it at once.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn watch() -> Result<Self> {
        let no_signals = |e: std::io::Error| Failure::new(Exit::Failed, "signals cannot be waited for").because(e);
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(no_signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(no_signals)?,
        })
    }

    /// Serves until SIGTERM or SIGINT, then ends in order; a second signal ends at once.
    pub(crate) async fn end(mut self, serving: Serving) -> Result<Exit> {
        self.next().await;
        tokio::select! {
            () = serving.stop() => Ok(Exit::Done),
            () = self.next() => Ok(Exit::Interrupted),
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
