//! The common part of all commands that start work: start the operation, wait for it, print its result.

use std::time::{Duration, Instant};

use control_plane::ErrorKind;
use fleet_api::changes::{ChangeOptions, ChangePlan, PlanLine, PlannedChange};
use fleet_api::operations::{FailureDetail, OperationView, StepView, TenantProgress};
use fleet_api::pages::PageOf;
use fleet_api::{field, pointer};
use fleet_client::{ApiRequest, path_segment};
use serde_json::{Value, json};
use tenant_engine::ErrorKind as DatabaseError;

use crate::args::{ChangeArgs, WaitArgs};
use crate::client::ApiClient;
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result, is_code_of};
use crate::output::OutputFormat;
use crate::progress::{self, WaitEnd};
use crate::table::{TableColumn, TableView, escape_text, plain_text};

/// Maximum number of failed tenants shown; another command lists all of them.
const FAILED_SHOWN_MAX: usize = 20;

/// How operations are listed.
pub(crate) const OPERATION: TableView = TableView {
    name: pointer!(OperationView: id),
    columns: &[
        TableColumn::of_text("ID", pointer!(OperationView: id)),
        TableColumn::of_text("KIND", pointer!(OperationView: kind)),
        TableColumn::of_text("STATE", pointer!(OperationView: state)),
        TableColumn::of_text("TOTAL", pointer!(OperationView: progress, TenantProgress: total)),
        TableColumn::of_text("DONE", pointer!(OperationView: progress, TenantProgress: done)),
        TableColumn::of_text("FAILED", pointer!(OperationView: progress, TenantProgress: failed)),
        TableColumn::of_text("SKIPPED", pointer!(OperationView: progress, TenantProgress: skipped)),
        TableColumn::of_text("PHASE", pointer!(OperationView: phase)).only_wide(),
        TableColumn::of_time("CREATED", pointer!(OperationView: created_at)),
        TableColumn::of_time("FINISHED", pointer!(OperationView: finished_at)).only_wide(),
        TableColumn::of_text("BY", pointer!(OperationView: requested_by)).only_wide(),
        TableColumn::of_text("REASON", pointer!(OperationView: reason)).only_wide(),
    ],
};

/// How a plan is listed.
pub(crate) const PLAN: TableView = TableView {
    name: pointer!(PlanLine: tenant),
    columns: &[
        TableColumn::of_text("TENANT", pointer!(PlanLine: tenant)),
        TableColumn::of_text("ACTION", pointer!(PlanLine: action)).may_cut(),
    ],
};

/// Adds the flags of every changing command to a request.
pub(crate) fn with_change_args(request: ApiRequest, change: &ChangeArgs) -> ApiRequest {
    request.with_options(&ChangeOptions { dry_run: change.dry_run, reason: change.reason.clone() })
}

/// Sends a change. `None` when it was only planned; the plan has been printed.
pub(crate) async fn send_change(
    context: &mut CommandContext,
    request: ApiRequest,
    change: &ChangeArgs,
) -> Result<Option<Value>> {
    let client = context.api_client().await?;
    let answer = client.send_for_json(&with_change_args(request, change)).await?;
    if !change.dry_run {
        return Ok(Some(answer));
    }
    print_plan(context, &answer)?;
    Ok(None)
}

/// As [`send_change`], for one of several changes. Formats that are one document get the plan back, for a list of
/// plans.
pub(crate) async fn send_one_change(
    context: &mut CommandContext,
    request: ApiRequest,
    wanted: &ChangeArgs,
) -> Result<Option<Value>> {
    if !wanted.dry_run || !is_one_document(context) {
        return send_change(context, request, wanted).await;
    }
    let client = context.api_client().await?;
    client.send_for_json(&with_change_args(request, wanted)).await.map(Some)
}

fn print_plan(context: &mut CommandContext, answer: &Value) -> Result<()> {
    let plan = &answer[field!(PlannedChange: plan)];
    if answer[field!(PlannedChange: dry_run)] != json!(true) || !plan.is_object() {
        return Err(CommandFailure::unexpected_answer("the answer is not a plan; the change may have been made"));
    }
    if context.out.format == OutputFormat::Json {
        return context.out.print_json(&format!("{answer:#}\n"));
    }
    let sample = plan[field!(ChangePlan: sample)].as_array().cloned().unwrap_or_default();
    if !sample.is_empty() {
        let mut list = context.out.begin_list(&PLAN)?;
        list.print_page(&sample)?;
        list.finish_list()?;
    }
    let n = |key: &str| plan[key].as_u64().unwrap_or_default();
    let (kind, tenants) = (plan[field!(ChangePlan: kind)].as_str().unwrap_or("change"), n(field!(ChangePlan: tenants)));
    let left_out = match n(field!(ChangePlan: left_out)) {
        0 => String::new(),
        left_out => format!(", {left_out} are left out"),
    };
    let skipped = n(field!(ChangePlan: skipped));
    let line = format!("dry run: {kind} would act on {tenants}, {skipped} need nothing{left_out}; nothing was done");
    context.out.print_note(&line);
    for text in plan[field!(ChangePlan: notes)].as_array().into_iter().flatten().filter_map(Value::as_str) {
        context.out.print_note(&format!("note: {}", escape_text(text)));
    }
    Ok(())
}

/// The pause between two attempts while another run is in progress.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The result of starting a command's operation.
pub(crate) enum StartedOperation {
    /// The operation was started; this is the whole answer.
    Answer(Value),
    /// The operation was only planned; the plan is printed.
    Planned,
}

/// Starts an operation. While another run is in progress, tries again for as long as `--lock-wait` allows.
pub(crate) async fn start_operation(
    context: &mut CommandContext,
    request: ApiRequest,
    change: &ChangeArgs,
    wait: &WaitArgs,
) -> Result<StartedOperation> {
    let client = context.api_client().await?;
    if wait.no_wait && client.is_embedded() && !change.dry_run {
        return Err(CommandFailure::usage_error(
            "--no-wait needs a server that continues the work when this command ends",
        )
        .code("no_server")
        .try_next("fleetctl serve      # in another terminal, or name one with --url"));
    }
    let patience =
        context.settings.parse_value("lock_wait", crate::setting_values::parse_duration)?.unwrap_or_default();
    let deadline = Instant::now() + patience;
    let mut request = with_change_args(request, change);
    context.remember_interrupts()?;
    let answer = loop {
        match client.send_for_json(&request).await {
            Err(failure) if is_blocked_by_run(&failure) && Instant::now() < deadline => {
                tokio::select! {
                    () = tokio::time::sleep(AGAIN_AFTER) => {}
                    () = context.wait_for_interrupt() => {
                        return Err(CommandFailure::new(CommandExit::Interrupted, "interrupted while waiting for another run"));
                    }
                }
                request = request.with_new_key();
            }
            other => break other?,
        }
    };
    if change.dry_run {
        print_plan(context, &answer)?;
        return Ok(StartedOperation::Planned);
    }
    Ok(StartedOperation::Answer(answer))
}

fn is_blocked_by_run(failure: &CommandFailure) -> bool {
    let busy = [ErrorKind::OperationInProgress, ErrorKind::Engine(DatabaseError::Busy)];
    failure.exit == CommandExit::Conflict && is_code_of(&failure.code, &busy)
}

/// Starts an operation, waits for it and prints it.
pub(crate) async fn run_operation(
    context: &mut CommandContext,
    request: ApiRequest,
    change: &ChangeArgs,
    wait: &WaitArgs,
) -> Result<CommandExit> {
    match start_operation(context, request, change, wait).await? {
        StartedOperation::Planned => Ok(CommandExit::Done),
        StartedOperation::Answer(operation) => {
            finish_operation(context, &operation, wait, ResultPrinting::Operation).await
        }
    }
}

/// Whether the operation itself is the command's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResultPrinting {
    Operation,
    Nothing,
}

/// As [`run_operation`], for one of several. Formats that are one document get the data in `documents`, for
/// [`print_documents`].
pub(crate) async fn run_one_operation(
    context: &mut CommandContext,
    request: ApiRequest,
    (change, wait): (&ChangeArgs, &WaitArgs),
    documents: &mut Vec<Value>,
) -> Result<CommandExit> {
    if !is_one_document(context) {
        return run_operation(context, request, change, wait).await;
    }
    if change.dry_run {
        let client = context.api_client().await?;
        documents.push(client.send_for_json(&with_change_args(request, change)).await?);
        return Ok(CommandExit::Done);
    }
    let StartedOperation::Answer(operation) = start_operation(context, request, change, wait).await? else {
        return Ok(CommandExit::Done);
    };
    let id = id_of(&operation)?.to_owned();
    let exit = if wait.no_wait {
        CommandExit::Done
    } else {
        finish_operation(context, &operation, wait, ResultPrinting::Nothing).await?
    };
    let client = context.api_client().await?;
    documents.push(client.send_for_json(&ApiRequest::get(format!("/v1/operations/{}", path_segment(&id)?))).await?);
    Ok(exit)
}

/// True when the output format is one document, which contains everything that a command prints.
pub(crate) fn is_one_document(context: &CommandContext) -> bool {
    matches!(context.out.format, OutputFormat::Json | OutputFormat::Csv)
}

/// Prints the data that [`run_one_operation`] collected, always as a list.
pub(crate) fn print_documents(context: &mut CommandContext, view: &TableView, documents: &[Value]) -> Result<()> {
    if !is_one_document(context) {
        return Ok(());
    }
    let mut list = context.out.begin_list(view)?;
    list.print_page(documents)?;
    list.finish_list()
}

/// Waits as the flags say, prints the operation and its failures.
pub(crate) async fn finish_operation(
    context: &mut CommandContext,
    operation: &Value,
    wait: &WaitArgs,
    print: ResultPrinting,
) -> Result<CommandExit> {
    let id = id_of(operation)?.to_owned();
    if wait.no_wait {
        return print_started(context, operation, &id).map(|()| CommandExit::Done);
    }
    let client = context.api_client().await?;
    match progress::wait_for_operation(context, &client, &id, wait.timeout).await? {
        WaitEnd::Operation(operation) => report_end(context, &client, &operation, print).await,
        WaitEnd::TimedOut(operation) => {
            context.out.print_message(&format!("still running: {}", progress::progress_line(&operation)));
            context.out.print_message(&format!("try:   {}", resume_hint(&client, &id)));
            Ok(CommandExit::TimedOut)
        }
        WaitEnd::Interrupted => {
            context.out.print_message(&format!("detached from operation {id}; completed work is kept"));
            context.out.print_message(&format!("try:   {}", resume_hint(&client, &id)));
            Ok(CommandExit::Interrupted)
        }
    }
}

pub(crate) fn id_of(operation: &Value) -> Result<&str> {
    operation[field!(OperationView: id)]
        .as_str()
        .ok_or_else(|| CommandFailure::unexpected_answer("the answer does not name an operation"))
}

/// With `--no-wait`, prints the id; programs get the whole operation.
fn print_started(context: &mut CommandContext, operation: &Value, id: &str) -> Result<()> {
    match context.out.format {
        OutputFormat::Table | OutputFormat::Wide | OutputFormat::Name => context.out.print_text(&format!("{id}\n")),
        _ => context.out.print_item(&OPERATION, operation),
    }
}

fn resume_hint(client: &ApiClient, id: &str) -> String {
    let what = if client.is_embedded() { "continues it" } else { "waits for it again" };
    format!("fleetctl op wait {id}      # {what}")
}

async fn report_end(
    context: &mut CommandContext,
    client: &ApiClient,
    operation: &Value,
    print: ResultPrinting,
) -> Result<CommandExit> {
    let exit = progress::exit_of(operation)?;
    if print == ResultPrinting::Operation {
        context.out.print_item(&OPERATION, operation)?;
    }
    print_skipped(context, client, operation).await?;
    if exit == CommandExit::Done {
        return Ok(exit);
    }
    context.out.print_message(&format!("error: {}", progress::progress_line(operation)));
    if let Some(detail) = operation[field!(OperationView: error)][field!(FailureDetail: detail)].as_str() {
        context.out.print_message(&format!(
            "cause: {}: {}",
            plain_text(&operation[field!(OperationView: error)][field!(FailureDetail: code)]),
            escape_text(detail)
        ));
    }
    let codes = print_failed(context, client, id_of(operation)?).await?;
    if operation[field!(OperationView: state)] == "paused" {
        context.out.print_message(&format!("try:   fleetctl op resume {}", id_of(operation)?));
    }
    Ok(if exit == CommandExit::Failed { refine_exit(&codes) } else { exit })
}

/// Prints the skipped tenants with reasons, at most a screenful. Skipped tenants are not failures.
async fn print_skipped(context: &mut CommandContext, client: &ApiClient, operation: &Value) -> Result<()> {
    let skipped = operation[field!(OperationView: progress)][field!(TenantProgress: left)].as_u64().unwrap_or_default();
    if skipped == 0 {
        return Ok(());
    }
    let id = id_of(operation)?;
    let request = ApiRequest::get(format!("/v1/operations/{}/steps", path_segment(id)?)).with_query("state", "skipped");
    let page = client.send_for_json(&request.with_query("limit", &FAILED_SHOWN_MAX.to_string())).await?;
    let steps = page[field!(PageOf<Value>: items)].as_array().cloned().unwrap_or_default();
    context.out.print_note(&format!("{skipped} skipped; see all: fleetctl op get {id} --steps skipped"));
    for step in &steps {
        let line = format!(
            "skipped: {}: {}",
            plain_text(&step[field!(StepView: tenant)]),
            plain_text(&step[field!(StepView: skipped)][field!(FailureDetail: detail)])
        );
        context.out.print_note(&escape_text(&line));
    }
    Ok(())
}

/// Prints the failed tenants with their errors, at most a screenful. Returns their codes.
async fn print_failed(context: &mut CommandContext, client: &ApiClient, id: &str) -> Result<Vec<String>> {
    let request = ApiRequest::get(format!("/v1/operations/{}/steps", path_segment(id)?)).with_query("state", "failed");
    let page = client.send_for_json(&request.with_query("limit", &(FAILED_SHOWN_MAX + 1).to_string())).await?;
    let steps = page[field!(PageOf<Value>: items)].as_array().cloned().unwrap_or_default();
    let mut codes = Vec::new();
    for step in steps.iter().take(FAILED_SHOWN_MAX) {
        let code = plain_text(&step[field!(StepView: error)][field!(FailureDetail: code)]);
        let line = format!(
            "cause: {}: {code}: {}",
            plain_text(&step[field!(StepView: tenant)]),
            plain_text(&step[field!(StepView: error)][field!(FailureDetail: detail)])
        );
        context.out.print_message(&escape_text(&line));
        codes.push(code);
    }
    if steps.len() > FAILED_SHOWN_MAX {
        context.out.print_message(&format!("cause: … and more; see all: fleetctl op get {id} --steps failed"));
    }
    if !steps.is_empty() {
        context.out.print_message(&format!("try:   {}", retry_hint(id, &codes)));
        if let Some(code) = codes.first().filter(|c| !c.is_empty()) {
            context.out.print_message(&format!("try:   fleetctl explain {code}"));
        }
    }
    Ok(codes)
}

/// Errors that a retry with the same migration text would repeat.
const OF_THE_TEXT: [ErrorKind; 7] = [
    ErrorKind::Engine(DatabaseError::MigrationFailed),
    ErrorKind::Engine(DatabaseError::MigrationDirty),
    ErrorKind::Engine(DatabaseError::MigrationInvalid),
    ErrorKind::MigrationRefused,
    ErrorKind::Engine(DatabaseError::MigrationChanged),
    ErrorKind::Engine(DatabaseError::MigrationMissing),
    ErrorKind::Engine(DatabaseError::MigrationAhead),
];

/// The command that helps after these failures. A retry uses the old text of a migration.
fn retry_hint(id: &str, codes: &[String]) -> String {
    if codes.iter().all(|code| is_code_of(code, &OF_THE_TEXT)) {
        return "fleetctl migrate run DIRECTORY …      # after correcting the file or the data; op retry uses the old text"
            .to_owned();
    }
    format!("fleetctl op retry {id}      # only what failed")
}

/// Uses the specific exit code of an error when every tenant failed with that error.
fn refine_exit(codes: &[String]) -> CommandExit {
    match codes.first() {
        Some(_) if codes.iter().all(|code| is_code_of(code, &[ErrorKind::DatabaseFenced])) => CommandExit::Fenced,
        _ => CommandExit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_not_advised_where_it_repeats_the_old_text() {
        let advice = |codes: &[&str]| retry_hint("op_1", &codes.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>());
        assert!(advice(&["migration_failed", "migration_dirty"]).starts_with("fleetctl migrate run DIRECTORY"));
        assert!(advice(&["migration_failed", "database_busy"]).starts_with("fleetctl op retry op_1"));
    }

    #[test]
    fn fenced_everywhere_is_fenced_and_anything_else_is_failed() {
        let codes = |list: &[&str]| list.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        assert_eq!(refine_exit(&codes(&["fenced", "fenced"])), CommandExit::Fenced);
        assert_eq!(refine_exit(&codes(&["fenced", "io"])), CommandExit::Failed);
        assert_eq!(refine_exit(&[]), CommandExit::Failed);
    }

    #[test]
    fn only_a_run_in_the_way_is_waited_for() {
        assert!(is_blocked_by_run(&CommandFailure::new(CommandExit::Conflict, "x").code("operation_in_progress")));
        assert!(!is_blocked_by_run(&CommandFailure::new(CommandExit::Conflict, "x").code("already_exists")));
    }
}
