//! The command line: all nouns, and the flags of every command.

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::commands::{
    audit, backup, catalog, completions, config, dev, doctor, events, explain, history, init, job, leaktest, man,
    member, migrate, op, plan, query, release, restore, serve, server, status, tenant, token, version, webhook,
};
use crate::context::CommandContext;
use crate::error::CommandExit;
use crate::error::{CommandFailure, Result};
use crate::output::OutputFormat;
use crate::settings::CommandSettings;

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
  fleetctl dev                                         # an example fleet with its API
  fleetctl init && fleetctl tenant create acme         # a real fleet
  fleetctl migrate run ./migrations --all
  fleetctl backup run --all

Exit codes:
  0 done                  4 a check found something   8 fenced
  1 failed                5 not found                 12 not authorised
  2 usage, unconfirmed    6 timed out waiting         15 unreachable
  3 some tenants failed   7 conflict or locked        130 interrupted"
)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub(crate) flags: GlobalFlags,
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

impl CommandLine {
    /// Gives a command the flags that mean something else there: `leaktest --url` is the address of an application.
    pub(crate) fn settle_flags(mut self) -> Self {
        if let CliCommand::Leaktest(args) = &mut self.command {
            args.application = self.flags.url.take();
        }
        self
    }
}

/// Flags of every command. Each but `--quiet` can also be set in the environment or in a file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct GlobalFlags {
    /// Admin address of a control plane; without it, work on the data directory [FLEET_URL]
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// File that holds the token for --url; - is standard input [FLEET_TOKEN_FILE; or FLEET_TOKEN]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<String>,
    /// Certificates to trust for --url, in addition to the system's [FLEET_CA_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<String>,
    /// Directory of the catalog, keys and SQLite tenants [FLEET_DATA_DIR] [default: ./fleet-data]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// File that holds the address of a catalog on Postgres [FLEET_CATALOG_URL_FILE; or FLEET_CATALOG_URL]
    #[arg(long, global = true, value_name = "FILE")]
    catalog_url_file: Option<String>,
    /// Output format [FLEET_OUTPUT] [default: table]
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<OutputFormat>,
    /// Print nothing on success, unless -o is given
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// How long to wait for another run that excludes this one [FLEET_LOCK_WAIT] [default: 0]
    #[arg(long, global = true, value_name = "DURATION")]
    lock_wait: Option<String>,
    /// Call URL/start before and URL/<exit code> after [FLEET_PING_URL]
    #[arg(long, global = true, value_name = "URL")]
    ping_url: Option<String>,
}

impl GlobalFlags {
    /// The flags that were given, by the settings' keys.
    pub(crate) fn given_settings(&self) -> Vec<(&'static str, String)> {
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

    /// The effective output format.
    pub(crate) fn output_format(&self, settings: &CommandSettings, command: &CliCommand) -> Result<OutputFormat> {
        let format = settings.parse_value("output", |text| OutputFormat::from_str(text, false))?;
        let format = format.ok_or_else(|| CommandFailure::usage_error("there is no output format"))?;
        match format == OutputFormat::Junit && !matches!(command, CliCommand::Leaktest(_)) {
            true => Err(CommandFailure::usage_error("only the report of `fleetctl leaktest` has the format junit")),
            false => Ok(format),
        }
    }
}

/// All nouns of the command line.
#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Start an example fleet: two tenants, both APIs, commands to paste
    Dev(dev::DevArgs),
    /// Create a fleet in the data directory
    Init(init::InitArgs),
    /// Serve the data directory: tenants' requests and the admin API
    Serve(serve::ServeArgs),
    /// Show the fleet in a few lines
    Status,
    /// Check disk, limits, servers and backups
    Doctor(doctor::DoctorArgs),
    /// Check what keeps tenants apart, with evidence for each line
    Audit(audit::AuditArgs),
    /// Compare the servers with the catalog; quarantine databases without an owner
    Scrub(crate::commands::scrub::ScrubArgs),
    /// Tenants: create, list, get, describe, suspend, move, archive, delete, repair and more
    #[command(subcommand, alias = "tenants")]
    Tenant(tenant::TenantCommand),
    /// Limits that tenants share: add, set, list, get, remove
    #[command(subcommand, alias = "plans")]
    Plan(plan::PlanCommand),
    /// Servers that hold the databases: add, list, get, set, prepare, cordon, drain, remove
    #[command(subcommand, alias = "servers")]
    Server(server::ServerCommand),
    /// Members of a tenant and their roles: add, list, remove
    #[command(subcommand, alias = "members")]
    Member(member::MemberCommand),
    /// Tokens for tenants or the admin API: create, list, revoke
    #[command(subcommand, alias = "tokens")]
    Token(token::TokenCommand),
    /// Migration sets in the catalog: list, get, add, activate
    #[command(subcommand, alias = "releases")]
    Release(release::ReleaseCommand),
    /// Schema changes across tenants: plan, run, status, retry
    #[command(subcommand, alias = "migrations")]
    Migrate(migrate::MigrateCommand),
    /// Backups of tenants: run, list, get, verify
    #[command(subcommand, alias = "backups")]
    Backup(backup::BackupCommand),
    /// Restore a tenant from a backup: run, preview, undo
    #[command(subcommand, alias = "restores")]
    Restore(restore::RestoreCommand),
    /// Operations on the fleet: list, get, wait, events, retry, cancel, pause, resume, abandon
    #[command(subcommand, aliases = ["ops", "operation", "operations"])]
    Op(op::OpCommand),
    /// Background jobs of tenants: list, retry and drop them
    #[command(subcommand, alias = "jobs")]
    Job(job::JobCommand),
    /// Read the audit log: who changed what, newest first
    #[command(alias = "event")]
    Events(events::EventsArgs),
    /// Send the fleet's events to other systems: add, list, test, log, pause, resume, remove
    #[command(subcommand, alias = "webhooks")]
    Webhook(webhook::WebhookCommand),
    /// How long ended operations and events are kept: show, keep
    #[command(subcommand)]
    History(history::HistoryCommand),
    /// The database of the fleet's own records: check, copy to Postgres
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
    /// Run one read-only statement in many tenants
    Query(query::QueryArgs),
    /// Look for data of one tenant in an application's answers for another
    Leaktest(leaktest::LeakTestArgs),
    /// Explain an error code, and what to do
    Explain(explain::ExplainArgs),
    /// Show the effective settings
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print a script that completes commands
    Completions(completions::CompletionsArgs),
    /// Print the manual, or write its pages
    Man(man::ManArgs),
    /// Show the program's version
    Version,
}

impl CliCommand {
    /// True when the command sets up its log itself; other commands log only on request.
    pub(crate) fn sets_up_log(&self) -> bool {
        matches!(self, Self::Dev(_) | Self::Serve(_))
    }

    /// The flags of this command that are settings, by their keys.
    pub(crate) fn given_settings(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Dev(args) => args.listeners.given_settings(),
            Self::Serve(args) => args.given_settings(),
            Self::Leaktest(args) => args.given_settings(),
            _ => Vec::new(),
        }
    }
}

/// Commands with this verb, for a user who omitted the noun: `fleetctl list`.
pub(crate) fn commands_with_verb(verb: &str) -> Vec<String> {
    let cli = CommandLine::command();
    let nouns = cli.get_subcommands().filter(|noun| noun.get_subcommands().any(|sub| sub.get_name() == verb));
    nouns.map(|noun| format!("fleetctl {} {verb}", noun.get_name())).collect()
}

/// Runs one command.
pub(crate) async fn dispatch_command(command: CliCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match command {
        CliCommand::Dev(args) => dev::run_dev_command(&args, context).await,
        CliCommand::Init(args) => init::run_init_command(&args, context).await,
        CliCommand::Serve(args) => serve::run_serve_command(&args, context).await,
        CliCommand::Status => status::run_status_command(context).await,
        CliCommand::Doctor(args) => doctor::run_doctor_command(&args, context).await,
        CliCommand::Audit(args) => audit::run_audit_command(&args, context).await,
        CliCommand::Scrub(args) => crate::commands::scrub::run_scrub_command(args, context).await,
        CliCommand::Tenant(verb) => tenant::run_tenant_command(verb, context).await,
        CliCommand::Plan(verb) => plan::run_plan_command(verb, context).await,
        CliCommand::Server(verb) => server::run_server_command(verb, context).await,
        CliCommand::Member(verb) => member::run_member_command(verb, context).await,
        CliCommand::Token(verb) => token::run_token_command(verb, context).await,
        CliCommand::Release(verb) => release::run_release_command(verb, context).await,
        CliCommand::Migrate(verb) => migrate::run_migrate_command(verb, context).await,
        CliCommand::Backup(verb) => backup::run_backup_command(verb, context).await,
        CliCommand::Restore(verb) => restore::run_restore_command(verb, context).await,
        CliCommand::Op(verb) => op::run_op_command(verb, context).await,
        CliCommand::Job(verb) => job::run_job_command(verb, context).await,
        CliCommand::Events(args) => events::run_events_command(args, context).await,
        CliCommand::Webhook(verb) => webhook::run_webhook_command(verb, context).await,
        CliCommand::History(verb) => history::run_history_command(verb, context).await,
        CliCommand::Catalog(verb) => catalog::run_catalog_command(&verb, context).await,
        CliCommand::Query(args) => query::run_query_command(args, context).await,
        CliCommand::Leaktest(args) => leaktest::run_leaktest_command(args, context).await,
        CliCommand::Explain(args) => explain::run_explain_command(&args, context),
        CliCommand::Config(verb) => config::run_config_command(&verb, context),
        CliCommand::Completions(args) => completions::run_completions_command(&args, context),
        CliCommand::Man(args) => man::run_man_command(&args, context),
        CliCommand::Version => version::run_version_command(context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    /// Scripts of the version before keep working for one minor version.
    #[test]
    fn old_spellings_of_a_repair_mean_the_present_ones() {
        let parsed = |line: &str| format!("{:?}", CommandLine::try_parse_from(line.split(' ')).unwrap().command);
        for (old, present) in [
            ("fleetctl tenant settle acme", "fleetctl tenant repair acme"),
            ("fleetctl tenant settle acme --back", "fleetctl tenant repair acme --use-current"),
            ("fleetctl tenant settle --all --newest", "fleetctl tenant repair --all --find-latest"),
        ] {
            assert_eq!(parsed(old), parsed(present));
        }
        assert_ne!(parsed("fleetctl tenant repair acme --use-current"), parsed("fleetctl tenant repair acme"));
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
        look(&CommandLine::command());
    }
}
