//! The runner with an operation of its own, which has no database: phases, retries, failures, opening and closing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use catalog::TenantState;
use catalog::operations::{OperationRecord, OperationState};
use catalog::steps::StepState;
use control_plane::operation::{
    CatalogEffect, ClaimedStep, FleetOperation, OpenedOperation, OperationRegistry, OperationTargets, PhaseOutcome,
    PlanInput, StepContext, StepPlan, StepVerdict, StoredOperation,
};
use control_plane::plan::TenantSelection;
use control_plane::runner::Runner;
use control_plane::runner::submit::{Submission, SubmitMode, SubmitOutcome};
use control_plane::tasks::ProcessTasks;
use control_plane::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::world::{World, caller};

/// What the runner called, by operation. Operations are made from their rows, so they cannot hold it themselves.
static CALLS: Mutex<BTreeMap<String, Vec<String>>> = Mutex::new(BTreeMap::new());

/// Writes down what the runner calls. `globex` fails once, `initech` always.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct NoteCalls {
    opened: bool,
}

fn note(record: &OperationRecord, call: impl Into<String>) {
    CALLS.lock().unwrap().entry(record.id.to_string()).or_default().push(call.into());
}

fn failure(transient: bool) -> Error {
    let mut error = Error::internal("written on purpose");
    error.transient = transient;
    error
}

impl StoredOperation for NoteCalls {
    fn kind_name(&self) -> &'static str {
        "note_calls"
    }

    fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string(self).unwrap())
    }

    fn clone_boxed(&self) -> Box<dyn FleetOperation> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl FleetOperation for NoteCalls {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::Selected(&[TenantState::Active])
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        plan.opens = true;
        for tenant in &seen.tenants {
            plan.add_step(tenant.id, &tenant.name, || "is written down".to_owned());
        }
        Ok(())
    }

    fn describe_opening(&self) -> Option<&'static str> {
        (!self.opened).then_some("opening the book")
    }

    async fn run_opening(&self, _context: &StepContext, record: &OperationRecord) -> Result<OpenedOperation> {
        note(record, "opening");
        let operation = Box::new(Self { opened: true });
        Ok(OpenedOperation { operation, promotes: None, nothing_done: None, data: json!({}) })
    }

    async fn run_phase(&self, _context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        note(&step.op, format!("{} '{}' {}", step.tenant.name, step.phase, step.attempt));
        match (step.tenant.name.as_str(), step.phase.as_str(), step.attempt) {
            ("globex", "", 1) => Err(failure(true)).into(),
            ("initech", ..) => Err(failure(false)).into(),
            (_, "", _) => PhaseOutcome::next_phase("second", json!({"attempts": step.attempt})),
            (_, "second", _) => PhaseOutcome {
                verdict: StepVerdict::Done(step.parse_facts().unwrap()),
                effects: vec![CatalogEffect::Event(step.tenant_event("tenant.noted", json!({})))],
            },
            _ => Err(step.unknown_phase()).into(),
        }
    }

    async fn run_closing(&self, _context: &StepContext, record: &OperationRecord) -> Result<()> {
        note(record, "closing");
        Ok(())
    }
}

/// A runner beside the process's own that knows no kind but this.
fn start_runner(world: &World) -> Arc<Runner> {
    let parse_record = |record: &OperationRecord| match serde_json::from_str::<NoteCalls>(&record.params) {
        Ok(operation) => Ok(Box::new(operation) as Box<dyn FleetOperation>),
        Err(error) => Err(Error::internal("of another kind").with_source(error)),
    };
    Runner::start_runner(Arc::clone(&world.app.context), OperationRegistry { parse_record }, ProcessTasks::default(), 4)
}

async fn submit(runner: &Runner, submission: Submission) -> OperationRecord {
    match runner.submit_operation(&caller(), submission, SubmitMode::Run).await.unwrap() {
        SubmitOutcome::Started(record) => record,
        SubmitOutcome::Planned(plan) => panic!("only planned: {plan:?}"),
    }
}

/// Moves the clock past each retry's delay while it waits.
async fn finish(world: &World, runner: &Runner, record: &OperationRecord) -> OperationRecord {
    for _ in 0..600 {
        let seen = runner.wait_for_operation(record.id, Duration::from_millis(100)).await.unwrap();
        if seen.finished_at.is_some() {
            return seen;
        }
        world.advance(Duration::from_secs(1));
    }
    panic!("{record:?} has not ended");
}

#[tokio::test]
async fn an_operation_is_opened_run_retried_and_closed() {
    let world = World::new().await;
    world.create(&["acme", "globex", "initech"]).await;
    let runner = start_runner(&world);
    let operation: Box<dyn FleetOperation> = Box::new(NoteCalls { opened: false });
    let started = submit(&runner, Submission::new(operation, TenantSelection::all_tenants())).await;
    let ended = finish(&world, &runner, &started).await;
    assert_eq!(ended.state, OperationState::Partial, "one of three steps failed");

    let mut calls = CALLS.lock().unwrap().remove(&started.id.to_string()).unwrap();
    assert_eq!((calls.remove(0), calls.pop().unwrap()), ("opening".to_owned(), "closing".to_owned()));
    calls.sort();
    assert_eq!(
        calls,
        ["acme '' 1", "acme 'second' 1", "globex '' 1", "globex '' 2", "globex 'second' 1", "initech '' 1"]
    );
    let done = world.steps(ended.id, &[StepState::Succeeded]).await;
    let mut facts: Vec<_> = done.iter().map(|(step, name)| (name.as_str(), step.facts.as_str())).collect();
    facts.sort_unstable();
    assert_eq!(facts, [("acme", r#"{"attempts":1}"#), ("globex", r#"{"attempts":2}"#)]);
    assert_eq!(world.failure(&ended).await, "internal");
    for (name, is_noted) in [("acme", true), ("globex", true), ("initech", false)] {
        let tenant = world.tenant(name).await.id;
        let mut tx = world.app.catalog.read().await.unwrap();
        let event = catalog::events::latest_event(&mut tx, tenant, &["tenant.noted"]).await.unwrap();
        assert_eq!(event.is_some(), is_noted, "{name}");
    }
}

#[tokio::test]
async fn an_operation_of_a_kind_that_the_registry_does_not_know_fails_and_changes_nothing() {
    let world = World::new().await;
    let runner = start_runner(&world);
    let operation = crate::world::creating(&["acme"]);
    let started = submit(&runner, Submission::new(operation, TenantSelection::default())).await;
    let ended = finish(&world, &runner, &started).await;
    assert_eq!((ended.state, ended.error_code.as_deref()), (OperationState::Failed, Some("internal")));
    assert!(world.tenant("acme").await.placement.is_none());
}
