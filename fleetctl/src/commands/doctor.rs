//! `fleetctl doctor`: checks of the control plane's own surroundings.

use clap::Args;
use serde_json::{Value, json};

use crate::client::Request;
use crate::context::Context;
use crate::error::{Exit, Result};
use crate::output::Format;
use crate::table::{Column, View};

const CHECK: View = View {
    name: "/name",
    columns: &[
        Column::text("STATUS", "/status"),
        Column::text("CHECK", "/name"),
        Column::text("DETAIL", "/detail"),
        Column::text("TRY", "/next_step"),
    ],
};

/// Flags of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl doctor
  fleetctl doctor --backup-age-hours 170      # backups are weekly")]
pub(crate) struct Doctor {
    /// Fail for tenants whose newest backup is older than this
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..), default_value_t = 26)]
    backup_age_hours: u32,
}

/// Runs `fleetctl doctor`: exit 4 when a check fails or could not look; warnings are only shown.
pub(crate) async fn run(args: &Doctor, context: &mut Context) -> Result<Exit> {
    let client = context.client().await?;
    let answer = client.json(&Request::get(format!("/v1/doctor?backup_age_hours={}", args.backup_age_hours))).await?;
    let checks = answer["checks"].as_array().cloned().unwrap_or_default();
    let failed = checks.iter().any(|c| c["status"] == json!("fail") || c["status"] == json!("unknown"));
    // A silent success, a loud failure: what cron should mail.
    context.out.silent &= !failed;
    print(context, &answer, &checks)?;
    Ok(if failed { Exit::Found } else { Exit::Done })
}

fn print(context: &mut Context, answer: &Value, checks: &[Value]) -> Result<()> {
    if context.out.format == Format::Json {
        return context.out.json(&format!("{answer:#}\n"));
    }
    let mut list = context.out.list(&CHECK)?;
    list.page(checks)?;
    list.finish()
}
