//! Watches an operation until it ends: a bar for a human, a line now and then for a log.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::client::{Client, Request, segment};
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::output::Loudness;

/// A human wants to see movement.
const LOOK_WATCHED: Duration = Duration::from_secs(1);
/// A log wants few lines; a quiet wait still returns the moment the operation ends.
const LOOK_UNWATCHED: Duration = Duration::from_secs(30);
/// What the API allows for one long poll.
const LOOK_MAX: Duration = Duration::from_secs(60);

/// How waiting ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The operation ended, or is paused.
    Operation(Value),
    /// The caller's patience did.
    TimedOut(Value),
    /// Ctrl-C.
    Interrupted,
}

/// Waits for an operation. In an embedded control plane waiting is also what runs it.
pub(crate) async fn wait(context: &mut Context, client: &Client, id: &str, timeout: Option<Duration>) -> Result<Ended> {
    let deadline = timeout.map(|t| Instant::now() + t);
    let mut display = Display::new(context);
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let look = left.map_or(display.interval, |l| l.min(display.interval)).min(LOOK_MAX);
        let seconds = look.as_secs_f64().ceil() as u64;
        let request =
            Request::get(format!("/v1/operations/{}", segment(id)?)).query("wait_seconds", &seconds.to_string());
        let operation = tokio::select! {
            answer = client.json(&request) => answer?,
            () = context.interrupted() => { display.clear(); return Ok(Ended::Interrupted) }
        };
        display.show(context, &operation);
        if is_over(&operation) {
            display.clear();
            return Ok(Ended::Operation(operation));
        }
        if deadline.is_some_and(|d| Instant::now() >= d) {
            display.clear();
            return Ok(Ended::TimedOut(operation));
        }
    }
}

/// Paused counts: nothing happens until somebody resumes it.
fn is_over(operation: &Value) -> bool {
    matches!(operation["state"].as_str(), Some("succeeded" | "partial" | "failed" | "cancelled" | "paused"))
}

/// The exit code of an operation that ended.
pub(crate) fn exit_of(operation: &Value) -> Result<Exit> {
    match operation["state"].as_str() {
        Some("succeeded") => Ok(Exit::Done),
        Some("partial") => Ok(Exit::Partial),
        Some("failed" | "cancelled") => Ok(Exit::Failed),
        Some("paused") => Ok(Exit::TimedOut),
        _ => Err(Failure::unexpected("the operation is in no state this version knows")),
    }
}

enum Kind {
    Bar(ProgressBar),
    Lines { last: Option<String> },
    Nothing,
}

struct Display {
    kind: Kind,
    interval: Duration,
}

impl Display {
    fn new(context: &Context) -> Self {
        match (context.out.loudness, context.out.watched) {
            (Loudness::Quiet, _) => Self { kind: Kind::Nothing, interval: LOOK_MAX },
            (Loudness::Normal, false) => Self { kind: Kind::Lines { last: None }, interval: LOOK_UNWATCHED },
            (Loudness::Normal, true) => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                let template = "{msg} {wide_bar} {pos}/{len} {elapsed_precise} eta {eta}";
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style);
                }
                Self { kind: Kind::Bar(bar), interval: LOOK_WATCHED }
            }
        }
    }

    fn show(&mut self, context: &mut Context, operation: &Value) {
        match &mut self.kind {
            Kind::Bar(bar) => {
                let (ended, total) = counts(operation);
                bar.set_length(total);
                bar.set_position(ended);
                bar.set_message(message(operation));
            }
            Kind::Lines { last } => {
                let line = line(operation);
                if !is_over(operation) && last.as_ref() != Some(&line) {
                    context.out.note(&line);
                    *last = Some(line);
                }
            }
            Kind::Nothing => {}
        }
    }

    fn clear(&mut self) {
        if let Kind::Bar(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }
}

fn counts(operation: &Value) -> (u64, u64) {
    let n = |key: &str| operation["progress"][key].as_u64().unwrap_or_default();
    (n("done") + n("failed") + n("skipped"), n("total"))
}

fn message(operation: &Value) -> String {
    let kind = operation["kind"].as_str().unwrap_or("operation");
    match operation["progress"]["failed"].as_u64() {
        Some(failed) if failed > 0 => format!("{kind}, {failed} failed"),
        _ => kind.to_owned(),
    }
}

/// One line of a log.
pub(crate) fn line(operation: &Value) -> String {
    let text = |key: &str| operation[key].as_str().unwrap_or("?").to_owned();
    let n = |key: &str| operation["progress"][key].as_u64().unwrap_or_default();
    let mut out = format!("{} {} {}: {} of {} done", text("kind"), text("id"), text("state"), n("done"), n("total"));
    let needed_nothing = n("skipped").saturating_sub(n("left"));
    for (count, word) in [(n("failed"), "failed"), (n("left"), "skipped"), (needed_nothing, "needed nothing")] {
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
            ("succeeded", Exit::Done),
            ("partial", Exit::Partial),
            ("failed", Exit::Failed),
            ("cancelled", Exit::Failed),
            ("paused", Exit::TimedOut),
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
        assert_eq!(line(&operation), "migrate op_1 running: 3 of 10 done, 1 failed, 2 skipped, 3 needed nothing");
    }
}
