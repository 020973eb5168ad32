//! Which of a tenant's databases was the last to serve, by what they say of themselves: for a catalog that does not know.
//!
//! Every serving database was stamped with a generation that no other of the tenant's has, and what it replaced was
//! retired. So the one of the highest generation served last, if it serves; if that one is retired, the last one is
//! somewhere else, and nothing may be taken for it.

use catalog::{Generation, ServerId};
use tenant_engine::{Depth, ErrorKind, FoundKind, Identity, IdentityState, Inspection};

use super::{Fleet, Step};
use crate::error::{Error, Result};

/// A database under the tenant's name, and what it says.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) server: ServerId,
    pub(super) placement: String,
    pub(super) found: Inspection,
}

impl Candidate {
    fn identity(&self) -> &Identity {
        &self.found.identity
    }
}

/// Looks on every server; one that does not answer may have it. `None`: there is no database that was ever finished.
pub(super) async fn find(fleet: &Fleet, step: &Step) -> Result<Option<Candidate>> {
    let mut tx = fleet.catalog.read().await?;
    let servers = catalog::servers::list(&mut tx).await?;
    drop(tx);
    let mut candidates = Vec::new();
    for (server, _) in servers {
        let at = fleet.server(server.id).await?;
        let listing = fleet.engine(server.engine)?.databases(&at, Some(step.tenant.id)).await?;
        let databases = listing.found.into_iter().filter(|found| found.what == FoundKind::Database);
        for placement in databases.filter_map(|found| found.reference) {
            if let Some(found) = inspect(fleet, server.id, &placement).await? {
                candidates.push(Candidate { server: server.id, placement, found });
            }
        }
    }
    candidates.retain(|one| one.identity().tenant == step.tenant.id && one.identity().fleet == fleet.id());
    decide(candidates, step.tenant.generation).map_err(|why| refused(step, why.says()))
}

/// The error where there must be one.
pub(super) fn nothing(step: &Step) -> Error {
    refused(step, "no server of the fleet has one that was ever finished")
}

/// What a database says; nothing when it is damaged, was never finished, or has just gone.
async fn inspect(fleet: &Fleet, server: ServerId, placement: &str) -> Result<Option<Inspection>> {
    let (engine, at) = fleet.at(server, placement).await?;
    match engine.inspect(&at, None, Depth::Ledger).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::Missing | ErrorKind::Corrupt) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Why none can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Undecided {
    Retired,
    Buried,
    Two,
    Older,
}

impl Undecided {
    fn says(self) -> &'static str {
        match self {
            Self::Retired => "the newest was retired; what replaced it is on no server that this catalog knows",
            Self::Buried => "the newest was archived or deleted since",
            Self::Two => "two of one generation say that they serve",
            Self::Older => "the newest is older than what the catalog knows of",
        }
    }
}

/// PURE.
fn decide(mut all: Vec<Candidate>, known: Generation) -> Result<Option<Candidate>, Undecided> {
    // What was being made never served.
    all.retain(|one| one.identity().state != IdentityState::Building);
    let newest = all.iter().map(|one| one.identity().generation).max();
    all.retain(|one| Some(one.identity().generation) == newest);
    // A copy of a file says what its original does, also when that was retired since.
    if all.len() > 1 {
        return Err(Undecided::Two);
    }
    let Some(one) = all.pop() else { return Ok(None) };
    match one.identity().state {
        _ if one.identity().generation < known => Err(Undecided::Older),
        IdentityState::Active | IdentityState::Frozen => Ok(Some(one)),
        IdentityState::Tombstone => Err(Undecided::Buried),
        IdentityState::Moved | IdentityState::Building => Err(Undecided::Retired),
    }
}

fn refused(step: &Step, what: &str) -> Error {
    let name = &step.tenant.name;
    let detail = format!("of the databases of {name}, none can be taken for the last that served: {what}");
    Error::new(409, "fenced", detail).try_next(format!("fleetctl scrub; fleetctl restore run {name} --to latest"))
}

#[cfg(test)]
mod tests {
    use tenant_engine::{FleetId, TenantId};

    use super::*;

    fn one(generation: i64, state: IdentityState) -> Candidate {
        let identity = Identity {
            tenant: TenantId::generate(),
            fleet: FleetId::generate(),
            generation: Generation(generation),
            state,
            op: None,
            stamped_at: 0,
        };
        let found = Inspection {
            identity,
            applied: Vec::new(),
            size_bytes: 0,
            problems: Vec::new(),
            foreign_key_violations: 0,
        };
        Candidate { server: ServerId::generate(), placement: format!("g{generation}"), found }
    }

    fn taken(all: &[(i64, IdentityState)]) -> Result<Option<i64>, Undecided> {
        let all = all.iter().map(|(generation, state)| one(*generation, *state)).collect();
        Ok(decide(all, Generation(5))?.map(|one| one.identity().generation.0))
    }

    #[test]
    fn only_the_newest_that_serves_is_taken() {
        use IdentityState::{Active, Building, Frozen, Moved, Tombstone};
        assert_eq!(taken(&[]), Ok(None));
        assert_eq!(taken(&[(5, Building)]), Ok(None));
        assert_eq!(taken(&[(5, Active)]), Ok(Some(5)));
        assert_eq!(taken(&[(6, Moved), (9, Active), (10, Building)]), Ok(Some(9)));
        assert_eq!(taken(&[(6, Moved), (9, Frozen), (7, Active)]), Ok(Some(9)));
        assert_eq!(taken(&[(6, Active), (9, Moved)]), Err(Undecided::Retired));
        assert_eq!(taken(&[(6, Active), (9, Tombstone)]), Err(Undecided::Buried));
        assert_eq!(taken(&[(9, Active), (9, Moved)]), Err(Undecided::Two));
        assert_eq!(taken(&[(4, Active)]), Err(Undecided::Older));
    }
}
