//! Records the reports of workers; only the holder of a step's epoch may report.

use std::collections::HashSet;

use crate::bulk::{INT, SqlQuery, TEXT, distinct_rounds, dynamic_query, sized_chunks, values_clause};
use crate::db::WriteTx;
use crate::error::Result;
use crate::row;
use crate::steps::{StepOutcome, StepResult, StepState, TenantSlot, bind_slots};
use crate::text_enum::TextEnum as _;

/// Writes each outcome whose step is still held under its epoch. Returns, in order, whether each was written. The
/// caller applies only the effects of written outcomes. Two outcomes of one step are applied in order. A retry of a
/// cancelled operation's step ends the step.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn record_outcomes(tx: &mut WriteTx, outcomes: &[StepOutcome]) -> Result<Vec<bool>> {
    let mut applied = vec![false; outcomes.len()];
    let numbered: Vec<(usize, &StepOutcome)> = outcomes.iter().enumerate().collect();
    for round in distinct_rounds(&numbered, |(_, outcome)| (outcome.op_id, outcome.tenant_id)) {
        for chunk in sized_chunks(&round) {
            let held = record_chunk(tx, chunk).await?;
            let mut free = Vec::new();
            for (number, outcome) in chunk {
                let slot = (outcome.op_id, outcome.tenant_id);
                applied[*number] = held.contains(&slot);
                if applied[*number] && !matches!(outcome.result, StepResult::Next { .. }) {
                    free.push(slot);
                }
            }
            free_slots(tx, &free).await?;
        }
    }
    Ok(applied)
}

async fn free_slots(tx: &mut WriteTx, slots: &[TenantSlot]) -> Result<()> {
    for chunk in sized_chunks(slots) {
        let sql = format!(
            "with v(op_id, tenant_id) as ({}) update tenants set op_id = null from v \
             where tenants.id = v.tenant_id and tenants.op_id = v.op_id",
            values_clause(chunk.len(), &[TEXT, TEXT])
        );
        tx.execute_sql(bind_slots(dynamic_query(sql), chunk)).await?;
    }
    Ok(())
}

/// Applies outcomes of distinct steps in one statement. Returns the steps that were changed.
async fn record_chunk(tx: &mut WriteTx, outcomes: &[&(usize, &StepOutcome)]) -> Result<HashSet<TenantSlot>> {
    let types = [TEXT, TEXT, TEXT, INT, TEXT, TEXT, TEXT, INT, INT, TEXT, TEXT, INT];
    let sql = format!(
        "with v(op_id, tenant_id, owner, epoch, new_state, phase, facts, not_before, uncounted, code, message, finished) as ({}) \
         update steps set \
           state = case when v.new_state = 'pending' and (select o.state from operations o where o.id = steps.op_id) \
             in ('cancelled', 'failed') then 'cancelled' else v.new_state end, \
           phase = coalesce(v.phase, steps.phase), facts = coalesce(v.facts, steps.facts), \
           attempt = case when v.new_state = 'running' then 0 else attempt - v.uncounted end, \
           deaths = case when v.new_state = 'running' then 0 else deaths end, \
           not_before = coalesce(v.not_before, steps.not_before), \
           lease_owner = case when v.new_state = 'running' then lease_owner else null end, \
           lease_until = case when v.new_state = 'running' then lease_until else null end, \
           error_code = v.code, error = v.message, finished_at = v.finished \
         from v where steps.op_id = v.op_id and steps.tenant_id = v.tenant_id and steps.state = 'running' \
         and steps.lease_owner = v.owner and steps.lease_epoch = v.epoch returning steps.op_id, steps.tenant_id",
        values_clause(outcomes.len(), &types)
    );
    let now = tx.now();
    let sql = outcomes.iter().fold(dynamic_query(sql), |sql, (_, outcome)| bind_outcome(sql, outcome, now));
    let rows = tx.fetch_rows(sql).await?;
    rows.iter().map(|row| Ok((row::parsed_column(row, "op_id")?, row::parsed_column(row, "tenant_id")?))).collect()
}

/// The columns that an outcome changes; `None` leaves phase, facts and time unchanged.
#[derive(Default)]
struct StepChange {
    state: Option<StepState>,
    phase: Option<String>,
    facts: Option<String>,
    not_before: Option<i64>,
    /// Number of claims that do not count as attempts.
    uncounted: i64,
    code: Option<String>,
    message: Option<String>,
    finished: Option<i64>,
}

impl StepChange {
    fn from_result(result: &StepResult, now: i64) -> Self {
        match result.clone() {
            StepResult::Next { phase, facts } => {
                Self { state: Some(StepState::Running), phase: Some(phase), facts: Some(facts), ..Self::default() }
            }
            StepResult::Done { facts } => {
                Self { state: Some(StepState::Succeeded), facts: Some(facts), finished: Some(now), ..Self::default() }
            }
            StepResult::Retry { not_before, code, message } => Self {
                state: Some(StepState::Pending),
                not_before: Some(not_before),
                code: Some(code),
                message: Some(message),
                ..Self::default()
            },
            StepResult::HandedBack { code, message } => Self {
                state: Some(StepState::Pending),
                not_before: Some(now),
                uncounted: 1,
                code: Some(code),
                message: Some(message),
                ..Self::default()
            },
            StepResult::Skipped { code, message } => Self::ended_with(StepState::Skipped, code, message, now),
            StepResult::Failed { code, message } => Self::ended_with(StepState::Failed, code, message, now),
        }
    }

    fn ended_with(state: StepState, code: String, message: String, now: i64) -> Self {
        Self { state: Some(state), code: Some(code), message: Some(message), finished: Some(now), ..Self::default() }
    }
}

fn bind_outcome<'q>(sql: SqlQuery<'q>, outcome: &StepOutcome, now: i64) -> SqlQuery<'q> {
    let change = StepChange::from_result(&outcome.result, now);
    sql.bind(outcome.op_id.to_string())
        .bind(outcome.tenant_id.to_string())
        .bind(outcome.lease_owner.clone())
        .bind(outcome.lease_epoch)
        .bind(change.state.map(|state| state.stored_text()))
        .bind(change.phase)
        .bind(change.facts)
        .bind(change.not_before)
        .bind(change.uncounted)
        .bind(change.code)
        .bind(change.message)
        .bind(change.finished)
}
