//! What every command that starts work does: ask for it, wait for it, say what came of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::{Change, Wait};
use crate::client::{Client, Request, segment};
use crate::context::Context;
use crate::error::{Exit, Failure, Result, exit_of};
use crate::output::Format;
use crate::progress::{self, Ended};
use crate::table::{Column, View, plain, printable};

/// Failed tenants shown; the rest is one command away.
const FAILED_SHOWN_MAX: usize = 20;

/// How operations are listed.
pub(crate) const OPERATION: View = View {
    name: "/id",
    columns: &[
        Column::text("ID", "/id"),
        Column::text("KIND", "/kind"),
        Column::text("STATE", "/state"),
        Column::text("TOTAL", "/progress/total"),
        Column::text("DONE", "/progress/done"),
        Column::text("FAILED", "/progress/failed"),
        Column::text("SKIPPED", "/progress/skipped"),
        Column::time("CREATED", "/created_at"),
        Column::time("FINISHED", "/finished_at").wide(),
        Column::text("BY", "/requested_by").wide(),
        Column::text("REASON", "/reason").wide(),
    ],
};

/// How a plan is listed.
pub(crate) const PLAN: View =
    View { name: "/tenant", columns: &[Column::text("TENANT", "/tenant"), Column::text("ACTION", "/action")] };

/// Adds to a request what every changing command takes.
pub(crate) fn changing(request: Request, change: &Change) -> Request {
    let request = match (&change.reason, request.has_body()) {
        (Some(reason), true) => request.with("reason", reason.as_str()),
        (Some(reason), false) => request.query("reason", reason),
        (None, _) => request,
    };
    match (change.dry_run, request.has_body()) {
        (true, true) => request.with("dry_run", true),
        (true, false) => request.query("dry_run", "true"),
        (false, _) => request,
    }
}

/// Sends a change; `None` when it was only planned, and the plan has been printed.
pub(crate) async fn change(context: &mut Context, request: Request, change: &Change) -> Result<Option<Value>> {
    let client = context.client().await?;
    let answer = client.json(&changing(request, change)).await?;
    if !change.dry_run {
        return Ok(Some(answer));
    }
    print_plan(context, &answer)?;
    Ok(None)
}

fn print_plan(context: &mut Context, answer: &Value) -> Result<()> {
    let plan = &answer["plan"];
    if answer["dry_run"] != json!(true) || !plan.is_object() {
        return Err(Failure::unexpected("this was not answered with a plan; it may have been done"));
    }
    if context.out.format == Format::Json {
        return context.out.json(&format!("{answer:#}\n"));
    }
    let sample = plan["sample"].as_array().cloned().unwrap_or_default();
    if !sample.is_empty() {
        let mut list = context.out.list(&PLAN)?;
        list.page(&sample)?;
        list.finish()?;
    }
    let n = |key: &str| plan[key].as_u64().unwrap_or_default();
    let (kind, tenants) = (plan["kind"].as_str().unwrap_or("change"), n("tenants"));
    let left_out = match n("left_out") {
        0 => String::new(),
        left_out => format!(", {left_out} are left out"),
    };
    let skipped = n("skipped");
    let line = format!("dry run: {kind} would act on {tenants}, {skipped} need nothing{left_out}; nothing was done");
    context.out.note(&line);
    for text in plan["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        context.out.note(&format!("note: {}", printable(text)));
    }
    Ok(())
}

/// Between two attempts while another run is in the way.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How a command's operation was started.
pub(crate) enum Started {
    /// It runs; this is the whole answer.
    Answer(Value),
    /// Only planned; the plan is printed.
    Planned,
}

/// Asks for an operation. While another run is in the way it is asked again, for as long as `--lock-wait` says.
pub(crate) async fn start(context: &mut Context, request: Request, change: &Change, wait: &Wait) -> Result<Started> {
    let client = context.client().await?;
    if wait.no_wait && client.is_embedded() && !change.dry_run {
        return Err(Failure::usage("--no-wait needs a server that goes on with the work when this command ends")
            .code("no_server")
            .try_next("fleetctl serve      # in another terminal, or name one with --url"));
    }
    let patience = context.settings.parse("lock_wait", crate::settings::duration)?.unwrap_or_default();
    let deadline = Instant::now() + patience;
    let mut request = changing(request, change);
    context.remember_interrupts()?;
    let answer = loop {
        match client.json(&request).await {
            Err(failure) if is_in_the_way(&failure) && Instant::now() < deadline => {
                tokio::select! {
                    () = tokio::time::sleep(AGAIN_AFTER) => {}
                    () = context.interrupted() => {
                        return Err(Failure::new(Exit::Interrupted, "interrupted while another run was in the way"));
                    }
                }
                request = request.renewed();
            }
            other => break other?,
        }
    };
    if change.dry_run {
        print_plan(context, &answer)?;
        return Ok(Started::Planned);
    }
    Ok(Started::Answer(answer))
}

fn is_in_the_way(failure: &Failure) -> bool {
    failure.exit == Exit::Conflict && matches!(failure.code.as_str(), "operation_in_progress" | "database_busy")
}

/// The whole life of an operation whose result is the operation itself.
pub(crate) async fn run(context: &mut Context, request: Request, change: &Change, wait: &Wait) -> Result<Exit> {
    match start(context, request, change, wait).await? {
        Started::Planned => Ok(Exit::Done),
        Started::Answer(operation) => finish(context, &operation, wait, Print::Operation).await,
    }
}

/// Whether the operation itself is the command's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Print {
    Operation,
    Nothing,
}

/// Waits as told, prints the operation, and says what failed.
pub(crate) async fn finish(context: &mut Context, operation: &Value, wait: &Wait, print: Print) -> Result<Exit> {
    let id = id_of(operation)?.to_owned();
    if wait.no_wait {
        return print_started(context, operation, &id).map(|()| Exit::Done);
    }
    let client = context.client().await?;
    match progress::wait(context, &client, &id, wait.timeout).await? {
        Ended::Operation(operation) => ended(context, &client, &operation, print).await,
        Ended::TimedOut(operation) => {
            context.out.complain(&format!("still running: {}", progress::line(&operation)));
            context.out.complain(&format!("try:   {}", resume(&client, &id)));
            Ok(Exit::TimedOut)
        }
        Ended::Interrupted => {
            context.out.complain(&format!("detached from operation {id}; what is done stays done"));
            context.out.complain(&format!("try:   {}", resume(&client, &id)));
            Ok(Exit::Interrupted)
        }
    }
}

pub(crate) fn id_of(operation: &Value) -> Result<&str> {
    operation["id"].as_str().ok_or_else(|| Failure::unexpected("the answer names no operation"))
}

/// `--no-wait` prints the id; machines get the whole operation.
fn print_started(context: &mut Context, operation: &Value, id: &str) -> Result<()> {
    match context.out.format {
        Format::Table | Format::Wide | Format::Name => context.out.text(&format!("{id}\n")),
        _ => context.out.item(&OPERATION, operation),
    }
}

fn resume(client: &Client, id: &str) -> String {
    let what = if client.is_embedded() { "continues it" } else { "waits for it again" };
    format!("fleetctl op wait {id}      # {what}")
}

async fn ended(context: &mut Context, client: &Client, operation: &Value, print: Print) -> Result<Exit> {
    let exit = progress::exit_of(operation)?;
    if print == Print::Operation {
        context.out.item(&OPERATION, operation)?;
    }
    print_skipped(context, client, operation).await?;
    if exit == Exit::Done {
        return Ok(exit);
    }
    context.out.complain(&format!("error: {}", progress::line(operation)));
    if let Some(detail) = operation["error"]["detail"].as_str() {
        context.out.complain(&format!("cause: {}: {}", plain(&operation["error"]["code"]), printable(detail)));
    }
    let codes = print_failed(context, client, id_of(operation)?).await?;
    if operation["state"] == "paused" {
        context.out.complain(&format!("try:   fleetctl op resume {}", id_of(operation)?));
    }
    Ok(if exit == Exit::Failed { refine(&codes) } else { exit })
}

/// Says which tenants were skipped and why, a screenful at most. They are no failure.
async fn print_skipped(context: &mut Context, client: &Client, operation: &Value) -> Result<()> {
    let skipped = operation["progress"]["left"].as_u64().unwrap_or_default();
    if skipped == 0 {
        return Ok(());
    }
    let id = id_of(operation)?;
    let request = Request::get(format!("/v1/operations/{}/steps", segment(id)?)).query("state", "skipped");
    let page = client.json(&request.query("limit", &FAILED_SHOWN_MAX.to_string())).await?;
    let steps = page["items"].as_array().cloned().unwrap_or_default();
    context.out.note(&format!("{skipped} skipped; see all: fleetctl op get {id} --steps skipped"));
    for step in &steps {
        let line = format!("skipped: {}: {}", plain(&step["tenant"]), plain(&step["skipped"]["detail"]));
        context.out.note(&printable(&line));
    }
    Ok(())
}

/// The failed tenants with their errors, a screenful at most. Returns their codes.
async fn print_failed(context: &mut Context, client: &Client, id: &str) -> Result<Vec<String>> {
    let request = Request::get(format!("/v1/operations/{}/steps", segment(id)?)).query("state", "failed");
    let page = client.json(&request.query("limit", &(FAILED_SHOWN_MAX + 1).to_string())).await?;
    let steps = page["items"].as_array().cloned().unwrap_or_default();
    let mut codes = Vec::new();
    for step in steps.iter().take(FAILED_SHOWN_MAX) {
        let code = plain(&step["error"]["code"]);
        let line = format!("cause: {}: {code}: {}", plain(&step["tenant"]), plain(&step["error"]["detail"]));
        context.out.complain(&printable(&line));
        codes.push(code);
    }
    if steps.len() > FAILED_SHOWN_MAX {
        context.out.complain(&format!("cause: … and more; see all: fleetctl op get {id} --steps failed"));
    }
    if !steps.is_empty() {
        context.out.complain(&format!("try:   fleetctl op retry {id}      # only what failed"));
        if let Some(code) = codes.first().filter(|c| !c.is_empty()) {
            context.out.complain(&format!("try:   fleetctl explain {code}"));
        }
    }
    Ok(codes)
}

/// When every tenant failed for the same reason and that reason has an exit code of its own, it is used.
fn refine(codes: &[String]) -> Exit {
    match codes.first() {
        Some(first) if codes.iter().all(|c| c == first) && first == "fenced" => exit_of(503, first),
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fenced_everywhere_is_fenced_and_anything_else_is_failed() {
        let codes = |list: &[&str]| list.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        assert_eq!(refine(&codes(&["fenced", "fenced"])), Exit::Fenced);
        assert_eq!(refine(&codes(&["fenced", "io"])), Exit::Failed);
        assert_eq!(refine(&[]), Exit::Failed);
    }

    #[test]
    fn only_a_run_in_the_way_is_waited_for() {
        assert!(is_in_the_way(&Failure::new(Exit::Conflict, "x").code("operation_in_progress")));
        assert!(!is_in_the_way(&Failure::new(Exit::Conflict, "x").code("already_exists")));
    }
}
