//! `fleetctl tenant …`: what changes the state, the name or the place of tenants that exist.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::selected_in;
use super::tenant::{TENANT, finish_created};
use crate::args::{Change, Confirm, Selection, Wait, WhenEmpty, is_open_ended};
use crate::client::{Request, segment};
use crate::context::Context;
use crate::error::{Exit, Result};
use crate::operation::{self, Started};
use crate::{input, lock};

/// What can be done to tenants that exist.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Give a tenant another name; the old one goes on leading to it
    Rename(Rename),
    /// Take tenants out of service, for a reason
    Suspend(Many),
    /// Let suspended tenants answer again
    Resume(Many),
    /// Block tenants' writes (or allow them again); reads go on
    ReadOnly(ReadOnly),
    /// Take tenants to another server of the same engine; reads go on meanwhile
    Move(Move),
    /// Make a new tenant with the data another one has now
    Clone(CloneTenant),
    /// Leave only a verified backup; the next request brings a tenant back
    Archive(Sure),
    /// Give archived tenants their databases back
    Unarchive(Many),
    /// Bring deleted tenants back
    Undelete(Many),
    /// Drop the databases of deleted tenants, for good
    Purge(Sure),
    /// Let tenants serve again that a failed operation left fenced
    Settle(Settle),
}

/// Flags of `tenant rename`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant rename acme acme-corp")]
pub(crate) struct Rename {
    /// Its name or id
    tenant: String,
    /// The new name
    name: String,
    #[command(flatten)]
    change: Change,
}

/// Which tenants, and how.
#[derive(Debug, Args)]
pub(crate) struct Many {
    /// Names or ids
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// Tenants at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    wait: Wait,
}

/// The same for what is hard to take back.
#[derive(Debug, Args)]
pub(crate) struct Sure {
    #[command(flatten)]
    many: Many,
    #[command(flatten)]
    confirm: Confirm,
}

/// Flags of `tenant read-only`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant read-only acme --reason 'the invoice is three months late'
  fleetctl tenant read-only acme --off")]
pub(crate) struct ReadOnly {
    /// Allow writes again
    #[arg(long)]
    off: bool,
    #[command(flatten)]
    many: Many,
}

/// Flags of `tenant move`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant move acme --to pg2
  fleetctl tenant move -l plan=pro --to disk2 --concurrency 2")]
pub(crate) struct Move {
    /// The server; any of the same engine that takes tenants if not given
    #[arg(long, value_name = "SERVER")]
    to: Option<String>,
    #[command(flatten)]
    many: Many,
}

/// Flags of `tenant settle`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant settle acme
  fleetctl tenant settle acme --back      # nothing was written to what replaced it, or that can be done without
  fleetctl tenant settle --all --newest   # after the catalog was restored from an older copy")]
pub(crate) struct Settle {
    /// Also from a database that was retired, when the one that replaced it cannot be had
    #[arg(long)]
    back: bool,
    /// From whichever of its databases served last, on any server: after the catalog was restored from an older copy
    #[arg(long, conflicts_with = "back")]
    newest: bool,
    #[command(flatten)]
    many: Many,
}

/// Flags of `tenant clone`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant clone acme acme-staging

The new tenant has no members and no tokens.")]
pub(crate) struct CloneTenant {
    /// The tenant whose data it gets
    tenant: String,
    /// The new tenant's name
    name: String,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    wait: Wait,
}

/// Runs one of them.
pub(crate) async fn run(verb: Verb, context: &mut Context) -> Result<Exit> {
    match verb {
        Verb::Rename(args) => rename(args, context).await,
        Verb::Suspend(args) => submit("suspend", json!({}), args, context).await,
        Verb::Resume(args) => submit("resume", json!({}), args, context).await,
        Verb::ReadOnly(args) => submit("read-only", json!({"on": !args.off}), args.many, context).await,
        Verb::Move(args) => submit("move", json!({"to": args.to}), args.many, context).await,
        Verb::Clone(args) => clone(args, context).await,
        Verb::Archive(args) => surely("archive", "active", args, context).await,
        Verb::Unarchive(args) => submit("unarchive", json!({}), args, context).await,
        Verb::Undelete(args) => submit("undelete", json!({}), args, context).await,
        Verb::Purge(args) => surely("purge", "deleted", args, context).await,
        Verb::Settle(args) => {
            submit("settle", json!({"back": args.back, "newest": args.newest}), args.many, context).await
        }
    }
}

async fn rename(args: Rename, context: &mut Context) -> Result<Exit> {
    let request = Request::patch(format!("/v1/tenants/{}", segment(&args.tenant)?), json!({"name": args.name}));
    super::change_and_print(context, request, &args.change, &TENANT).await
}

/// One operation for all that are selected.
async fn submit(verb: &'static str, mut body: Value, args: Many, context: &mut Context) -> Result<Exit> {
    let selection = args.selection.resolve(&args.names, context, WhenEmpty::Refuse)?;
    let scope = is_open_ended(&selection).then_some(verb);
    body["selection"] = json!(selection);
    if let Some(concurrency) = args.concurrency {
        body["concurrency"] = json!(concurrency);
    }
    let request = Request::post(format!("/v1/lifecycle/{verb}"), body);
    lock::run(context, scope, request, &args.change, &args.wait).await
}

/// The same after somebody has said how many are meant.
async fn surely(verb: &'static str, state: &str, args: Sure, context: &mut Context) -> Result<Exit> {
    let Sure { many, confirm } = args;
    let names = selected_in(context, &many.names, &many.selection, state).await?;
    input::expected(&confirm, &names)?;
    if !many.change.dry_run {
        input::confirm(context, &confirm, verb, &names)?;
    }
    if names.is_empty() {
        context.out.note(&format!("no tenant is {state} and selected; nothing was done"));
        return Ok(Exit::Done);
    }
    let mut body = json!({"selection": {"names": names}, "expect_count": names.len()});
    if let Some(concurrency) = many.concurrency {
        body["concurrency"] = json!(concurrency);
    }
    operation::run(context, Request::post(format!("/v1/lifecycle/{verb}"), body), &many.change, &many.wait).await
}

async fn clone(args: CloneTenant, context: &mut Context) -> Result<Exit> {
    let request = Request::post("/v1/lifecycle/clone", json!({"tenant": args.tenant, "as": args.name}));
    let Started::Answer(answer) = operation::start(context, request, &args.change, &args.wait).await? else {
        return Ok(Exit::Done);
    };
    finish_created(context, &json!({"operation": answer}), &args.name, &args.wait).await
}
