//! `fleetctl doctor`: checks of disk, limits, servers and backups.

use clap::Args;
use fleet_api::doctor::{DoctorCheck, DoctorReport};
use fleet_api::{field, pointer};
use fleet_client::ApiRequest;
use serde_json::{Value, json};

use crate::context::CommandContext;
use crate::error::{CommandExit, Result};
use crate::output::OutputFormat;
use crate::table::{TableColumn, TableView};

const CHECK: TableView = TableView {
    name: pointer!(DoctorCheck: name),
    columns: &[
        TableColumn::of_text("STATUS", pointer!(DoctorCheck: status)),
        TableColumn::of_text("CHECK", pointer!(DoctorCheck: name)),
        TableColumn::of_text("DETAIL", pointer!(DoctorCheck: detail)),
        TableColumn::of_text("TRY", pointer!(DoctorCheck: next_step)),
    ],
};

/// Flags of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl doctor
  fleetctl doctor --backup-age-hours 170      # backups are weekly")]
pub(crate) struct DoctorArgs {
    /// Fail for tenants whose newest backup is older than this
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..), default_value_t = 26)]
    backup_age_hours: u32,
}

/// Runs `fleetctl doctor`. Exits 4 when a check fails or could not run; warnings are only shown.
pub(crate) async fn run_doctor_command(args: &DoctorArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let client = context.api_client().await?;
    let answer = client
        .send_for_json(&ApiRequest::get(format!("/v1/doctor?backup_age_hours={}", args.backup_age_hours)))
        .await?;
    let checks = answer[field!(DoctorReport: checks)].as_array().cloned().unwrap_or_default();
    let failed = checks
        .iter()
        .any(|c| c[field!(DoctorCheck: status)] == json!("fail") || c[field!(DoctorCheck: status)] == json!("unknown"));
    // Success is silent and failure is printed, so that cron mails only failures.
    context.out.silent &= !failed;
    print_checks(context, &answer, &checks)?;
    Ok(if failed { CommandExit::Found } else { CommandExit::Done })
}

fn print_checks(context: &mut CommandContext, answer: &Value, checks: &[Value]) -> Result<()> {
    if context.out.format == OutputFormat::Json {
        return context.out.print_json(&format!("{answer:#}\n"));
    }
    let mut list = context.out.begin_findings(&CHECK)?;
    list.print_page(checks)?;
    list.finish_list()
}
