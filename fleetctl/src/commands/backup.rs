//! `fleetctl backup`: creates and verifies backups.

use clap::{Args, Subcommand};
use fleet_api::backups::{BackupRun, BackupVerify, BackupView};
use fleet_api::pointer;
use fleet_client::{ApiRequest, path_segment};

use super::{print_one, print_pages};
use crate::args::{ChangeArgs, SelectionArgs, WaitArgs, WhenEmpty, in_range, is_open_ended};
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::run_lock;
use crate::table::{TableColumn, TableView};

/// How backups are listed.
pub(crate) const BACKUP: TableView = TableView {
    name: pointer!(BackupView: id),
    columns: &[
        TableColumn::of_text("ID", pointer!(BackupView: id)),
        TableColumn::of_text("TENANT", pointer!(BackupView: tenant)).may_cut(),
        TableColumn::of_time("TAKEN", pointer!(BackupView: taken_at)),
        TableColumn::of_bytes("SIZE", pointer!(BackupView: size_bytes)),
        TableColumn::of_text("WRONG", pointer!(BackupView: verify_error)).may_cut(),
        TableColumn::of_time("VERIFIED", pointer!(BackupView: verified_at)),
        TableColumn::of_text("VERSION", pointer!(BackupView: schema_version)),
        TableColumn::of_bytes("STORED", pointer!(BackupView: stored_bytes)),
        TableColumn::of_text("REASON", pointer!(BackupView: reason)).may_cut(),
        TableColumn::of_text("TENANT ID", pointer!(BackupView: tenant_id)).only_wide(),
        TableColumn::of_text("OBJECT", pointer!(BackupView: object_key)).only_wide(),
        TableColumn::of_text("HASH", pointer!(BackupView: content_hash)).only_wide(),
    ],
};

/// Commands of backups.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Back up tenants
    Run(BackupRunArgs),
    /// List backups, newest first
    List {
        /// Only of this tenant
        tenant: Option<String>,
    },
    /// Show one backup with its manifest
    Get {
        /// The backup's id (`bkp_…`)
        backup: String,
    },
    /// Read backups from the store and verify them
    Verify(BackupVerifyArgs),
}

/// Flags of `backup run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl backup run --all
  fleetctl backup run acme --reason 'before the import'
  fleetctl backup run --all --quiet --lock-wait 10m --ping-url https://ping.example.org/abc      # cron")]
pub(crate) struct BackupRunArgs {
    /// Tenants by name or id
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Maximum number of tenants at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Flags of `backup verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl backup verify --all                 # the newest backup of every tenant
  fleetctl backup verify bkp_0190…")]
pub(crate) struct BackupVerifyArgs {
    /// Backups by id, or tenants by name
    #[arg(value_name = "BACKUP|TENANT")]
    words: Vec<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Runs `fleetctl backup …`.
pub(crate) async fn run_backup_command(verb: BackupCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match verb {
        BackupCommand::Run(args) => back_up_tenants(args, context).await,
        BackupCommand::List { tenant } => {
            let mut request = ApiRequest::get("/v1/backups");
            if let Some(tenant) = tenant {
                request = request.with_query("tenant", &tenant);
            }
            print_pages(context, request, &BACKUP).await
        }
        BackupCommand::Get { backup } => {
            print_one(context, ApiRequest::get(format!("/v1/backups/{}", path_segment(&backup)?)), &BACKUP).await
        }
        BackupCommand::Verify(args) => verify_backups(args, context).await,
    }
}

async fn back_up_tenants(args: BackupRunArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let selection = args.selection.to_selection(&args.names, context, WhenEmpty::Refuse)?;
    let scope = is_open_ended(&selection).then_some("backup");
    let concurrency = in_range("--concurrency", args.concurrency.map(u64::from))?;
    let run = BackupRun { selection, concurrency, ..BackupRun::default() };
    run_lock::run_exclusively(context, scope, ApiRequest::post("/v1/backups", &run), &args.change, &args.wait).await
}

async fn verify_backups(args: BackupVerifyArgs, context: &mut CommandContext) -> Result<CommandExit> {
    // A name cannot contain an underscore, so an id is never mistaken for a name.
    let (backups, names): (Vec<_>, Vec<_>) = args.words.into_iter().partition(|w| w.starts_with("bkp_"));
    let chosen = !names.is_empty() || args.selection.all || !args.selection.selectors.is_empty();
    if !backups.is_empty() && (chosen || args.selection.server.is_some() || args.selection.from_file.is_some()) {
        return Err(CommandFailure::usage_error("name either backups or tenants, not both"));
    }
    let (wanted, scope) = if backups.is_empty() {
        let selection = args.selection.to_selection(&names, context, WhenEmpty::Refuse)?;
        let scope = is_open_ended(&selection).then_some("verify");
        (BackupVerify { selection, ..BackupVerify::default() }, scope)
    } else {
        (BackupVerify { backups, ..BackupVerify::default() }, None)
    };
    run_lock::run_exclusively(context, scope, ApiRequest::post("/v1/backups/verify", &wanted), &args.change, &args.wait)
        .await
}
