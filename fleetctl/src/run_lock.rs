//! Allows one fleet-wide run of a kind at a time: an overlapping cron job waits (`--lock-wait`) or exits 7.
//!
//! A server knows which of its operations run. Embedded commands hold a file lock of the data directory while they run.
//! If an operation is open but the lock is free, its command has died. The operation is then finished first.

use std::fs::File;
use std::time::{Duration, Instant};

use fleet_api::field;
use fleet_api::pages::PageOf;
use fleet_client::ApiRequest;
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::args::{ChangeArgs, WaitArgs};
use crate::client::ApiClient;
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::operation::{self, ResultPrinting};

/// Runs take minutes, so checking twice a second is cheap.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// As [`operation::run_operation`]. When `scope` names a kind, at most one run of that kind is active.
pub(crate) async fn run_exclusively(
    context: &mut CommandContext,
    scope: Option<&str>,
    request: ApiRequest,
    change: &ChangeArgs,
    wait: &WaitArgs,
) -> Result<CommandExit> {
    let Some(kind) = scope.filter(|_| !change.dry_run) else {
        return operation::run_operation(context, request, change, wait).await;
    };
    let client = context.api_client().await?;
    let patience =
        context.settings.parse_value("lock_wait", crate::setting_values::parse_duration)?.unwrap_or_default();
    let deadline = Instant::now() + patience;
    let _held = if client.is_embedded() { Some(hold_lock(context, kind, deadline).await?) } else { None };
    if client.is_embedded() {
        finish_leftovers(context, &client, kind).await?;
    } else {
        wait_until_free(&client, kind, deadline).await?;
    }
    operation::run_operation(context, request, change, wait).await
}

/// The lock of this kind in the data directory. It is freed when the file is closed, also by a crash.
async fn hold_lock(context: &CommandContext, kind: &str, deadline: Instant) -> Result<File> {
    let path = context.settings.data_dir().join(format!("{kind}.lock"));
    let unusable = |e: std::io::Error| {
        CommandFailure::new(CommandExit::Failed, "the data directory cannot be written")
            .with_cause(format!("{}: {e}", path.display()))
    };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(unusable)?;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(e) if e == rustix::io::Errno::WOULDBLOCK && Instant::now() < deadline => {
                tokio::time::sleep(LOOK_EVERY).await
            }
            Err(e) if e == rustix::io::Errno::WOULDBLOCK => return Err(another_run(kind, "another command")),
            Err(e) => return Err(unusable(e.into())),
        }
    }
}

/// An operation of this kind that has not ended.
pub(crate) async fn open_operation(client: &ApiClient, kind: &str) -> Result<Option<Value>> {
    let request = ApiRequest::get("/v1/operations")
        .with_query("kind", &kind.replace('-', "_"))
        .with_query("state", "pending,running")
        .with_query("limit", "1");
    let mut page = client.send_for_json(&request).await?;
    Ok(page[field!(PageOf<Value>: items)].as_array_mut().and_then(Vec::pop))
}

async fn wait_until_free(client: &ApiClient, kind: &str, deadline: Instant) -> Result<()> {
    while let Some(other) = open_operation(client, kind).await? {
        if Instant::now() >= deadline {
            return Err(another_run(kind, operation::id_of(&other)?));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Finishes operations that dead commands left open.
pub(crate) async fn finish_leftovers(context: &mut CommandContext, client: &ApiClient, kind: &str) -> Result<()> {
    while let Some(left) = open_operation(client, kind).await? {
        context.out.print_note(&format!("finishing {} first, left by an earlier command", operation::id_of(&left)?));
        let exit = operation::finish_operation(context, &left, &WaitArgs::default(), ResultPrinting::Nothing).await?;
        if exit == CommandExit::Interrupted {
            return Err(CommandFailure::new(CommandExit::Interrupted, "interrupted before the new run began"));
        }
    }
    Ok(())
}

fn another_run(kind: &str, who: &str) -> CommandFailure {
    CommandFailure::new(CommandExit::Conflict, format!("another {kind} is already running: {who}"))
        .code("locked")
        .try_next("--lock-wait 10m      # waits for it")
        .try_next("fleetctl op list --state running")
}
