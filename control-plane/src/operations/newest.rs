//! Which of a tenant's databases was the last to serve, by what they say of themselves: for a catalog that does not know.
//!
//! Every serving database was stamped with a generation that no other of the tenant's has, and what it replaced was
//! retired. So the one of the highest generation served last, unless it is retired: then the last one is somewhere else.
//! That holds as long as only one catalog counted. One that was set back counts a second time, so where another database
//! says that it serves as well nothing is taken for the last one, and operations keep away from what is further than
//! the catalog.

use std::sync::Arc;

use catalog::{Generation, ServerId, TenantRecord, TenantState};
use tenant_engine::{Depth, Engine, ErrorKind, FoundKind, Identity, IdentityState, Inspection, Placement};

use super::{Fleet, Step, swap};
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

    fn generation(&self) -> Generation {
        self.identity().generation
    }
}

/// By the catalog's word no database of this tenant serves.
pub(super) fn is_buried(tenant: &TenantRecord) -> bool {
    matches!(tenant.state, TenantState::Archived | TenantState::Deleted)
}

/// Looks on every server; one that does not answer may have it. `None`: nothing has served since the catalog's word.
pub(super) async fn find(fleet: &Fleet, step: &Step) -> Result<Option<Candidate>> {
    let mut tx = fleet.catalog.read().await?;
    let servers = catalog::servers::list(&mut tx).await?;
    let kept = catalog::retained::of_tenant(&mut tx, step.tenant.id).await?;
    drop(tx);
    let is_known_bad = |server: ServerId, placement: &str| {
        let same = |kept: &&_| same_place(kept, server, placement);
        kept.iter().find(same).is_some_and(|kept| kept.reason == swap::DAMAGED)
    };
    let mut candidates = Vec::new();
    for (server, _) in servers {
        for placement in named_after(fleet, step, server.id).await? {
            match inspect(fleet, server.id, &placement).await? {
                Seen::Says(found) => candidates.push(Candidate { server: server.id, placement, found: *found }),
                Seen::Unreadable if !is_known_bad(server.id, &placement) => {
                    return Err(Undecided::Unreadable(format!("{placement} on {}", server.name)).refused(step));
                }
                Seen::Unreadable | Seen::Nothing => {}
            }
        }
    }
    candidates.retain(|one| is_ours(fleet, step, one.identity()));
    decide(candidates, &Known::of(&step.tenant)).map_err(|why| why.refused(step))
}

fn same_place(kept: &catalog::retained::RetainedRecord, server: ServerId, placement: &str) -> bool {
    kept.server_id == server && kept.placement == placement
}

/// The error where there must be one.
pub(super) fn nothing(step: &Step) -> Error {
    Undecided::Nothing.refused(step)
}

/// Refuses to make an archived tenant's database from a backup while another one has served since: on its own server,
/// which is asked anyway. What this very operation made does not count.
pub(super) async fn require_none_since(fleet: &Fleet, step: &Step) -> Result<()> {
    for placement in named_after(fleet, step, step.tenant.server_id).await? {
        if let Seen::Says(found) = inspect(fleet, step.tenant.server_id, &placement).await? {
            let found = found.identity;
            let has_served = found.state != IdentityState::Building && found.op != Some(step.op.id);
            if is_ours(fleet, step, &found) && has_served && found.generation > step.tenant.generation {
                return Err(ahead(step, &found));
            }
        }
    }
    Ok(())
}

/// Refuses to take a database for damaged that is only further than the catalog.
pub(super) async fn require_not_ahead(
    fleet: &Fleet,
    step: &Step,
    engine: &Arc<dyn Engine>,
    at: &Placement,
) -> Result<()> {
    let Ok(found) = engine.inspect(at, None, Depth::Ledger).await else { return Ok(()) };
    let (found, next) = (found.identity, step.tenant.generation.next());
    let retired_since = found.generation == next && found.state == IdentityState::Moved;
    match is_ours(fleet, step, &found) && (found.generation > next || retired_since) {
        true => Err(ahead(step, &found)),
        false => Ok(()),
    }
}

fn ahead(step: &Step, found: &Identity) -> Error {
    let (name, now) = (&step.tenant.name, step.tenant.generation);
    let detail = format!(
        "a database of {name} is at generation {} and {}, the catalog at {now}: it was set back",
        found.generation, found.state
    );
    Error::new(409, "fenced", detail).try_next(format!("fleetctl tenant settle {name} --newest"))
}

fn is_ours(fleet: &Fleet, step: &Step, found: &Identity) -> bool {
    found.tenant == step.tenant.id && found.fleet == fleet.id()
}

/// The databases on a server that are named after the tenant.
async fn named_after(fleet: &Fleet, step: &Step, server: ServerId) -> Result<Vec<String>> {
    let at = fleet.server(server).await?;
    let listing = fleet.engine(at.engine())?.databases(&at, Some(step.tenant.id)).await?;
    let databases = listing.found.into_iter().filter(|found| found.what == FoundKind::Database);
    Ok(databases.filter_map(|found| found.reference).collect())
}

/// What a database says.
enum Seen {
    Says(Box<Inspection>),
    /// It was never finished, or has just gone.
    Nothing,
    Unreadable,
}

async fn inspect(fleet: &Fleet, server: ServerId, placement: &str) -> Result<Seen> {
    let (engine, at) = fleet.at(server, placement).await?;
    match engine.inspect(&at, None, Depth::Ledger).await {
        Ok(found) => Ok(Seen::Says(Box::new(found))),
        Err(error) if error.kind() == ErrorKind::Missing => Ok(Seen::Nothing),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Seen::Unreadable),
        Err(error) => Err(error.into()),
    }
}

/// Why none can be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Undecided {
    Nothing,
    Retired,
    BuriedAgain,
    Several(String),
    Older,
    Unreadable(String),
}

impl Undecided {
    fn refused(self, step: &Step) -> Error {
        let name = &step.tenant.name;
        let aside = "fleetctl scrub      # and put the wrong one aside with --quarantine";
        let again = || format!("fleetctl restore run {name} --to latest");
        let (why, next) = match self {
            Self::Nothing => ("no server of the fleet has one that was ever finished".to_owned(), again()),
            Self::Retired => (
                "the newest was retired; what replaced it is on no server that this catalog knows".to_owned(),
                "fleetctl server add      # the one that it is on; then again".to_owned(),
            ),
            Self::BuriedAgain => ("the newest was archived or deleted again".to_owned(), aside.to_owned()),
            Self::Several(which) => (format!("more than one says that it serves: {which}"), aside.to_owned()),
            Self::Older => ("the newest is older than what the catalog knows of".to_owned(), again()),
            Self::Unreadable(which) => (format!("{which} cannot be read, and may be it"), aside.to_owned()),
        };
        let detail = format!("of the databases of {name}, none can be taken for the last that served: {why}");
        Error::new(409, "fenced", detail).try_next(next)
    }
}

/// What the catalog knows.
struct Known {
    generation: Generation,
    place: Option<(ServerId, String)>,
    is_buried: bool,
}

impl Known {
    fn of(tenant: &TenantRecord) -> Self {
        let place = tenant.placement.clone().map(|placement| (tenant.server_id, placement));
        Self { generation: tenant.generation, place, is_buried: is_buried(tenant) }
    }
}

/// PURE.
fn decide(mut all: Vec<Candidate>, known: &Known) -> Result<Option<Candidate>, Undecided> {
    use IdentityState::{Active, Building, Frozen, Moved, Tombstone};
    // What was being made never served.
    all.retain(|one| one.identity().state != Building);
    all.sort_by_key(Candidate::generation);
    let Some(newest) = all.pop() else { return Ok(None) };
    if known.is_buried && newest.generation() <= known.generation {
        return Ok(None);
    }
    let serves_too = |one: &Candidate| {
        // A copy of a file says what its original does, also when that was retired since.
        one.generation() == newest.generation()
            || one.identity().state == Active
            || is_what_the_catalog_names(one, known) && one.generation().next() != newest.generation()
    };
    if all.iter().any(serves_too) {
        let which = all.iter().chain([&newest]).map(|one| format!("{} at {}", one.placement, one.generation()));
        return Err(Undecided::Several(which.collect::<Vec<_>>().join(", ")));
    }
    match newest.identity().state {
        _ if newest.generation() < known.generation => Err(Undecided::Older),
        Moved | Building => Err(Undecided::Retired),
        Tombstone if known.is_buried => Err(Undecided::BuriedAgain),
        // It was deleted, or about to be archived, and is whole.
        Active | Frozen | Tombstone => Ok(Some(newest)),
    }
}

/// And serves by it. The fence of a swap leaves one a generation behind, which took no more writes.
fn is_what_the_catalog_names(one: &Candidate, known: &Known) -> bool {
    let named = known.place.as_ref().is_some_and(|(server, place)| *server == one.server && *place == one.placement);
    named && one.generation() == known.generation && one.identity().state == IdentityState::Frozen
}

#[cfg(test)]
mod tests {
    use tenant_engine::{FleetId, TenantId};

    use super::*;

    fn one(server: ServerId, generation: i64, state: IdentityState) -> Candidate {
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
        Candidate { server, placement: format!("g{generation}"), found }
    }

    /// By a catalog at generation 5, which names the database `g5`.
    fn taken(is_buried: bool, all: &[(i64, IdentityState)]) -> Result<Option<i64>, Undecided> {
        let server = ServerId::generate();
        let all = all.iter().map(|(generation, state)| one(server, *generation, *state)).collect();
        let known = Known { generation: Generation(5), place: Some((server, "g5".to_owned())), is_buried };
        Ok(decide(all, &known)?.map(|one| one.generation().0))
    }

    fn is_several(all: &[(i64, IdentityState)]) -> bool {
        matches!(taken(false, all), Err(Undecided::Several(_)))
    }

    #[test]
    fn only_the_newest_that_serves_is_taken() {
        use IdentityState::{Active, Building, Frozen, Moved, Tombstone};
        assert_eq!(taken(false, &[]), Ok(None));
        assert_eq!(taken(false, &[(5, Building)]), Ok(None));
        assert_eq!(taken(false, &[(5, Active)]), Ok(Some(5)));
        assert_eq!(taken(false, &[(6, Moved), (9, Active), (10, Building)]), Ok(Some(9)));
        assert_eq!(taken(false, &[(6, Moved), (9, Frozen)]), Ok(Some(9)));
        assert_eq!(taken(false, &[(6, Moved), (9, Tombstone)]), Ok(Some(9)), "deleted since, and whole");
        assert_eq!(taken(false, &[(6, Moved), (9, Moved)]), Err(Undecided::Retired));
        assert_eq!(taken(false, &[(4, Active)]), Err(Undecided::Older));
    }

    #[test]
    fn where_another_one_may_serve_nothing_is_taken() {
        use IdentityState::{Active, Frozen, Moved};
        assert!(is_several(&[(9, Active), (9, Moved)]));
        assert!(is_several(&[(6, Active), (9, Moved)]));
        assert!(is_several(&[(6, Moved), (7, Active), (9, Active)]), "a catalog that was set back counted on");
        assert!(is_several(&[(5, Frozen), (9, Active)]), "read-only by the catalog's word");
        assert_eq!(taken(false, &[(5, Frozen), (6, Active)]), Ok(Some(6)), "the fence of a swap");
    }

    #[test]
    fn one_that_is_buried_stays_so_unless_something_has_served_since() {
        use IdentityState::{Active, Moved, Tombstone};
        assert_eq!(taken(true, &[(3, Moved)]), Ok(None));
        assert_eq!(taken(true, &[(3, Moved), (5, Tombstone)]), Ok(None));
        assert_eq!(taken(true, &[(3, Moved), (6, Active)]), Ok(Some(6)));
        assert_eq!(taken(true, &[(7, Tombstone)]), Err(Undecided::BuriedAgain));
    }
}
