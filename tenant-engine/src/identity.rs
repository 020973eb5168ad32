//! The identity: the row in every tenant database that says whose database it is. Each operation checks it (the fence).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{FleetId, Generation, OperationId, TenantId};

/// The purpose of a database, as its identity row records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityState {
    /// An operation is filling the database; it is never served.
    Building,
    /// The database serves reads and writes.
    Active,
    /// The database serves reads only, and only while the catalog says that writes are blocked.
    Frozen,
    /// The tenant has another database now. This one is not served in this state.
    Moved,
    /// The tenant was archived or deleted. The database is not served in this state.
    Tombstone,
}

impl IdentityState {
    /// The text that is stored in the row.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Active => "active",
            Self::Frozen => "frozen",
            Self::Moved => "moved",
            Self::Tombstone => "tombstone",
        }
    }
}

impl FromStr for IdentityState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "building" => Ok(Self::Building),
            "active" => Ok(Self::Active),
            "frozen" => Ok(Self::Frozen),
            "moved" => Ok(Self::Moved),
            "tombstone" => Ok(Self::Tombstone),
            other => Err(Error::new(ErrorKind::Corrupt, format!("unknown identity state '{other}'"))),
        }
    }
}

impl fmt::Display for IdentityState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The row `_fleet_identity` of one tenant database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The tenant whose data this is. Only a clone changes it, while it builds the database.
    pub tenant: TenantId,
    /// The fleet that owns the database.
    pub fleet: FleetId,
    /// Must equal the catalog's generation for the database to be served.
    pub generation: Generation,
    /// The purpose of the database.
    pub state: IdentityState,
    /// The operation that stamped the database.
    pub op: Option<OperationId>,
    /// Time of the stamp in milliseconds since 1970, by the clock of the process that stamped.
    pub stamped_at: i64,
}

impl Identity {
    /// True when both identities are equal apart from the time of their stamps.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        Self { stamped_at: other.stamped_at, ..self.clone() } == *other
    }
}

/// The identity that a caller expects in the database that it opens. Checked inside the transaction of the operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedIdentity {
    /// The tenant whose data it must be.
    pub tenant: TenantId,
    /// The fleet that it must belong to.
    pub fleet: FleetId,
    /// The generation that it must carry.
    pub generation: Generation,
    /// The states in which the operation may continue.
    pub states: Vec<IdentityState>,
}

impl ExpectedIdentity {
    /// Accepts the identity `found`, or says which part differs.
    ///
    /// # Errors
    /// [`ErrorKind::WrongTenant`] when the database belongs to another tenant or fleet. [`ErrorKind::Fenced`] when it
    /// is the right tenant's database with another generation or state than expected.
    pub fn check_identity(&self, found: &Identity) -> Result<()> {
        if found.tenant != self.tenant || found.fleet != self.fleet {
            return Err(Error::new(
                ErrorKind::WrongTenant,
                format!(
                    "the database belongs to {} of {}, expected {} of {}",
                    found.tenant, found.fleet, self.tenant, self.fleet
                ),
            ));
        }
        if found.generation != self.generation || !self.states.contains(&found.state) {
            return Err(Error::new(
                ErrorKind::Fenced,
                format!(
                    "the database is at generation {} and {}, expected generation {} and {}",
                    found.generation,
                    found.state,
                    self.generation,
                    state_names(&self.states)
                ),
            ));
        }
        Ok(())
    }
}

fn state_names(states: &[IdentityState]) -> String {
    states.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" or ")
}
