//! `fleetctl restore`: restores a tenant, in place or as a new tenant.

use clap::{Args, Subcommand, ValueEnum};
use fleet_api::backups::BackupView;
use fleet_api::restores::{RestoreAsk, RestorePreview, RestoreRun, RestoreSchema, RestoreUndo};
use fleet_api::{field, pointer};

use crate::args::{ChangeArgs, ConfirmArgs, WaitArgs};
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::table::{TableColumn, TableView};
use crate::{input, operation};
use fleet_api::tenants::TenantView;
use fleet_client::{ApiRequest, path_segment};

const PREVIEW: TableView = TableView {
    name: pointer!(RestorePreview: backup, BackupView: id),
    columns: &[
        TableColumn::of_text("BACKUP", pointer!(RestorePreview: backup, BackupView: id)),
        TableColumn::of_time("TAKEN", pointer!(RestorePreview: backup, BackupView: taken_at)),
        TableColumn::of_text("VERSION", pointer!(RestorePreview: backup, BackupView: schema_version)),
        TableColumn::of_text("TENANT", pointer!(RestorePreview: current, TenantView: name)),
        TableColumn::of_text("VERSION NOW", pointer!(RestorePreview: current, TenantView: schema_version)),
        TableColumn::of_text("VERSION AFTER", pointer!(RestorePreview: schema_version)),
        TableColumn::of_text("PINNED", pointer!(RestorePreview: pinned)),
        TableColumn::of_text("WILL", pointer!(RestorePreview: will)),
        TableColumn::of_time("UNDO UNTIL", pointer!(RestorePreview: undo_until_at)),
    ],
};

/// The commands of restores.
#[derive(Debug, Subcommand)]
pub(crate) enum RestoreCommand {
    /// Restore a tenant from a backup
    Run(RestoreRunArgs),
    /// Show what a restore would do
    Preview {
        /// The tenant's name or id
        tenant: String,
        #[command(flatten)]
        point: RestorePointArgs,
        /// The schema that the tenant would get
        #[arg(long, value_enum, default_value = "backup")]
        schema: RestoreSchemaChoice,
    },
    /// Restore the database that the last restore replaced
    Undo(RestoreUndoArgs),
}

/// The schema that a restored tenant gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RestoreSchemaChoice {
    /// The backup's schema; a tenant with an older schema keeps it until a migration names the tenant
    Backup,
    /// The tenant's current schema: the backup's data is migrated to it
    Current,
}

impl RestoreSchemaChoice {
    /// The choice as the API expects it.
    fn to_api(self) -> RestoreSchema {
        match self {
            Self::Backup => RestoreSchema::Backup,
            Self::Current => RestoreSchema::Current,
        }
    }
}

/// The backup to restore.
#[derive(Debug, Args)]
pub(crate) struct RestorePointArgs {
    /// `latest`, the id of a backup, or a time (the newest backup at or before it)
    #[arg(long, value_name = "latest|TIME|BACKUP")]
    to: String,
}

impl RestorePointArgs {
    /// Checks the target before a request is sent, so that a typing error is reported at once.
    fn checked_target(&self) -> Result<&str> {
        let to = self.to.as_str();
        if to == "latest" || to.starts_with("bkp_") || to.parse::<jiff::Timestamp>().is_ok() {
            return Ok(to);
        }
        Err(CommandFailure::usage_error(format!("--to {to:?} must be latest, the id of a backup, or a time"))
            .try_next("--to latest, --to 2026-11-23T10:00:00Z, or an id of `fleetctl backup list`"))
    }
}

/// Flags of `restore run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl restore run acme --to latest --yes
  fleetctl restore run acme --to 2026-11-23T10:00:00Z --as acme-copy
  fleetctl restore run acme --to latest --schema current

The tenant gets the backup's schema. If it is older than the tenant's, the tenant is pinned: migrations of many tenants
skip it until `fleetctl migrate run DIR acme` names it, or --include-pinned is used.
In place, the tenant keeps its name, members and tokens; the replaced database is kept for `restore undo`.
With --as, a new tenant is created, without members or tokens.")]
pub(crate) struct RestoreRunArgs {
    /// The tenant's name or id
    tenant: String,
    #[command(flatten)]
    point: RestorePointArgs,
    /// Create a new tenant with this name instead of replacing the database
    #[arg(long = "as", value_name = "NAME")]
    new_name: Option<String>,
    /// The schema that the tenant gets
    #[arg(long, value_enum, default_value = "backup")]
    schema: RestoreSchemaChoice,
    #[command(flatten)]
    confirm: ConfirmArgs,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Flags of `restore undo`.
#[derive(Debug, Args)]
pub(crate) struct RestoreUndoArgs {
    /// The tenant's name or id
    tenant: String,
    #[command(flatten)]
    confirm: ConfirmArgs,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Runs `fleetctl restore …`.
pub(crate) async fn run_restore_command(verb: RestoreCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match verb {
        RestoreCommand::Run(args) => restore_tenant(args, context).await,
        RestoreCommand::Preview { tenant, point, schema } => {
            let ask = RestoreAsk { tenant, to: point.checked_target()?.to_owned(), schema: schema.to_api() };
            super::print_one(context, ApiRequest::post("/v1/restores/preview", &ask), &PREVIEW).await
        }
        RestoreCommand::Undo(args) => {
            input::check_expected_count(&args.confirm, std::slice::from_ref(&args.tenant))?;
            if !args.change.dry_run {
                input::confirm_tenants(
                    context,
                    &args.confirm,
                    "undo the last restore of",
                    std::slice::from_ref(&args.tenant),
                )?;
            }
            let undo = RestoreUndo { tenant: args.tenant, ..RestoreUndo::default() };
            let request = ApiRequest::post("/v1/restores/undo", &undo);
            operation::run_operation(context, request, &args.change, &args.wait).await
        }
    }
}

async fn restore_tenant(args: RestoreRunArgs, context: &mut CommandContext) -> Result<CommandExit> {
    input::check_expected_count(&args.confirm, std::slice::from_ref(&args.tenant))?;
    let run = RestoreRun {
        tenant: args.tenant.clone(),
        to: args.point.checked_target()?.to_owned(),
        as_name: args.new_name.clone(),
        schema: args.schema.to_api(),
        ..RestoreRun::default()
    };
    if args.new_name.is_none() && !args.change.dry_run {
        input::confirm_tenants(context, &args.confirm, "replace the database of", std::slice::from_ref(&args.tenant))?;
    }
    let exit =
        operation::run_operation(context, ApiRequest::post("/v1/restores", &run), &args.change, &args.wait).await?;
    if exit == CommandExit::Done && !args.change.dry_run && !args.wait.no_wait {
        report_pin(context, args.new_name.as_deref().unwrap_or(&args.tenant)).await?;
    }
    Ok(exit)
}

/// Prints that the tenant stays at its version, so that nobody expects the next migration to change it.
async fn report_pin(context: &mut CommandContext, name: &str) -> Result<()> {
    let client = context.api_client().await?;
    let tenant = client.send_for_json(&ApiRequest::get(format!("/v1/tenants/{}", path_segment(name)?))).await?;
    super::note_pin(context, &tenant[field!(TenantView: name)], &tenant[field!(TenantView: pin)]);
    if tenant[field!(TenantView: pin)].is_object() {
        context.out.print_note(&format!("try:   fleetctl migrate run DIR {name}      # when its data may be migrated"));
    }
    Ok(())
}
