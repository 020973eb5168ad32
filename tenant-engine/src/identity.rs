//! The row in every tenant database that says whose it is: the far end of the fence.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{FleetId, Generation, OperationId, TenantId};

/// What an identity row says the database is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityState {
    /// Being filled by an operation; never served.
    Building,
    /// Reads and writes.
    Active,
    /// Reads only, and only while the catalog says that writes are blocked.
    Frozen,
    /// The tenant lives elsewhere now; never served.
    Moved,
    /// Deleted or replaced; never served.
    Tombstone,
}

impl IdentityState {
    /// As written into the row.
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
    /// Whose data this is; changed by clone only, while building.
    pub tenant: TenantId,
    /// Which fleet owns it.
    pub fleet: FleetId,
    /// Must equal the catalog's to be served.
    pub generation: Generation,
    /// What the database may be used for.
    pub state: IdentityState,
    /// The operation that stamped it.
    pub op: Option<OperationId>,
    /// Milliseconds since 1970, by the clock of the stamper.
    pub stamped_at: i64,
}

impl Identity {
    /// True when both say the same about the database; when it was stamped does not count.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        Self { stamped_at: other.stamped_at, ..self.clone() } == *other
    }
}

/// What a caller believes about the database it is about to open. Checked inside the verb's own transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Whose data it must be.
    pub tenant: TenantId,
    /// Whose fleet it must belong to.
    pub fleet: FleetId,
    /// The generation it must carry.
    pub generation: Generation,
    /// The states in which the verb may go on.
    pub states: Vec<IdentityState>,
}

impl Expected {
    /// Accepts `found`, or says which part differs.
    ///
    /// # Errors
    /// [`ErrorKind::WrongTenant`] when the database is somebody else's, [`ErrorKind::Fenced`] when it is the right
    /// tenant's but not the one (or not in the state) the caller was told about.
    pub fn check(&self, found: &Identity) -> Result<()> {
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
                    names(&self.states)
                ),
            ));
        }
        Ok(())
    }
}

fn names(states: &[IdentityState]) -> String {
    states.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" or ")
}
