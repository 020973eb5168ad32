//! `fleetctl leaktest`: looks for data of one tenant in an application's answers for another.

use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use clap::Args;
use fleet_client::ApiRequest;
use leak_kit::fleet::{FleetAdmin, FleetDatabases, FleetTenants};
use leak_kit::{
    HttpApplication, KitError, LeakReport, LeakTest, LeakTestSettings, ReportFormat, RouteExceptions, WatchedOutput,
    World,
};
use serde_json::Value;
use tenant_router::Fleet;

use crate::client::ApiClient;
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::output::OutputFormat;

/// The file that is read when no other is named, if it exists.
const SETTINGS_FILE: &str = "leaktest.toml";
/// The usual path of an application's OpenAPI document.
const DOCUMENT_PATH: &str = "/openapi.json";

/// Flags of `leaktest`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl leaktest --url http://127.0.0.1:3000                       # two new tenants of the fleet
  fleetctl leaktest --url http://127.0.0.1:3000 --config leaktest.toml -o junit

Without tenants in leaktest.toml, the command creates two tenants in the fleet of --data-dir or
--admin-url, and purges them at the end. Never test an application with real data: the test writes
through every route.

Exit codes: 0 nothing was found, 4 there are findings, routes that are not covered, or a probe that
could not look. -o text, json or junit chooses the report.")]
pub(crate) struct LeakTestArgs {
    /// The application's address, from --url
    #[arg(skip)]
    pub(crate) application: Option<String>,
    /// Admin address of the fleet's control plane, because --url is the application here
    #[arg(long, value_name = "URL")]
    admin_url: Option<String>,
    /// Database server for the two new tenants [default: the control plane chooses]
    #[arg(long, value_name = "SERVER")]
    server: Option<String>,
    /// Description of the application [default: ./leaktest.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// OpenAPI document: a path of the application, or a file [default: /openapi.json]
    #[arg(long, value_name = "PATH|FILE")]
    openapi: Option<String>,
    /// List of routes that are left out, one per line
    #[arg(long, value_name = "FILE")]
    exceptions: Option<PathBuf>,
    /// Log or directory of the application that must contain no data of tenants; may be repeated
    #[arg(long = "watch", value_name = "PATH")]
    watched: Vec<PathBuf>,
    /// Run only this probe; may be repeated
    #[arg(long = "probe", value_name = "NAME")]
    probes: Vec<String>,
}

impl LeakTestArgs {
    /// The flags that are settings, by their keys.
    pub(crate) fn given_settings(&self) -> Vec<(&'static str, String)> {
        self.admin_url.iter().map(|url| ("url", url.clone())).collect()
    }
}

/// Runs `fleetctl leaktest`.
pub(crate) async fn run_leaktest_command(args: LeakTestArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let format = report_format(context.out.format)?;
    let settings = read_settings(&args, context)?;
    let url = args.application.as_deref().ok_or_else(|| {
        CommandFailure::usage_error("no application is named").try_next("fleetctl leaktest --url http://127.0.0.1:3000")
    })?;
    let application = Arc::new(HttpApplication::new(url).map_err(kit_failure)?);
    let document = read_document(&args, &settings, &application, context).await?;
    let inventory = settings.inventory(&document).map_err(kit_failure)?;
    let mut new_tenants = None;
    let world = match settings.tenants().map_err(kit_failure)? {
        Some((first, second)) => World::new(first, second),
        None => new_tenants.insert(create_tenants(args.server.as_deref(), context).await?).world(),
    };
    let world = world.naming(settings.naming().map_err(kit_failure)?);
    let test = LeakTest::new(application, inventory, world);
    let result = run_test(test, &settings, &args, new_tenants.as_ref(), context).await;
    if let Some(tenants) = &new_tenants {
        let removed = tenants.remove().await.map_err(kit_failure);
        // The report counts more than what is left behind.
        if let (Ok(_), Err(failure)) = (&result, removed) {
            context.out.print_failure(&failure);
        }
    }
    let report = result?;
    context.out.print_text(&report.render(format))?;
    Ok(if report.is_clean() { CommandExit::Done } else { CommandExit::Found })
}

async fn run_test(
    test: LeakTest,
    settings: &LeakTestSettings,
    args: &LeakTestArgs,
    tenants: Option<&FleetTenants>,
    context: &CommandContext,
) -> Result<LeakReport> {
    let mut test = settings.apply(test).map_err(kit_failure)?;
    if let Some(file) = &args.exceptions {
        let text = read_text(&context.absolute_path(file))?;
        test = test.exceptions(RouteExceptions::parse(&text).map_err(kit_failure)?);
    }
    for path in &args.watched {
        test = test.output(WatchedOutput::at_path(context.absolute_path(path)));
    }
    if let Some(tenants) = tenants {
        test = test.fleet(Arc::new(tenants.changes()));
        for provider in settings.providers() {
            let accounts = tenants.link_accounts(provider).await.map_err(kit_failure)?;
            test = settings.apply_accounts(test, provider, &accounts).map_err(kit_failure)?;
        }
        if args.admin_url.is_none() {
            let router = open_fleet(context).await?;
            test = test.databases(Arc::new(FleetDatabases::new(router, "/t/", tenants.credentials())));
        }
    }
    let test = test.only(args.probes.iter().cloned()).map_err(kit_failure)?;
    test.run().await.map_err(kit_failure)
}

/// The router of the fleet, for rows that the test plants in the databases.
async fn open_fleet(context: &CommandContext) -> Result<tenant_router::Router> {
    let mut fleet = Fleet::in_directory(context.settings.data_dir());
    if let Some(url) = context.settings.catalog_url()? {
        fleet = fleet.catalog_url(url);
    }
    let unusable = |error: tenant_router::Error| {
        CommandFailure::new(CommandExit::Failed, "cannot open the fleet's databases").with_cause(error)
    };
    fleet.router().await.map_err(unusable)?.build().await.map_err(unusable)
}

async fn create_tenants(server: Option<&str>, context: &mut CommandContext) -> Result<FleetTenants> {
    let admin = Arc::new(AdminApi { client: context.api_client().await? });
    let label = format!("{:08x}", RandomState::new().hash_one(0) as u32);
    FleetTenants::create(admin, &label, server).await.map_err(kit_failure)
}

/// The admin API, over HTTP or inside this process.
struct AdminApi {
    client: ApiClient,
}

#[async_trait]
impl FleetAdmin for AdminApi {
    async fn call(&self, request: &ApiRequest) -> leak_kit::Result<Value> {
        let answer = self.client.send_for_json(request).await;
        answer.map_err(|failure| KitError::new("fleet_change_failed", failure.what))
    }
}

fn report_format(format: OutputFormat) -> Result<ReportFormat> {
    match format {
        OutputFormat::Table | OutputFormat::Wide => Ok(ReportFormat::Text),
        OutputFormat::Json => Ok(ReportFormat::Json),
        OutputFormat::Junit => Ok(ReportFormat::Junit),
        OutputFormat::Jsonl | OutputFormat::Csv | OutputFormat::Name => {
            Err(CommandFailure::usage_error("the report has the formats text, json and junit"))
        }
    }
}

fn read_settings(args: &LeakTestArgs, context: &CommandContext) -> Result<LeakTestSettings> {
    let default = context.absolute_path(Path::new(SETTINGS_FILE));
    let file = args.config.as_ref().map(|file| context.absolute_path(file));
    let Some(file) = file.or_else(|| default.exists().then_some(default)) else {
        return Ok(LeakTestSettings::default());
    };
    let directory = file.parent().unwrap_or(Path::new("."));
    LeakTestSettings::parse(&read_text(&file)?, directory).map_err(kit_failure)
}

fn read_text(file: &Path) -> Result<String> {
    std::fs::read_to_string(file)
        .map_err(|error| CommandFailure::usage_error(format!("cannot read {}", file.display())).with_cause(error))
}

/// The OpenAPI document: from the application, or from a file.
async fn read_document(
    args: &LeakTestArgs,
    settings: &LeakTestSettings,
    application: &HttpApplication,
    context: &CommandContext,
) -> Result<String> {
    if let Some(file) = args.openapi.as_deref().filter(|place| !is_path_of_application(place, context)) {
        return read_text(&context.absolute_path(Path::new(file)));
    }
    let place = args.openapi.as_deref().or(settings.openapi.as_deref()).unwrap_or(DOCUMENT_PATH);
    if !place.starts_with('/') {
        return settings.read_file(Path::new(place)).map_err(kit_failure);
    }
    application.fetch_document(place).await.map_err(kit_failure)
}

/// An absolute path of an existing file is the file.
fn is_path_of_application(place: &str, context: &CommandContext) -> bool {
    place.starts_with('/') && !context.absolute_path(Path::new(place)).is_file()
}

fn kit_failure(error: KitError) -> CommandFailure {
    let exit = match error.code() {
        "application_unreachable" => CommandExit::Unreachable,
        "control_failed" => CommandExit::Found,
        "fleet_change_failed" | "planting_failed" | "fingerprint_failed" | "answer_too_large" => CommandExit::Failed,
        _ => CommandExit::Usage,
    };
    CommandFailure::new(exit, error.to_string()).code(error.code())
}
