//! Reads what a decision needs: the record of the replacement, and the identities of the current and the new database.
//! Changes nothing. A database that cannot be read is a condition like any other, so that the decision sees it.

use std::sync::Arc;

use catalog::replacements::{FencedDatabase, NewDatabase, ReplacementRecord};
use catalog::{BlockWrites, Generation, ServerId, TenantId};
use tenant_engine::{
    Engine, ErrorKind as DatabaseError, ExpectedIdentity, FleetId, Identity, IdentityState, InspectionDepth, Placement,
};

use super::decide::{DatabaseCondition, GenerationPosition, NewCondition, Situation, TenantBlock};
use super::fence::{state_under_block, unfenced_tenant_state};
use super::{stamp, state};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{ClaimedStep, StepContext};

/// A tenant whose database is being replaced, or might be, as it was found.
#[derive(Debug)]
pub(crate) struct Observation {
    /// The replacement under way.
    pub(crate) open: Option<ReplacementRecord>,
    /// Whether an operation blocks the tenant's writes.
    is_blocked: bool,
    /// The state of the database that serves after the block.
    pub(crate) served_state: IdentityState,
    /// The database that the catalog names.
    pub(crate) current: ObservedDatabase,
    new: ObservedNew,
}

/// A database as it was found.
#[derive(Debug)]
pub(crate) struct ObservedDatabase {
    pub(crate) condition: DatabaseCondition,
    identity: Option<Identity>,
    problem: Option<Error>,
}

/// A new database as it was found.
#[derive(Debug)]
struct ObservedNew {
    condition: NewCondition,
    /// What is wrong with it, for people.
    detail: String,
    problem: Option<Error>,
}

impl Observation {
    /// What the decision needs of it.
    pub(crate) fn situation(&self) -> Situation {
        let block = match (&self.open, self.is_blocked) {
            (_, false) => TenantBlock::None,
            (None, true) => TenantBlock::Unexplained,
            (Some(open), true) => TenantBlock::ByReplacement(open.stage),
        };
        let found = self.open.as_ref().map_or(FencedDatabase::Frozen, |open| open.found);
        let (current, new) = (self.current.condition, self.new.condition);
        Situation { block, found, served_state: self.served_state, current, new }
    }

    /// What is wrong with the new database, for people.
    pub(crate) fn new_problem(&self) -> &str {
        &self.new.detail
    }

    /// Why the current database could not be read, or else the new one.
    pub(crate) fn into_problem(self) -> Option<Error> {
        self.current.problem.or(self.new.problem)
    }
}

impl ObservedDatabase {
    /// The identity of a database that belongs to the tenant.
    ///
    /// # Errors
    /// The reason why it could not be read.
    pub(crate) fn require_identity(self) -> Result<Identity> {
        match (self.identity, self.problem) {
            (Some(identity), _) => Ok(identity),
            (None, Some(problem)) => Err(problem),
            (None, None) => Err(Error::internal("a database without an identity was to serve")),
        }
    }

    fn unread(condition: DatabaseCondition, problem: Error) -> Self {
        Self { condition, identity: None, problem: Some(problem) }
    }

    /// Why the database could not be read.
    pub(crate) fn into_problem(self) -> Error {
        self.problem.unwrap_or_else(|| Error::internal("a database that was read has no problem"))
    }

    /// The identity, if the database has one.
    pub(crate) fn found_identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}

/// Reads everything about a tenant's replacement.
///
/// # Errors
/// Those of the catalog; `conflict` for a worker whose step was taken over.
pub(crate) async fn observe_tenant(context: &StepContext, step: &ClaimedStep) -> Result<Observation> {
    let open = state::open_replacement(context, step).await?;
    observe_replacement(context, step, open).await
}

/// As [`observe_tenant`], when the caller has read the record.
pub(crate) async fn observe_replacement(
    context: &StepContext,
    step: &ClaimedStep,
    open: Option<ReplacementRecord>,
) -> Result<Observation> {
    let is_blocked = step.tenant.block_writes == Some(BlockWrites::Operation);
    let served_state = match is_blocked {
        true => state_under_block(open.as_ref().and_then(|open| open.previous_block)),
        false => unfenced_tenant_state(&step.tenant),
    };
    let current = observe_current(context, step).await?;
    let new = match open.as_ref().and_then(|open| open.new.as_ref()) {
        Some(new) => observe_new(context, step, new).await,
        None => ObservedNew { condition: NewCondition::NotMade, detail: "there is none".to_owned(), problem: None },
    };
    Ok(Observation { open, is_blocked, served_state, current, new })
}

/// Reads the identity of the database that the catalog names.
async fn observe_current(context: &StepContext, step: &ClaimedStep) -> Result<ObservedDatabase> {
    let Some(placement) = step.tenant.placement.as_deref() else {
        let problem = context.current_database(&step.tenant).await.err();
        return Ok(ObservedDatabase { condition: DatabaseCondition::Missing, identity: None, problem });
    };
    let observed = observe_database(context, step, (step.tenant.server_id, placement), step.tenant.generation).await;
    let ahead = matches!(observed.condition, DatabaseCondition::Own { at: GenerationPosition::Next, .. });
    // For a late worker, a database that seems one generation ahead may be the present one.
    if ahead && !stamp::is_ours(context, step).await? {
        return Err(Error::new(ErrorKind::Conflict, "another worker holds the step now"));
    }
    Ok(observed)
}

/// Reads the identity of a database of this tenant, in relation to the generation that it should have.
async fn observe_database(
    context: &StepContext,
    step: &ClaimedStep,
    (server, placement): (ServerId, &str),
    now: Generation,
) -> ObservedDatabase {
    match context.resolve_placement(server, placement).await {
        Ok((engine, at)) => observe_placement(engine, &at, (step.tenant.id, context.fleet_id()), now).await,
        Err(problem) => ObservedDatabase::unread(DatabaseCondition::Unreachable, problem),
    }
}

/// Reads the identity of the database at a placement. `owner` is the tenant and fleet that it should have, and `now` the
/// generation.
pub(crate) async fn observe_placement(
    engine: &Arc<dyn Engine>,
    at: &Placement,
    owner: (TenantId, FleetId),
    now: Generation,
) -> ObservedDatabase {
    let identity = match engine.inspect_database(at, None, InspectionDepth::Ledger).await {
        Ok(found) => found.identity,
        Err(error) => {
            let condition = match error.kind() {
                DatabaseError::Missing => DatabaseCondition::Missing,
                DatabaseError::Corrupt | DatabaseError::WrongTenant => DatabaseCondition::Damaged,
                _ => DatabaseCondition::Unreachable,
            };
            return ObservedDatabase::unread(condition, error.into());
        }
    };
    let condition = match (identity.tenant, identity.fleet) == owner {
        true => {
            let at = GenerationPosition::relative_to(now, identity.generation);
            DatabaseCondition::Own { state: identity.state, at }
        }
        false => DatabaseCondition::Foreign,
    };
    ObservedDatabase { condition, identity: Some(identity), problem: None }
}

/// Reads the new database, and compares its identity with the recorded one.
async fn observe_new(context: &StepContext, step: &ClaimedStep, new: &NewDatabase) -> ObservedNew {
    let ObservedDatabase { condition, identity, problem } =
        observe_database(context, step, (new.server_id, &new.placement), new.generation).await;
    let detail = match (&identity, &problem) {
        (Some(found), _) => format!("it is at generation {} and {}", found.generation, found.state),
        (None, Some(problem)) => problem.to_string(),
        (None, None) => String::new(),
    };
    ObservedNew { condition: NewCondition::of_database(condition), detail, problem }
}

/// The identity that an act must still find, so that it is refused after any change since the observation.
pub(crate) fn expected_as_found(found: &Identity) -> ExpectedIdentity {
    let Identity { tenant, fleet, generation, state, .. } = *found;
    ExpectedIdentity { tenant, fleet, generation, states: vec![state] }
}
