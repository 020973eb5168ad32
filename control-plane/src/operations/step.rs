//! One tenant's step of one operation, as a worker holds it.

use std::sync::{Arc, Mutex, PoisonError};

use catalog::events::NewEvent;
use catalog::operations::OperationRecord;
use catalog::{Generation, TenantRecord, TenantState};
use serde::de::DeserializeOwned;
use tenant_engine::{Expected, FleetId, Identity, IdentityState};

use crate::error::{Error, Result};

/// How long a claim is valid without being renewed: long enough for a stalled disk, short enough that somebody else
/// takes over while an operator still watches.
pub(crate) const LEASE_MS: i64 = 20_000;

/// What a phase is told.
#[derive(Debug, Clone)]
pub struct Step {
    /// Of which operation.
    pub op: Arc<OperationRecord>,
    /// On which tenant, read after the step was claimed and again after each recorded phase.
    pub tenant: TenantRecord,
    /// The phase to run; empty at first.
    pub phase: String,
    /// JSON that the last phase left.
    pub facts: String,
    /// Attempts at this phase, this one included.
    pub attempt: i64,
    /// How often a process died in this phase.
    pub deaths: i64,
    /// How often this step was claimed, this time included: as many numbers of placements are its own.
    pub claim: i64,
    /// When it was claimed, milliseconds since 1970.
    pub now: i64,
    /// The database that this claim filled in this process, by its placement; see `has_filled`.
    pub filled: Arc<Mutex<Option<String>>>,
}

impl Step {
    /// Remembers a database that was filled and is not named by the catalog yet.
    pub(super) fn note_filled(&self, placement: &str) {
        *self.filled.lock().unwrap_or_else(PoisonError::into_inner) = Some(placement.to_owned());
    }

    /// Whether this claim filled this database. While it is live and the catalog does not name it, nobody was served by it.
    pub(super) fn has_filled(&self, placement: &str) -> bool {
        self.filled.lock().unwrap_or_else(PoisonError::into_inner).as_deref() == Some(placement)
    }

    /// What the last phase left.
    ///
    /// # Errors
    /// `internal`: a later program wrote it.
    pub fn facts<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.facts)
            .map_err(|error| Error::internal("the facts of a step are not of its phase").with_source(error))
    }

    /// The tenant's database as the catalog knows it now, in one of these states.
    #[must_use]
    pub fn expected(&self, fleet: FleetId, states: &[IdentityState]) -> Expected {
        self.expected_at(fleet, self.tenant.generation, states)
    }

    /// The tenant's database at another generation than the catalog's.
    #[must_use]
    pub fn expected_at(&self, fleet: FleetId, generation: Generation, states: &[IdentityState]) -> Expected {
        Expected { tenant: self.tenant.id, fleet, generation, states: states.to_vec() }
    }

    /// The identity that this step stamps.
    #[must_use]
    pub fn identity(&self, fleet: FleetId, generation: Generation, state: IdentityState) -> Identity {
        Identity { tenant: self.tenant.id, fleet, generation, state, op: Some(self.op.id), stamped_at: self.now }
    }

    /// An event about this tenant, in the name of whoever asked for the operation.
    #[must_use]
    pub fn event(&self, kind: &str, data: serde_json::Value) -> NewEvent {
        NewEvent {
            kind: kind.to_owned(),
            actor: self.op.requested_by.clone(),
            tenant_id: Some(self.tenant.id),
            op_id: Some(self.op.id),
            request_id: None,
            data,
        }
    }

    /// Why it is done, for whoever looks at the tenant later.
    #[must_use]
    pub fn reason(&self) -> String {
        self.op.reason.clone().unwrap_or_else(|| format!("by {}", self.op.requested_by))
    }

    /// Refuses to begin on a tenant that is in another state than when the operation was submitted.
    ///
    /// # Errors
    /// `conflict`.
    pub fn require_state(&self, states: &[TenantState]) -> Result<()> {
        if states.contains(&self.tenant.state) {
            return Ok(());
        }
        let state = serde_json::to_value(self.tenant.state).unwrap_or_default();
        let detail = format!("{} is {} now", self.tenant.name, state.as_str().unwrap_or("changed"));
        Err(Error::new(409, "conflict", detail).try_next(format!("fleetctl tenant get {}", self.tenant.name)))
    }

    /// The error of a phase that no operation of this kind has.
    #[must_use]
    pub fn unknown_phase(&self) -> Error {
        Error::internal(format!("'{}' is not a phase of {}", self.phase, self.op.kind))
    }
}
