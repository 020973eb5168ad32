//! PURE: compares the catalog with the contents of the servers.
//!
//! A place is identified by its physical identity, not by its name. If two servers of the catalog are one directory or
//! one cluster, the claims of both count for that place.

use std::collections::{HashMap, HashSet};

use catalog::retained::RetainedRecord;
use catalog::{ServerId, ServerRecord, TenantId, TenantRecord};
use tenant_engine::{EngineKind, ListedObject, ListedObjectKind, ServerListing};

use super::ScrubSummary;
use super::catalog_claims::CatalogClaims;
use super::finding::{Finding, FindingKind, FindingSeverity, FindingSubject};
use super::server_contents::{InspectedDatabases, ServerContents};

mod identity;
#[cfg(test)]
mod tests;

/// Minimum age of an orphan. A younger object may still be in the making, or be copied by hand.
pub const GRACE_MS: i64 = 15 * 60_000;

/// Everything that the comparison uses.
#[derive(Clone, Copy)]
pub(super) struct ComparisonInput<'a> {
    /// The catalog before the servers were listed.
    pub(super) before: &'a CatalogClaims,
    /// The catalog after the servers were listed.
    pub(super) after: &'a CatalogClaims,
    /// The contents of the servers.
    pub(super) places: &'a [ServerContents],
    /// The identities of the opened databases.
    pub(super) asked: &'a InspectedDatabases,
}

/// Whether an object has an owner, or why that is not decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ObjectStanding {
    /// The catalog names it.
    Named,
    /// An operation works on the tenant in the object's name.
    Busy,
    /// Younger than [`GRACE_MS`].
    Young,
    /// The database's identity names another fleet, and a tenant that this fleet does not know.
    Foreign,
    /// The object has no owner.
    Orphan,
}

/// The catalog's claim to one database.
#[derive(Debug, Clone, Copy)]
struct DatabaseClaim<'a> {
    tenant: &'a TenantRecord,
    /// The record of a retained database. `None`: it is the tenant's current database.
    retained: Option<&'a RetainedRecord>,
    server: ServerId,
    reference: &'a str,
}

/// Claims by place and placement reference.
type ClaimsByPlace<'a> = HashMap<(&'a str, &'a str), Vec<DatabaseClaim<'a>>>;

/// The input of the comparison, indexed.
pub(super) struct ClaimIndex<'a> {
    seen: ComparisonInput<'a>,
    /// The physical identity of each server that answered.
    places: HashMap<ServerId, &'a str>,
    before: ClaimsByPlace<'a>,
    after: ClaimsByPlace<'a>,
    /// How many names each physical object has among all objects found.
    names: HashMap<&'a str, usize>,
}

impl<'a> ClaimIndex<'a> {
    pub(super) fn build_index(seen: &ComparisonInput<'a>) -> Self {
        let answered = seen.places.iter().filter_map(|place| Some((place.server.id, place.listing.as_ref().ok()?)));
        let places: HashMap<ServerId, &'a str> =
            answered.map(|(server, listing)| (server, listing.place.as_str())).collect();
        let mut names: HashMap<&str, usize> = HashMap::new();
        for (_, listing) in distinct_places(seen.places) {
            for found in &listing.found {
                *names.entry(found.physical.as_str()).or_default() += 1;
            }
        }
        let (before, after) = (claims_by_place(seen.before, &places), claims_by_place(seen.after, &places));
        Self { seen: *seen, places, before, after, names }
    }

    /// Whether the object `found` on a server has an owner.
    pub(super) fn object_standing(&self, server: &ServerRecord, found: &ListedObject) -> ObjectStanding {
        let place = self.places.get(&server.id).copied().unwrap_or_default();
        let key = (place, owning_database(found));
        if self.before.contains_key(&key) || self.after.contains_key(&key) {
            return ObjectStanding::Named;
        }
        match found.tenant {
            Some(tenant) if self.is_busy(tenant) => return ObjectStanding::Busy,
            _ => {}
        }
        if found.since.is_some_and(|since| self.seen.after.now - since < GRACE_MS) {
            return ObjectStanding::Young;
        }
        let said = self.inspected_owner(server.id, &found.name);
        let known = found.tenant.is_some_and(|tenant| self.seen.after.tenants.contains_key(&tenant));
        match said {
            Some(Ok(whose)) if whose.fleet != self.seen.after.fleet && !known => ObjectStanding::Foreign,
            _ => ObjectStanding::Orphan,
        }
    }

    fn inspected_owner(
        &self,
        server: ServerId,
        name: &str,
    ) -> Option<&'a Result<super::finding::DatabaseOwner, crate::error::Error>> {
        self.seen.asked.get(&(server, name.to_owned()))
    }

    /// Whether the database's own identity says that it belongs to this fleet.
    fn says_ours(&self, said: Option<&Result<super::finding::DatabaseOwner, crate::error::Error>>) -> bool {
        said.is_some_and(|said| said.as_ref().is_ok_and(|whose| whose.fleet == self.seen.after.fleet))
    }

    fn is_busy(&self, tenant: TenantId) -> bool {
        self.seen.before.busy.contains(&tenant) || self.seen.after.busy.contains(&tenant)
    }

    /// Claims that were equal before and after, of tenants without a running operation, on servers that answered.
    fn steady_claims(&self) -> Vec<(&'a str, DatabaseClaim<'a>)> {
        let mut steady: Vec<_> = self
            .after
            .iter()
            .flat_map(|((place, _), claims)| claims.iter().map(|claim| (*place, *claim)))
            .filter(|(place, claim)| self.is_steady(place, claim))
            .collect();
        steady.sort_by_key(|(place, claim)| (*place, claim.reference, claim.tenant.id));
        steady
    }

    fn is_steady(&self, place: &str, claim: &DatabaseClaim<'_>) -> bool {
        let same = |then: &DatabaseClaim<'_>| {
            then.retained.is_some() == claim.retained.is_some() && is_unchanged(then.tenant, claim.tenant)
        };
        let before = self.before.get(&(place, claim.reference)).map_or(&[][..], Vec::as_slice);
        !self.is_busy(claim.tenant.id) && before.iter().any(same)
    }

    /// Whether a physical object has a second name. Such an object is not safe to open.
    fn is_shared(&self, found: &ListedObject) -> bool {
        self.names.get(found.physical.as_str()).is_some_and(|names| *names > 1)
    }
}

/// Whether the facts that decide about a tenant's database are equal.
fn is_unchanged(one: &TenantRecord, other: &TenantRecord) -> bool {
    let facts = |t: &TenantRecord| (t.id, t.state, t.block_writes, t.server_id, t.generation, t.op_id);
    facts(one) == facts(other) && one.placement == other.placement
}

fn claims_by_place<'a>(claims: &'a CatalogClaims, places: &HashMap<ServerId, &'a str>) -> ClaimsByPlace<'a> {
    let current = claims.tenants.values().filter_map(|tenant| {
        let reference = tenant.placement.as_deref()?;
        Some(DatabaseClaim { tenant, retained: None, server: tenant.server_id, reference })
    });
    let kept = claims.retained.iter().filter_map(|kept| {
        let tenant = claims.tenants.get(&kept.tenant_id)?;
        Some(DatabaseClaim { tenant, retained: Some(kept), server: kept.server_id, reference: &kept.placement })
    });
    let mut named = ClaimsByPlace::new();
    for claim in current.chain(kept) {
        if let Some(place) = places.get(&claim.server) {
            named.entry((place, claim.reference)).or_default().push(claim);
        }
    }
    named
}

/// Each place once, even if several servers name it.
fn distinct_places(places: &[ServerContents]) -> impl Iterator<Item = (&ServerRecord, &ServerListing)> {
    let mut met = HashSet::new();
    let answered = places.iter().filter_map(|place| Some((&place.server, place.listing.as_ref().ok()?)));
    answered.filter(move |(_, listing)| met.insert(listing.place.as_str()))
}

/// The database that an object belongs to, by its name.
fn owning_database(found: &ListedObject) -> &str {
    let name = found.name.as_str();
    match found.what {
        ListedObjectKind::Role => name.get(..name.len().saturating_sub(2)).unwrap_or(name),
        ListedObjectKind::SideFile => name.rsplit_once('-').map_or(name, |(main, _)| main),
        _ => name,
    }
}

/// The databases that may be opened: no operation works on their tenant, they are old enough, and they have only one
/// name.
pub(super) fn databases_to_inspect<'a>(seen: &ComparisonInput<'a>) -> Vec<(&'a ServerRecord, &'a str)> {
    let index = ClaimIndex::build_index(seen);
    let mut askable = Vec::new();
    for (server, listing) in distinct_places(seen.places) {
        for found in &listing.found {
            let at_rest = found.tenant.is_none_or(|tenant| !index.is_busy(tenant));
            let judged = matches!(index.object_standing(server, found), ObjectStanding::Named | ObjectStanding::Orphan);
            if found.what == ListedObjectKind::Database && at_rest && judged && !index.is_shared(found) {
                askable.push((server, found.name.as_str()));
            }
        }
    }
    askable
}

/// Compares the claims with the servers' contents.
pub(super) fn compare_claims(seen: &ComparisonInput<'_>) -> ScrubSummary {
    let index = ClaimIndex::build_index(seen);
    let mut findings = unreachable_servers(seen);
    findings.extend(same_places(seen));
    let mut foreign = 0;
    for (server, listing) in distinct_places(seen.places) {
        for found in &listing.found {
            match index.object_standing(server, found) {
                ObjectStanding::Orphan => findings.push(orphan_finding(&index, server, found)),
                ObjectStanding::Foreign => foreign += 1,
                ObjectStanding::Named | ObjectStanding::Busy | ObjectStanding::Young => {}
            }
        }
    }
    findings.extend(claim_findings(&index));
    let order = |one: &Finding| (one.subject.server.clone(), one.subject.name.clone(), one.subject.kind);
    findings.sort_by_key(order);
    let tenants = &seen.after.tenants;
    let databases = distinct_places(seen.places).flat_map(|(_, listing)| &listing.found);
    ScrubSummary {
        at: seen.after.now,
        servers: index.places.len(),
        tenants: tenants.len(),
        databases: databases.filter(|found| found.what == ListedObjectKind::Database).count(),
        opened: seen.asked.values().filter(|said| said.is_ok()).count(),
        busy: tenants.keys().filter(|tenant| index.is_busy(**tenant)).count(),
        foreign,
        findings,
    }
}

fn unreachable_servers(seen: &ComparisonInput<'_>) -> Vec<Finding> {
    let away = seen.places.iter().filter_map(|place| Some((&place.server, place.listing.as_ref().err()?)));
    away.map(|(server, error)| Finding {
        subject: server_subject(FindingKind::ServerUnreachable, server),
        severity: FindingSeverity::Error,
        reference: None,
        tenant_name: None,
        size_bytes: None,
        detail: format!("its contents are unknown: {}: {}", error.code(), error.detail),
        next_step: format!("fleetctl server get {}", server.name),
    })
    .collect()
}

fn same_places(seen: &ComparisonInput<'_>) -> Vec<Finding> {
    let mut met: HashMap<&str, &str> = HashMap::new();
    let mut findings = Vec::new();
    for place in seen.places {
        let Ok(listing) = &place.listing else { continue };
        let Some(first) = met.get(listing.place.as_str()) else {
            met.insert(&listing.place, &place.server.name);
            continue;
        };
        findings.push(Finding {
            subject: FindingSubject {
                physical: Some(listing.place.clone()),
                ..server_subject(FindingKind::SamePlace, &place.server)
            },
            severity: FindingSeverity::Error,
            reference: None,
            tenant_name: None,
            size_bytes: None,
            detail: format!("it is the same place as the server '{first}': two tenants could share one database"),
            next_step: format!("fleetctl server cordon {}, and use only one of them", place.server.name),
        });
    }
    findings
}

fn server_subject(kind: FindingKind, server: &ServerRecord) -> FindingSubject {
    let server = server.name.clone();
    FindingSubject { kind, server, name: String::new(), what: None, physical: None, tenant: None, identity: None }
}

fn orphan_finding(index: &ClaimIndex<'_>, server: &ServerRecord, found: &ListedObject) -> Finding {
    let tenant = found.tenant.and_then(|tenant| index.seen.after.tenants.get(&tenant));
    let said = index.inspected_owner(server.id, &found.name);
    let kind = kind_of_orphan(server, found, tenant.is_some() || index.says_ours(said));
    let mut detail = describe_kind(found.what).to_owned();
    detail += &tenant.map_or_else(String::new, |tenant| format!(" of the tenant '{}'", tenant.name));
    if index.is_shared(found) {
        detail += "; the same file has another name, too: it was not opened";
    }
    let (severity, said_so) = identity::of_orphan(&index.seen, tenant, said);
    detail += &said_so;
    Finding {
        subject: FindingSubject {
            name: found.name.clone(),
            what: Some(found.what),
            physical: Some(found.physical.clone()),
            tenant: found.tenant,
            identity: said.and_then(|said| said.as_ref().ok().copied()),
            ..server_subject(kind, server)
        },
        severity,
        reference: found.reference.clone(),
        tenant_name: tenant.map(|tenant| tenant.name.clone()),
        size_bytes: found.size_bytes,
        detail,
        next_step: match kind {
            FindingKind::ForeignFile => "find out who owns it, and move it by hand",
            _ => "fleetctl scrub --out report.json; look at it, then fleetctl scrub --quarantine report.json --yes",
        }
        .to_owned(),
    }
}

/// The kind of an orphan. A file counts as this fleet's only if its name has the right form and this fleet is proved.
/// The proof is the tenant in the name, known to the catalog, or the database's own identity. Other files are never
/// touched.
fn kind_of_orphan(server: &ServerRecord, found: &ListedObject, is_ours: bool) -> FindingKind {
    match (found.what, server.engine) {
        (ListedObjectKind::Role, _) => FindingKind::OrphanRole,
        (_, EngineKind::Postgres) => FindingKind::OrphanDatabase,
        (ListedObjectKind::Unknown, _) => FindingKind::ForeignFile,
        _ if !is_ours => FindingKind::ForeignFile,
        (ListedObjectKind::Database, _) => FindingKind::OrphanDatabase,
        _ => FindingKind::OrphanFile,
    }
}

fn describe_kind(what: ListedObjectKind) -> &'static str {
    match what {
        ListedObjectKind::Database => "the catalog does not name this database",
        ListedObjectKind::Part => "a database that was never finished",
        ListedObjectKind::SideFile => "a side file without its database",
        ListedObjectKind::Role => "a login whose database does not exist",
        ListedObjectKind::Unknown => "not a file of this program",
    }
}

/// Checks every database that the catalog names and that no operation works on. It must exist, be separate from all
/// others, and have the expected identity.
fn claim_findings(index: &ClaimIndex<'_>) -> Vec<Finding> {
    let there: HashMap<(&str, &str), &ListedObject> = distinct_places(index.seen.places)
        .flat_map(|(_, listing)| listing.found.iter().map(move |found| (listing.place.as_str(), found)))
        .filter_map(|(place, found)| Some(((place, found.reference.as_deref()?), found)))
        .collect();
    let steady = index.steady_claims();
    let mut owners: HashMap<&str, Vec<&DatabaseClaim<'_>>> = HashMap::new();
    for (place, claim) in &steady {
        if let Some(found) = there.get(&(*place, claim.reference)) {
            owners.entry(found.physical.as_str()).or_default().push(claim);
        }
    }
    let mut findings = Vec::new();
    for (place, claim) in &steady {
        let Some(found) = there.get(&(*place, claim.reference)) else {
            findings.push(missing_finding(index, claim));
            continue;
        };
        let others = owners.get(found.physical.as_str()).map_or(&[][..], Vec::as_slice);
        let other = others.iter().find(|other| !std::ptr::eq(**other, claim));
        match other {
            Some(other) => findings.push(shared_finding(index, claim, found, other)),
            None => findings.extend(identity::of_claim(index, claim, found)),
        }
    }
    findings
}

fn missing_finding(index: &ClaimIndex<'_>, claim: &DatabaseClaim<'_>) -> Finding {
    let name = &claim.tenant.name;
    let (severity, detail, next_step) = match claim.retained {
        None => (
            FindingSeverity::Error,
            format!("the database of the tenant '{name}' is not there"),
            format!("mount the disk or put the file back; only if it is lost: fleetctl restore run {name} --to latest"),
        ),
        Some(kept) => (
            FindingSeverity::Warning,
            format!("a database retained for the tenant '{name}' ({}) is missing", kept.reason.as_str()),
            "the change that it was retained for can no longer be undone".to_owned(),
        ),
    };
    claim_finding(index, claim, None, (FindingKind::MissingDatabase, severity), detail, next_step)
}

fn shared_finding(
    index: &ClaimIndex<'_>,
    claim: &DatabaseClaim<'_>,
    found: &ListedObject,
    other: &DatabaseClaim<'_>,
) -> Finding {
    let detail = format!(
        "the database of the tenant '{}' is the same as the one of the tenant '{}' ({})",
        claim.tenant.name, other.tenant.name, other.reference
    );
    let next_step = format!(
        "stop both at once; then fleetctl restore run {} --to latest for the one whose data is gone",
        claim.tenant.name
    );
    claim_finding(index, claim, Some(found), (FindingKind::SharedDatabase, FindingSeverity::Error), detail, next_step)
}

/// A finding about a database that the catalog names.
fn claim_finding(
    index: &ClaimIndex<'_>,
    claim: &DatabaseClaim<'_>,
    found: Option<&ListedObject>,
    (kind, severity): (FindingKind, FindingSeverity),
    detail: String,
    next_step: String,
) -> Finding {
    let server = index.seen.after.servers.iter().find(|server| server.id == claim.server);
    let said = found.and_then(|found| index.inspected_owner(claim.server, &found.name));
    Finding {
        subject: FindingSubject {
            kind,
            server: server.map(|server| server.name.clone()).unwrap_or_default(),
            name: claim.reference.to_owned(),
            what: found.map(|found| found.what),
            physical: found.map(|found| found.physical.clone()),
            tenant: Some(claim.tenant.id),
            identity: said.and_then(|said| said.as_ref().ok().copied()),
        },
        severity,
        reference: Some(claim.reference.to_owned()),
        tenant_name: Some(claim.tenant.name.clone()),
        size_bytes: found.and_then(|found| found.size_bytes),
        detail,
        next_step,
    }
}
