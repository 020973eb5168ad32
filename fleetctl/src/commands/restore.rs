//! `fleetctl restore`: bring a tenant back, in place or beside itself.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::args::{Change, Confirm, Wait};
use crate::client::{Request, segment};
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::table::{Column, View};
use crate::{input, operation};

const PREVIEW: View = View {
    name: "/backup/id",
    columns: &[
        Column::text("BACKUP", "/backup/id"),
        Column::time("TAKEN", "/backup/taken_at"),
        Column::text("VERSION", "/backup/schema_version"),
        Column::text("TENANT", "/current/name"),
        Column::text("VERSION NOW", "/current/schema_version"),
        Column::text("VERSION AFTER", "/schema_version"),
        Column::text("PINNED", "/pinned"),
        Column::text("WILL", "/will"),
        Column::time("UNDO UNTIL", "/undo_until_at"),
    ],
};

/// What can be restored.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Restore a tenant from a backup
    Run(Run),
    /// Show what a restore would do
    Preview {
        /// The tenant's name or id
        tenant: String,
        #[command(flatten)]
        point: Point,
        /// The schema that the tenant would get
        #[arg(long, value_enum, default_value = "backup")]
        schema: Schema,
    },
    /// Go back to the database that the last restore replaced
    Undo(Undo),
}

/// Which schema a restored tenant has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Schema {
    /// The backup's; a tenant that is behind with it stays there until a migration names it
    Backup,
    /// The tenant's own: what is in the backup is migrated to it
    Current,
}

impl Schema {
    /// As the API takes it.
    fn text(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Current => "current",
        }
    }
}

/// Which backup.
#[derive(Debug, Args)]
pub(crate) struct Point {
    /// `latest`, the id of a backup, or a time (the newest backup at or before it)
    #[arg(long, value_name = "latest|TIME|BACKUP")]
    to: String,
}

impl Point {
    /// Refused here when it cannot be any of the three, so that a typing error is told at once.
    fn checked(&self) -> Result<&str> {
        let to = self.to.as_str();
        if to == "latest" || to.starts_with("bkp_") || to.parse::<jiff::Timestamp>().is_ok() {
            return Ok(to);
        }
        Err(Failure::usage(format!("--to {to:?} is neither latest, nor the id of a backup, nor a time"))
            .try_next("--to latest, --to 2026-11-23T10:00:00Z, or an id of `fleetctl backup list`"))
    }
}

/// Flags of `restore run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl restore run acme --to latest --yes
  fleetctl restore run acme --to 2026-11-23T10:00:00Z --as acme-copy
  fleetctl restore run acme --to latest --schema current

The tenant gets the backup's schema. Where that is older than the tenant's, the tenant is pinned: migrations of many
tenants leave it out until `fleetctl migrate run DIR acme` names it, or --include-pinned is given.
In place, the tenant keeps its name, members and tokens; the replaced database is kept for `restore undo`.
With --as, a new tenant is made, without members or tokens.")]
pub(crate) struct Run {
    /// The tenant's name or id
    tenant: String,
    #[command(flatten)]
    point: Point,
    /// Make a new tenant of this name instead of replacing
    #[arg(long = "as", value_name = "NAME")]
    new_name: Option<String>,
    /// The schema that the tenant gets
    #[arg(long, value_enum, default_value = "backup")]
    schema: Schema,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    wait: Wait,
}

/// Flags of `restore undo`.
#[derive(Debug, Args)]
pub(crate) struct Undo {
    /// The tenant's name or id
    tenant: String,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    wait: Wait,
}

/// Runs `fleetctl restore …`.
pub(crate) async fn run(verb: Verb, context: &mut Context) -> Result<Exit> {
    match verb {
        Verb::Run(args) => restore(args, context).await,
        Verb::Preview { tenant, point, schema } => {
            let body = json!({"tenant": tenant, "to": point.checked()?, "schema": schema.text()});
            super::print_one(context, Request::post("/v1/restores/preview", body), &PREVIEW).await
        }
        Verb::Undo(args) => {
            input::expected(&args.confirm, std::slice::from_ref(&args.tenant))?;
            if !args.change.dry_run {
                input::confirm(context, &args.confirm, "undo the last restore of", std::slice::from_ref(&args.tenant))?;
            }
            let request = Request::post("/v1/restores/undo", json!({"tenant": args.tenant}));
            operation::run(context, request, &args.change, &args.wait).await
        }
    }
}

async fn restore(args: Run, context: &mut Context) -> Result<Exit> {
    input::expected(&args.confirm, std::slice::from_ref(&args.tenant))?;
    let mut body = json!({"tenant": args.tenant, "to": args.point.checked()?, "schema": args.schema.text()});
    if let Some(name) = &args.new_name {
        body["as"] = json!(name);
    } else if !args.change.dry_run {
        input::confirm(context, &args.confirm, "replace the database of", std::slice::from_ref(&args.tenant))?;
    }
    let exit = operation::run(context, Request::post("/v1/restores", body), &args.change, &args.wait).await?;
    if exit == Exit::Done && !args.change.dry_run && !args.wait.no_wait {
        tell_pin(context, args.new_name.as_deref().unwrap_or(&args.tenant)).await?;
    }
    Ok(exit)
}

/// Says that a tenant stays at its version, so that nobody waits for the next migration of all to reach it.
async fn tell_pin(context: &mut Context, name: &str) -> Result<()> {
    let client = context.client().await?;
    let tenant = client.json(&Request::get(format!("/v1/tenants/{}", segment(name)?))).await?;
    super::note_pin(context, &tenant["name"], &tenant["pin"]);
    if tenant["pin"].is_object() {
        context.out.note(&format!("try:   fleetctl migrate run DIR {name}      # when its data may be migrated"));
    }
    Ok(())
}
