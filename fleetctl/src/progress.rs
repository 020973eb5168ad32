//! Watches an operation until it ends: a progress bar for people, an occasional line for a log.

use std::time::{Duration, Instant};

use fleet_api::field;
use fleet_api::operations::{OperationView, TenantProgress};
use fleet_client::{ApiRequest, path_segment};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::client::ApiClient;
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::output::OutputVerbosity;

/// Interval of updates for people.
const LOOK_WATCHED: Duration = Duration::from_secs(1);
/// Interval of lines in a log. A quiet wait still returns as soon as the operation ends.
const LOOK_UNWATCHED: Duration = Duration::from_secs(30);
/// The API's maximum for one long poll.
const LOOK_MAX: Duration = Duration::from_secs(60);

/// The reason why waiting ended.
#[derive(Debug)]
pub(crate) enum WaitEnd {
    /// The operation ended, or is paused.
    Operation(Value),
    /// The caller's time limit was reached.
    TimedOut(Value),
    /// The user pressed Ctrl-C.
    Interrupted,
}

/// Waits for an operation. In an embedded control plane, waiting also runs it.
pub(crate) async fn wait_for_operation(
    context: &mut CommandContext,
    client: &ApiClient,
    id: &str,
    timeout: Option<Duration>,
) -> Result<WaitEnd> {
    let deadline = timeout.map(|t| Instant::now() + t);
    let mut display = ProgressDisplay::new(context);
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let look = left.map_or(display.interval, |l| l.min(display.interval)).min(LOOK_MAX);
        let seconds = look.as_secs_f64().ceil() as u64;
        let request = ApiRequest::get(format!("/v1/operations/{}", path_segment(id)?))
            .with_query("wait_seconds", &seconds.to_string());
        let operation = tokio::select! {
            answer = client.send_for_json(&request) => answer?,
            () = context.wait_for_interrupt() => { display.clear_bar(); return Ok(WaitEnd::Interrupted) }
        };
        display.show_progress(context, &operation);
        if is_over(&operation) {
            display.clear_bar();
            return Ok(WaitEnd::Operation(operation));
        }
        if deadline.is_some_and(|d| Instant::now() >= d) {
            display.clear_bar();
            return Ok(WaitEnd::TimedOut(operation));
        }
    }
}

/// True for a paused operation too: it does not continue until an operator resumes it.
fn is_over(operation: &Value) -> bool {
    matches!(
        operation[field!(OperationView: state)].as_str(),
        Some("succeeded" | "partial" | "failed" | "cancelled" | "paused")
    )
}

/// The exit code of an operation that ended.
pub(crate) fn exit_of(operation: &Value) -> Result<CommandExit> {
    match operation[field!(OperationView: state)].as_str() {
        Some("succeeded") => Ok(CommandExit::Done),
        Some("partial") => Ok(CommandExit::Partial),
        Some("failed" | "cancelled") => Ok(CommandExit::Failed),
        Some("paused") => Ok(CommandExit::TimedOut),
        _ => Err(CommandFailure::unexpected_answer("this version does not know the operation's state")),
    }
}

enum ProgressKind {
    Bar(ProgressBar),
    Lines { last: Option<String> },
    Nothing,
}

struct ProgressDisplay {
    kind: ProgressKind,
    interval: Duration,
}

impl ProgressDisplay {
    fn new(context: &CommandContext) -> Self {
        match (context.out.loudness, context.out.watched) {
            (OutputVerbosity::Quiet, _) => Self { kind: ProgressKind::Nothing, interval: LOOK_MAX },
            (OutputVerbosity::Normal, false) => {
                Self { kind: ProgressKind::Lines { last: None }, interval: LOOK_UNWATCHED }
            }
            (OutputVerbosity::Normal, true) => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                let template = "{msg} {wide_bar} {pos}/{len} {elapsed_precise} eta {eta}";
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style);
                }
                Self { kind: ProgressKind::Bar(bar), interval: LOOK_WATCHED }
            }
        }
    }

    fn show_progress(&mut self, context: &mut CommandContext, operation: &Value) {
        match &mut self.kind {
            ProgressKind::Bar(bar) => {
                let (ended, total) = progress_counts(operation);
                bar.set_length(total);
                bar.set_position(ended);
                bar.set_message(bar_message(operation));
            }
            ProgressKind::Lines { last } => {
                let line = progress_line(operation);
                if !is_over(operation) && last.as_ref() != Some(&line) {
                    context.out.print_note(&line);
                    *last = Some(line);
                }
            }
            ProgressKind::Nothing => {}
        }
    }

    fn clear_bar(&mut self) {
        if let ProgressKind::Bar(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }
}

fn progress_counts(operation: &Value) -> (u64, u64) {
    let n = |key: &str| operation[field!(OperationView: progress)][key].as_u64().unwrap_or_default();
    (
        n(field!(TenantProgress: done)) + n(field!(TenantProgress: failed)) + n(field!(TenantProgress: skipped)),
        n(field!(TenantProgress: total)),
    )
}

fn bar_message(operation: &Value) -> String {
    let kind = operation[field!(OperationView: kind)].as_str().unwrap_or("operation");
    if let Some(phase) = operation[field!(OperationView: phase)].as_str() {
        return format!("{kind}: {phase}");
    }
    match operation[field!(OperationView: progress)][field!(TenantProgress: failed)].as_u64() {
        Some(failed) if failed > 0 => format!("{kind}, {failed} failed"),
        _ => kind.to_owned(),
    }
}

/// The operation's state as one line of a log.
pub(crate) fn progress_line(operation: &Value) -> String {
    let text = |key: &str| operation[key].as_str().unwrap_or("?").to_owned();
    let n = |key: &str| operation[field!(OperationView: progress)][key].as_u64().unwrap_or_default();
    let mut out = format!(
        "{} {} {}: {} of {} done",
        text(field!(OperationView: kind)),
        text(field!(OperationView: id)),
        text(field!(OperationView: state)),
        n(field!(TenantProgress: done)),
        n(field!(TenantProgress: total))
    );
    if let Some(phase) = operation[field!(OperationView: phase)].as_str() {
        out.push_str(&format!(", {phase}"));
    }
    let needed_nothing = n(field!(TenantProgress: skipped)).saturating_sub(n(field!(TenantProgress: left)));
    for (count, word) in [
        (n(field!(TenantProgress: failed)), "failed"),
        (n(field!(TenantProgress: left)), "skipped"),
        (needed_nothing, "needed nothing"),
    ] {
        if count > 0 {
            out.push_str(&format!(", {count} {word}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_end_has_its_exit_code() {
        for (state, exit) in [
            ("succeeded", CommandExit::Done),
            ("partial", CommandExit::Partial),
            ("failed", CommandExit::Failed),
            ("cancelled", CommandExit::Failed),
            ("paused", CommandExit::TimedOut),
        ] {
            assert_eq!(exit_of(&json!({"state": state})), Ok(exit));
            assert!(is_over(&json!({"state": state})));
        }
        assert!(exit_of(&json!({"state": "new"})).is_err());
        assert!(!is_over(&json!({"state": "running"})));
    }

    #[test]
    fn a_line_says_how_far_it_is() {
        let operation = json!({"id": "op_1", "kind": "migrate", "state": "running",
            "progress": {"total": 10, "done": 3, "failed": 1, "skipped": 5, "left": 2}});
        assert_eq!(
            progress_line(&operation),
            "migrate op_1 running: 3 of 10 done, 1 failed, 2 skipped, 3 needed nothing"
        );
    }
}
