//! One tenant's step of one operation, as a worker holds it after claiming it.

use std::sync::{Arc, Mutex, PoisonError};

use catalog::events::NewEvent;
use catalog::operations::OperationRecord;
use catalog::{Generation, TenantRecord, TenantState};
use serde::de::DeserializeOwned;
use tenant_engine::{ExpectedIdentity, FleetId, Identity, IdentityState};

use crate::error::{Error, ErrorKind, Result};

/// A claimed step: the input of a phase.
#[derive(Debug, Clone)]
pub struct ClaimedStep {
    /// The operation that the step belongs to.
    pub op: Arc<OperationRecord>,
    /// The step's tenant, read after the claim and again after each recorded phase.
    pub tenant: TenantRecord,
    /// The phase to run; empty at first.
    pub phase: String,
    /// The JSON that the last phase returned.
    pub facts: String,
    /// Attempts at this phase, including this one.
    pub attempt: i64,
    /// How many times a process died in this phase.
    pub deaths: i64,
    /// How often this step was claimed, including this time. Each claim owns one placement number.
    pub claim: i64,
    /// When the step was claimed, milliseconds since 1970.
    pub now: i64,
    /// When the claim ends if it is not renewed, milliseconds since 1970.
    pub lease_until: i64,
    /// The placement of the database that this claim filled in this process; see `has_filled`.
    pub filled: Arc<Mutex<Option<String>>>,
}

impl ClaimedStep {
    /// Remembers the placement of a database that was filled and is not yet named by the catalog.
    pub(crate) fn note_filled(&self, placement: &str) {
        *self.filled.lock().unwrap_or_else(PoisonError::into_inner) = Some(placement.to_owned());
    }

    /// Whether this claim filled the database at `placement`. Such a database has served no request while the claim is
    /// valid and the catalog does not name it.
    pub(crate) fn has_filled(&self, placement: &str) -> bool {
        self.filled.lock().unwrap_or_else(PoisonError::into_inner).as_deref() == Some(placement)
    }

    /// Parses the facts that the last phase returned.
    ///
    /// # Errors
    /// `internal`: a newer program wrote the facts.
    pub fn parse_facts<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.facts)
            .map_err(|error| Error::internal("the stored facts of a step do not match its phase").with_source(error))
    }

    /// The identity that the tenant's database must have: the catalog's generation, and one of these states.
    #[must_use]
    pub fn expected_identity(&self, fleet: FleetId, states: &[IdentityState]) -> ExpectedIdentity {
        self.expected_at(fleet, self.tenant.generation, states)
    }

    /// The identity that a database of the tenant must have at a generation other than the catalog's.
    #[must_use]
    pub fn expected_at(&self, fleet: FleetId, generation: Generation, states: &[IdentityState]) -> ExpectedIdentity {
        ExpectedIdentity { tenant: self.tenant.id, fleet, generation, states: states.to_vec() }
    }

    /// The identity that this step writes into a database.
    #[must_use]
    pub fn identity_to_stamp(&self, fleet: FleetId, generation: Generation, state: IdentityState) -> Identity {
        Identity { tenant: self.tenant.id, fleet, generation, state, op: Some(self.op.id), stamped_at: self.now }
    }

    /// An event about this tenant, recorded for the user who requested the operation.
    #[must_use]
    pub fn tenant_event(&self, kind: &str, data: serde_json::Value) -> NewEvent {
        NewEvent {
            kind: kind.to_owned(),
            actor: self.op.requested_by.clone(),
            tenant_id: Some(self.tenant.id),
            op_id: Some(self.op.id),
            request_id: None,
            data,
        }
    }

    /// The reason of the change, shown to operators who look at the tenant later.
    #[must_use]
    pub fn change_reason(&self) -> String {
        self.op.reason.clone().unwrap_or_else(|| format!("by {}", self.op.requested_by))
    }

    /// Refuses to start on a tenant that has left the states that the operation works on.
    ///
    /// # Errors
    /// `conflict`: the tenant is in another state.
    pub fn require_state(&self, states: &[TenantState]) -> Result<()> {
        if states.contains(&self.tenant.state) {
            return Ok(());
        }
        let expected: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
        let (name, state, expected) = (&self.tenant.name, self.tenant.state.as_str(), expected.join(" or "));
        let detail = format!("{name} is {state} now, but {} needs a tenant that is {expected}", self.op.kind);
        Err(Error::new(ErrorKind::Conflict, detail).try_next(format!("fleetctl tenant get {name}")))
    }

    /// The error of a tenant whose creation ended in another way.
    #[must_use]
    pub fn not_in_creation(&self) -> Error {
        let (name, state) = (&self.tenant.name, self.tenant.state.as_str());
        Error::new(ErrorKind::Conflict, format!("{name} is {state} now, so its creation cannot continue"))
            .try_next(format!("fleetctl tenant get {name}"))
    }

    /// The error of a stored phase that this kind of operation does not have.
    #[must_use]
    pub fn unknown_phase(&self) -> Error {
        Error::internal(format!("'{}' is not a phase of {}", self.phase, self.op.kind))
    }
}
