//! The command line: every noun, and the flags they all take.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{
    backup, catalog, completions, config, dev, doctor, explain, history, init, man, member, migrate, op, query,
    release, restore, serve, server, status, tenant, token, version,
};
use crate::context::Context;
use crate::error::Exit;
use crate::error::{Failure, Result};
use crate::output::Format;
use crate::settings::Settings;

/// One database per tenant, and one command for all of them.
#[derive(Debug, Parser)]
#[command(
    name = "fleetctl",
    version,
    about = "One database per tenant, and one command for all of them",
    max_term_width = 120,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "First steps:
  fleetctl dev                                         # a fleet to play with, with its API
  fleetctl init && fleetctl tenant create acme         # a fleet to keep
  fleetctl migrate run ./migrations --all
  fleetctl backup run --all

Exit codes:
  0 done                  4 a check found something   8 fenced
  1 failed                5 not found                 12 not authorised
  2 usage, unconfirmed    6 timed out waiting         15 unreachable
  3 some tenants failed   7 conflict or locked        130 interrupted"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) flags: Flags,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command. Each but `--quiet` can also be set in the environment or in a file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Flags {
    /// A control plane's admin address; without it, the data directory [FLEET_URL]
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// A file that holds the token for --url; - is standard input [FLEET_TOKEN_FILE; or FLEET_TOKEN]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<String>,
    /// Certificates to trust for --url, beside the system's [FLEET_CA_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<String>,
    /// Where the fleet lives [FLEET_DATA_DIR] [default: ./fleet-data]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// A file that holds the address of a catalog on Postgres [FLEET_CATALOG_URL_FILE; or FLEET_CATALOG_URL]
    #[arg(long, global = true, value_name = "FILE")]
    catalog_url_file: Option<String>,
    /// How data is printed [FLEET_OUTPUT] [default: table]
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    /// Say nothing on success (data only with -o)
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Wait this long for another run that is in the way [FLEET_LOCK_WAIT] [default: 0]
    #[arg(long, global = true, value_name = "DURATION")]
    lock_wait: Option<String>,
    /// Call URL/start before and URL/<exit code> after [FLEET_PING_URL]
    #[arg(long, global = true, value_name = "URL")]
    ping_url: Option<String>,
}

impl Flags {
    /// What was given, by the settings' keys.
    pub(crate) fn given(&self) -> Vec<(&'static str, String)> {
        let output = self.output.and_then(|f| f.to_possible_value()).map(|v| v.get_name().to_owned());
        let flags = [
            ("url", &self.url),
            ("token_file", &self.token_file),
            ("ca_file", &self.ca_file),
            ("data_dir", &self.data_dir),
            ("catalog_url_file", &self.catalog_url_file),
            ("output", &output),
            ("lock_wait", &self.lock_wait),
            ("ping_url", &self.ping_url),
        ];
        flags.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect()
    }

    /// The format in force.
    pub(crate) fn format(&self, settings: &Settings) -> Result<Format> {
        let format = settings.parse("output", |text| Format::from_str(text, false))?;
        format.ok_or_else(|| Failure::usage("there is no output format"))
    }
}

/// Every noun.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a fleet to play with: two tenants, both APIs, lines to paste
    Dev(dev::Dev),
    /// Make a new fleet in the data directory
    Init(init::Init),
    /// Serve the data directory: tenants' requests and the admin API
    Serve(serve::Serve),
    /// Show the fleet in a few lines
    Status,
    /// Check the control plane's own surroundings
    Doctor(doctor::Doctor),
    /// Compare the servers with the catalog; put aside what nobody owns
    Scrub(crate::commands::scrub::Scrub),
    /// Tenants: create, list, get, label, protect, delete
    #[command(subcommand)]
    Tenant(tenant::Verb),
    /// Places databases live: add, list, get, cordon, uncordon, remove
    #[command(subcommand)]
    Server(server::Verb),
    /// Who may do what in a tenant: add, list, remove
    #[command(subcommand)]
    Member(member::Verb),
    /// Secrets that open tenants or the admin API: create, list, revoke
    #[command(subcommand)]
    Token(token::Verb),
    /// Migration sets the fleet knows: list, get, add, activate
    #[command(subcommand)]
    Release(release::Verb),
    /// Schema changes across tenants: plan, run, status, retry
    #[command(subcommand)]
    Migrate(migrate::Verb),
    /// Copies at rest: run, list, get, verify
    #[command(subcommand)]
    Backup(backup::Verb),
    /// Bring a tenant back: run, preview, undo
    #[command(subcommand)]
    Restore(restore::Verb),
    /// Pieces of fleet work: list, get, wait, events, retry, cancel, pause, resume, abandon
    #[command(subcommand)]
    Op(op::Verb),
    /// How long ended operations and events are kept: show, keep
    #[command(subcommand)]
    History(history::Verb),
    /// Where the fleet is written down: check, copy to Postgres
    #[command(subcommand)]
    Catalog(catalog::Verb),
    /// Run one read-only statement in many tenants
    Query(query::Query),
    /// Say what an error code means and what helps
    Explain(explain::Explain),
    /// Settings in force
    #[command(subcommand)]
    Config(config::Verb),
    /// Print a script that completes commands
    Completions(completions::Completions),
    /// Print the manual, or write its pages
    Man(man::Man),
    /// Show which program this is
    Version,
}

impl Command {
    /// Whether the command sets up its log itself; the others log only when asked to.
    pub(crate) fn logs(&self) -> bool {
        matches!(self, Self::Dev(_) | Self::Serve(_))
    }

    /// Flags of this command that are settings, by their keys.
    pub(crate) fn given(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Dev(args) => args.listeners.given(),
            Self::Serve(args) => args.given(),
            _ => Vec::new(),
        }
    }
}

/// Runs one command.
pub(crate) async fn dispatch(command: Command, context: &mut Context) -> Result<Exit> {
    match command {
        Command::Dev(args) => dev::run(&args, context).await,
        Command::Init(args) => init::run(&args, context).await,
        Command::Serve(args) => serve::run(&args, context).await,
        Command::Status => status::run(context).await,
        Command::Doctor(args) => doctor::run(&args, context).await,
        Command::Scrub(args) => crate::commands::scrub::run(args, context).await,
        Command::Tenant(verb) => tenant::run(verb, context).await,
        Command::Server(verb) => server::run(verb, context).await,
        Command::Member(verb) => member::run(verb, context).await,
        Command::Token(verb) => token::run(verb, context).await,
        Command::Release(verb) => release::run(verb, context).await,
        Command::Migrate(verb) => migrate::run(verb, context).await,
        Command::Backup(verb) => backup::run(verb, context).await,
        Command::Restore(verb) => restore::run(verb, context).await,
        Command::Op(verb) => op::run(verb, context).await,
        Command::History(verb) => history::run(verb, context).await,
        Command::Catalog(verb) => catalog::run(&verb, context).await,
        Command::Query(args) => query::run(args, context).await,
        Command::Explain(args) => explain::run(&args, context),
        Command::Config(verb) => config::run(&verb, context),
        Command::Completions(args) => completions::run(&args, context),
        Command::Man(args) => man::run(&args, context),
        Command::Version => version::run(context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        fn look(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            command.get_subcommands().for_each(look);
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {} has no help", command.get_name(), arg.get_id());
            }
        }
        look(&Cli::command());
    }
}
