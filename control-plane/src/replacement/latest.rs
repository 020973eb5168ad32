//! Finds the tenant's database that served last, by the databases' own identities. Used when the catalog does not know
//! it.
//!
//! Every serving database was stamped with a generation that no other database of the tenant has. The database that it
//! replaced was retired. So the database with the highest generation served last. If that one is retired, the last one
//! is elsewhere.
//!
//! This holds as long as only one catalog assigned generations. A catalog that was restored from an older copy assigns
//! some of them a second time. So if another database also says that it serves, none is chosen. Operations also leave
//! databases alone that are newer than the catalog.

use catalog::retained::{RetainedReason, RetainedRecord};
use catalog::{Generation, ServerId, TenantRecord, TenantState};
use tenant_engine::{
    ErrorKind as DatabaseError, Identity, IdentityState, Inspection, InspectionDepth, ListedObjectKind,
};

use crate::error::{Error, ErrorKind, Result};
use crate::operation::{ClaimedStep, StepContext};

/// A database that is named after the tenant, and its inspection.
#[derive(Debug)]
pub(crate) struct CandidateDatabase {
    pub(crate) server: ServerId,
    pub(crate) placement: String,
    pub(crate) found: Inspection,
}

impl CandidateDatabase {
    fn found_identity(&self) -> &Identity {
        &self.found.identity
    }

    fn found_generation(&self) -> Generation {
        self.found_identity().generation
    }
}

/// Whether the catalog says that no database of this tenant serves.
pub(crate) fn has_no_live_database(tenant: &TenantRecord) -> bool {
    matches!(tenant.state, TenantState::Archived | TenantState::Deleted)
}

/// Searches all servers. A server that does not answer is an error, because it may hold the database. `None`: no
/// database has served since the state that the catalog records.
pub(crate) async fn find_latest(context: &StepContext, step: &ClaimedStep) -> Result<Option<CandidateDatabase>> {
    let mut tx = context.catalog.read().await?;
    let servers = catalog::servers::list_servers(&mut tx).await?;
    let kept = catalog::retained::of_tenant(&mut tx, step.tenant.id).await?;
    drop(tx);
    let is_known_bad = |server: ServerId, placement: &str| {
        let same = |kept: &&_| same_place(kept, server, placement);
        kept.iter().find(same).is_some_and(|kept| kept.reason == RetainedReason::Damaged)
    };
    let mut candidates = Vec::new();
    for (server, _) in servers {
        for placement in named_after(context, step, server.id).await? {
            match read_identity(context, server.id, &placement).await? {
                IdentityReading::Says(found) => {
                    candidates.push(CandidateDatabase { server: server.id, placement, found: *found })
                }
                IdentityReading::Unreadable if !is_known_bad(server.id, &placement) => {
                    return Err(UndecidedReason::Unreadable(format!("{placement} on {}", server.name)).into_error(step));
                }
                IdentityReading::Unreadable | IdentityReading::Nothing => {}
            }
        }
    }
    candidates.retain(|one| is_ours(context, step, one.found_identity()));
    decide_latest(candidates, &RecordedDatabase::of_tenant(&step.tenant)).map_err(|why| why.into_error(step))
}

fn same_place(kept: &RetainedRecord, server: ServerId, placement: &str) -> bool {
    kept.server_id == server && kept.placement == placement
}

/// The error of a search that must find a database and found none.
pub(crate) fn nothing_found(step: &ClaimedStep) -> Error {
    UndecidedReason::Nothing.into_error(step)
}

/// Refuses to restore an archived tenant from a backup if another database has served since. Only the tenant's own
/// server is searched, because the operation uses it anyway. Databases that this operation made do not count.
pub(crate) async fn require_none_since(context: &StepContext, step: &ClaimedStep) -> Result<()> {
    for placement in named_after(context, step, step.tenant.server_id).await? {
        if let IdentityReading::Says(found) = read_identity(context, step.tenant.server_id, &placement).await? {
            let found = found.identity;
            let has_served = found.state != IdentityState::Building && found.op != Some(step.op.id);
            if is_ours(context, step, &found) && has_served && found.generation > step.tenant.generation {
                return Err(database_ahead(step, &found));
            }
        }
    }
    Ok(())
}

/// The error of a database that is newer than the catalog.
pub(super) fn database_ahead(step: &ClaimedStep, found: &Identity) -> Error {
    let (name, now) = (&step.tenant.name, step.tenant.generation);
    let detail = format!(
        "a database of {name} is at generation {} and {}, the catalog at {now}: the catalog is an older copy",
        found.generation, found.state
    );
    Error::new(ErrorKind::DatabaseFenced, detail).try_next(format!("fleetctl tenant repair {name} --find-latest"))
}

fn is_ours(context: &StepContext, step: &ClaimedStep, found: &Identity) -> bool {
    found.tenant == step.tenant.id && found.fleet == context.fleet_id()
}

/// The placements on a server that are named after the tenant.
async fn named_after(context: &StepContext, step: &ClaimedStep, server: ServerId) -> Result<Vec<String>> {
    let at = context.load_server(server).await?;
    let listing = context.engine_of_kind(at.engine_kind())?.list_databases(&at, Some(step.tenant.id)).await?;
    let databases = listing.found.into_iter().filter(|found| found.what == ListedObjectKind::Database);
    Ok(databases.filter_map(|found| found.reference).collect())
}

/// The result of reading a database's identity.
enum IdentityReading {
    Says(Box<Inspection>),
    /// The database was never finished, or has just been dropped.
    Nothing,
    Unreadable,
}

async fn read_identity(context: &StepContext, server: ServerId, placement: &str) -> Result<IdentityReading> {
    let (engine, at) = context.resolve_placement(server, placement).await?;
    match engine.inspect_database(&at, None, InspectionDepth::Ledger).await {
        Ok(found) => Ok(IdentityReading::Says(Box::new(found))),
        Err(error) if error.kind() == DatabaseError::Missing => Ok(IdentityReading::Nothing),
        Err(error) if error.kind() == DatabaseError::Corrupt => Ok(IdentityReading::Unreadable),
        Err(error) => Err(error.into()),
    }
}

/// The reason why no database can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
enum UndecidedReason {
    Nothing,
    Retired,
    TombstoneAgain,
    Several(String),
    Older,
    Unreadable(String),
}

impl UndecidedReason {
    fn into_error(self, step: &ClaimedStep) -> Error {
        let name = &step.tenant.name;
        let aside = "fleetctl scrub      # then move the wrong one with --quarantine";
        let again = || format!("fleetctl restore run {name} --to latest");
        let (why, next) = match self {
            Self::Nothing => ("no server of the fleet has a finished one".to_owned(), again()),
            Self::Retired => (
                "the newest was retired; its replacement is on no server that this catalog knows".to_owned(),
                "fleetctl server add      # add the server that holds it, then try again".to_owned(),
            ),
            Self::TombstoneAgain => ("the newest was archived or deleted again".to_owned(), aside.to_owned()),
            Self::Several(which) => (format!("more than one says that it serves: {which}"), aside.to_owned()),
            Self::Older => ("the newest is older than the one that the catalog records".to_owned(), again()),
            Self::Unreadable(which) => (format!("{which} cannot be read, and may be current"), aside.to_owned()),
        };
        let detail = format!("cannot tell which database of {name} is current: {why}");
        Error::new(ErrorKind::DatabaseFenced, detail).try_next(next)
    }
}

/// The catalog's record of the tenant's database.
struct RecordedDatabase {
    generation: Generation,
    place: Option<(ServerId, String)>,
    has_no_database: bool,
}

impl RecordedDatabase {
    fn of_tenant(tenant: &TenantRecord) -> Self {
        let place = tenant.placement.clone().map(|placement| (tenant.server_id, placement));
        Self { generation: tenant.generation, place, has_no_database: has_no_live_database(tenant) }
    }
}

/// PURE: chooses the database that served last.
fn decide_latest(
    mut all: Vec<CandidateDatabase>,
    known: &RecordedDatabase,
) -> Result<Option<CandidateDatabase>, UndecidedReason> {
    use IdentityState::{Active, Building, Frozen, Moved, Tombstone};
    // A database that is still being built never served.
    all.retain(|one| one.found_identity().state != Building);
    all.sort_by_key(CandidateDatabase::found_generation);
    let Some(newest) = all.pop() else { return Ok(None) };
    if known.has_no_database && newest.found_generation() <= known.generation {
        return Ok(None);
    }
    let serves_too = |one: &CandidateDatabase| {
        // A copy of a file carries its original's identity, even if the original was retired since.
        one.found_generation() == newest.found_generation()
            || one.found_identity().state == Active
            || is_what_the_catalog_names(one, known) && one.found_generation().next() != newest.found_generation()
    };
    if all.iter().any(serves_too) {
        let which = all.iter().chain([&newest]).map(|one| format!("{} at {}", one.placement, one.found_generation()));
        return Err(UndecidedReason::Several(which.collect::<Vec<_>>().join(", ")));
    }
    match newest.found_identity().state {
        _ if newest.found_generation() < known.generation => Err(UndecidedReason::Older),
        Moved | Building => Err(UndecidedReason::Retired),
        Tombstone if known.has_no_database => Err(UndecidedReason::TombstoneAgain),
        // The database was deleted or about to be archived, and is complete.
        Active | Frozen | Tombstone => Ok(Some(newest)),
    }
}

/// Whether this is the database that the catalog names, frozen at the catalog's generation. The fence of a swap leaves
/// the replaced database so, one generation behind its replacement. It takes no more writes, so the caller excludes
/// that case.
fn is_what_the_catalog_names(one: &CandidateDatabase, known: &RecordedDatabase) -> bool {
    let named = known.place.as_ref().is_some_and(|(server, place)| *server == one.server && *place == one.placement);
    named && one.found_generation() == known.generation && one.found_identity().state == IdentityState::Frozen
}

#[cfg(test)]
mod tests {
    use tenant_engine::{FleetId, TenantId};

    use super::*;

    fn one(server: ServerId, generation: i64, state: IdentityState) -> CandidateDatabase {
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
        CandidateDatabase { server, placement: format!("g{generation}"), found }
    }

    /// Decides for a catalog at generation 5 that names the database `g5`.
    fn taken(has_no_database: bool, all: &[(i64, IdentityState)]) -> Result<Option<i64>, UndecidedReason> {
        let server = ServerId::generate();
        let all = all.iter().map(|(generation, state)| one(server, *generation, *state)).collect();
        let known =
            RecordedDatabase { generation: Generation(5), place: Some((server, "g5".to_owned())), has_no_database };
        Ok(decide_latest(all, &known)?.map(|one| one.found_generation().0))
    }

    fn is_several(all: &[(i64, IdentityState)]) -> bool {
        matches!(taken(false, all), Err(UndecidedReason::Several(_)))
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
        assert_eq!(taken(false, &[(6, Moved), (9, Moved)]), Err(UndecidedReason::Retired));
        assert_eq!(taken(false, &[(4, Active)]), Err(UndecidedReason::Older));
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
    fn one_that_has_no_database_stays_so_unless_something_has_served_since() {
        use IdentityState::{Active, Moved, Tombstone};
        assert_eq!(taken(true, &[(3, Moved)]), Ok(None));
        assert_eq!(taken(true, &[(3, Moved), (5, Tombstone)]), Ok(None));
        assert_eq!(taken(true, &[(3, Moved), (6, Active)]), Ok(Some(6)));
        assert_eq!(taken(true, &[(7, Tombstone)]), Err(UndecidedReason::TombstoneAgain));
    }
}
