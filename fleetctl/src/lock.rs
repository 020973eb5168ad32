//! One fleet-wide run of a kind at a time: an overlapping cron job waits (`--lock-wait`) or exits 7.
//!
//! A server knows which of its operations run. Embedded commands hold a file lock of the data directory for as long as
//! they run; an operation that is open while nobody holds the lock was left by a command that died, and is finished first.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::args::{Change, Wait};
use crate::client::{Client, Request};
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::operation::{self, Print};

/// Waiting is for minutes; looking twice a second costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// As [`operation::run`], alone of its kind when `scope` names one.
pub(crate) async fn run(
    context: &mut Context,
    scope: Option<&str>,
    request: Request,
    change: &Change,
    wait: &Wait,
) -> Result<Exit> {
    let Some(kind) = scope.filter(|_| !change.dry_run) else {
        return operation::run(context, request, change, wait).await;
    };
    let client = context.client().await?;
    let patience = context.settings.parse("lock_wait", crate::settings::duration)?.unwrap_or_default();
    let deadline = Instant::now() + patience;
    let _held = if client.is_embedded() { Some(hold(context, kind, deadline).await?) } else { None };
    if client.is_embedded() {
        finish_leftovers(context, &client, kind).await?;
    } else {
        until_free(&client, kind, deadline).await?;
    }
    operation::run(context, request, change, wait).await
}

/// The lock of this kind in the data directory; freed when the file is closed, also by a crash.
async fn hold(context: &Context, kind: &str, deadline: Instant) -> Result<File> {
    let path = context.settings.data_dir().join(format!("{kind}.lock"));
    let unusable = |e: std::io::Error| {
        Failure::new(Exit::Failed, "the data directory cannot be written").because(format!("{}: {e}", path.display()))
    };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(unusable)?;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(e) if e == rustix::io::Errno::WOULDBLOCK && Instant::now() < deadline => {
                tokio::time::sleep(LOOK_EVERY).await
            }
            Err(e) if e == rustix::io::Errno::WOULDBLOCK => return Err(in_the_way(kind, "another command")),
            Err(e) => return Err(unusable(e.into())),
        }
    }
}

/// An operation of this kind that has not ended.
pub(crate) async fn open_operation(client: &Client, kind: &str) -> Result<Option<Value>> {
    let request = Request::get("/v1/operations")
        .query("kind", &kind.replace('-', "_"))
        .query("state", "pending,running")
        .query("limit", "1");
    let mut page = client.json(&request).await?;
    Ok(page["items"].as_array_mut().and_then(Vec::pop))
}

async fn until_free(client: &Client, kind: &str, deadline: Instant) -> Result<()> {
    while let Some(other) = open_operation(client, kind).await? {
        if Instant::now() >= deadline {
            return Err(in_the_way(kind, operation::id_of(&other)?));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Finishes what commands that died left open.
pub(crate) async fn finish_leftovers(context: &mut Context, client: &Client, kind: &str) -> Result<()> {
    while let Some(left) = open_operation(client, kind).await? {
        context.out.note(&format!("finishing {} first, left by an earlier command", operation::id_of(&left)?));
        let exit = operation::finish(context, &left, &Wait::default(), Print::Nothing).await?;
        if exit == Exit::Interrupted {
            return Err(Failure::new(Exit::Interrupted, "interrupted before the new run began"));
        }
    }
    Ok(())
}

fn in_the_way(kind: &str, who: &str) -> Failure {
    Failure::new(Exit::Conflict, format!("another {kind} runs already: {who}"))
        .code("locked")
        .try_next("--lock-wait 10m      # waits for it")
        .try_next("fleetctl op list --state running")
}
