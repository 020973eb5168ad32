//! PURE: what the catalog says against what the servers hold.
//!
//! A place is known by what it is, not by what it is called: when two servers of the catalog are one directory or one
//! cluster, what either of them claims is named there.

use std::collections::{HashMap, HashSet};

use catalog::retained::RetainedRecord;
use catalog::{ServerId, ServerRecord, TenantId, TenantRecord};
use tenant_engine::{EngineKind, Found, FoundKind, Listing};

use super::Report;
use super::claims::Claims;
use super::finding::{Finding, Kind, Severity, Subject};
use super::look::{Asked, Place};

mod identity;
#[cfg(test)]
mod tests;

/// What is younger may be something that is just being made, or copied by hand: nobody's yet.
pub const GRACE_MS: i64 = 15 * 60_000;

/// Everything that was looked at.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    /// The catalog before the servers were looked at.
    pub(super) before: &'a Claims,
    /// The catalog afterwards.
    pub(super) after: &'a Claims,
    /// The servers.
    pub(super) places: &'a [Place],
    /// The databases that were opened.
    pub(super) asked: &'a Asked,
}

/// Why an object is where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// The catalog names it.
    Named,
    /// An operation works on the tenant that its name tells.
    Busy,
    /// Younger than [`GRACE_MS`].
    Young,
    /// Another fleet's, by its own words, and of a tenant that this fleet does not know.
    Foreign,
    /// Nobody's.
    Orphan,
}

/// What the catalog says of one database.
#[derive(Debug, Clone, Copy)]
struct Claim<'a> {
    tenant: &'a TenantRecord,
    /// `None`: it is the tenant's current database.
    retained: Option<&'a RetainedRecord>,
    server: ServerId,
    reference: &'a str,
}

/// Claims by place and reference.
type Named<'a> = HashMap<(&'a str, &'a str), Vec<Claim<'a>>>;

/// The same facts, ready to be looked up.
pub(super) struct Index<'a> {
    seen: Seen<'a>,
    /// What each server that answered is.
    places: HashMap<ServerId, &'a str>,
    before: Named<'a>,
    after: Named<'a>,
    /// How many names each physical object has among all that was found.
    names: HashMap<&'a str, usize>,
}

impl<'a> Index<'a> {
    pub(super) fn of(seen: &Seen<'a>) -> Self {
        let answered = seen.places.iter().filter_map(|place| Some((place.server.id, place.listing.as_ref().ok()?)));
        let places: HashMap<ServerId, &'a str> =
            answered.map(|(server, listing)| (server, listing.place.as_str())).collect();
        let mut names: HashMap<&str, usize> = HashMap::new();
        for (_, listing) in distinct(seen.places) {
            for found in &listing.found {
                *names.entry(found.physical.as_str()).or_default() += 1;
            }
        }
        let (before, after) = (named(seen.before, &places), named(seen.after, &places));
        Self { seen: *seen, places, before, after, names }
    }

    /// Why an object is there.
    pub(super) fn standing(&self, server: &ServerRecord, found: &Found) -> Standing {
        let place = self.places.get(&server.id).copied().unwrap_or_default();
        let key = (place, owner(found));
        if self.before.contains_key(&key) || self.after.contains_key(&key) {
            return Standing::Named;
        }
        match found.tenant {
            Some(tenant) if self.is_busy(tenant) => return Standing::Busy,
            _ => {}
        }
        if found.since.is_some_and(|since| self.seen.after.now - since < GRACE_MS) {
            return Standing::Young;
        }
        let said = self.asked(server.id, &found.name);
        let known = found.tenant.is_some_and(|tenant| self.seen.after.tenants.contains_key(&tenant));
        match said {
            Some(Ok(whose)) if whose.fleet != self.seen.after.fleet && !known => Standing::Foreign,
            _ => Standing::Orphan,
        }
    }

    fn asked(&self, server: ServerId, name: &str) -> Option<&'a Result<super::finding::Whose, crate::error::Error>> {
        self.seen.asked.get(&(server, name.to_owned()))
    }

    /// True when the database itself says that it is of this fleet.
    fn says_ours(&self, said: Option<&Result<super::finding::Whose, crate::error::Error>>) -> bool {
        said.is_some_and(|said| said.as_ref().is_ok_and(|whose| whose.fleet == self.seen.after.fleet))
    }

    fn is_busy(&self, tenant: TenantId) -> bool {
        self.seen.before.busy.contains(&tenant) || self.seen.after.busy.contains(&tenant)
    }

    /// Claims that were the same before and after, of tenants that no operation works on, on servers that answered.
    fn steady(&self) -> Vec<(&'a str, Claim<'a>)> {
        let mut steady: Vec<_> = self
            .after
            .iter()
            .flat_map(|((place, _), claims)| claims.iter().map(|claim| (*place, *claim)))
            .filter(|(place, claim)| self.is_steady(place, claim))
            .collect();
        steady.sort_by_key(|(place, claim)| (*place, claim.reference, claim.tenant.id));
        steady
    }

    fn is_steady(&self, place: &str, claim: &Claim<'_>) -> bool {
        let same = |then: &Claim<'_>| {
            then.retained.is_some() == claim.retained.is_some() && is_unchanged(then.tenant, claim.tenant)
        };
        let before = self.before.get(&(place, claim.reference)).map_or(&[][..], Vec::as_slice);
        !self.is_busy(claim.tenant.id) && before.iter().any(same)
    }

    /// A physical object that has a second name: whatever it is, it is not safe to open.
    fn is_shared(&self, found: &Found) -> bool {
        self.names.get(found.physical.as_str()).is_some_and(|names| *names > 1)
    }
}

/// What decides about a tenant's database.
fn is_unchanged(one: &TenantRecord, other: &TenantRecord) -> bool {
    let facts = |t: &TenantRecord| (t.id, t.state, t.block_writes, t.server_id, t.generation, t.op_id);
    facts(one) == facts(other) && one.placement == other.placement
}

fn named<'a>(claims: &'a Claims, places: &HashMap<ServerId, &'a str>) -> Named<'a> {
    let current = claims.tenants.values().filter_map(|tenant| {
        let reference = tenant.placement.as_deref()?;
        Some(Claim { tenant, retained: None, server: tenant.server_id, reference })
    });
    let kept = claims.retained.iter().filter_map(|kept| {
        let tenant = claims.tenants.get(&kept.tenant_id)?;
        Some(Claim { tenant, retained: Some(kept), server: kept.server_id, reference: &kept.placement })
    });
    let mut named = Named::new();
    for claim in current.chain(kept) {
        if let Some(place) = places.get(&claim.server) {
            named.entry((place, claim.reference)).or_default().push(claim);
        }
    }
    named
}

/// Each place once, whatever number of servers it goes by.
fn distinct(places: &[Place]) -> impl Iterator<Item = (&ServerRecord, &Listing)> {
    let mut met = HashSet::new();
    let answered = places.iter().filter_map(|place| Some((&place.server, place.listing.as_ref().ok()?)));
    answered.filter(move |(_, listing)| met.insert(listing.place.as_str()))
}

/// The database that an object belongs to, by its name.
fn owner(found: &Found) -> &str {
    let name = found.name.as_str();
    match found.what {
        FoundKind::Role => name.get(..name.len().saturating_sub(2)).unwrap_or(name),
        FoundKind::SideFile => name.rsplit_once('-').map_or(name, |(main, _)| main),
        _ => name,
    }
}

/// The databases that may be opened: whose tenant is at rest, that are old enough to be judged, and have one name.
pub(super) fn askable<'a>(seen: &Seen<'a>) -> Vec<(&'a ServerRecord, &'a str)> {
    let index = Index::of(seen);
    let mut askable = Vec::new();
    for (server, listing) in distinct(seen.places) {
        for found in &listing.found {
            let at_rest = found.tenant.is_none_or(|tenant| !index.is_busy(tenant));
            let judged = matches!(index.standing(server, found), Standing::Named | Standing::Orphan);
            if found.what == FoundKind::Database && at_rest && judged && !index.is_shared(found) {
                askable.push((server, found.name.as_str()));
            }
        }
    }
    askable
}

/// The comparison.
pub(super) fn compare(seen: &Seen<'_>) -> Report {
    let index = Index::of(seen);
    let mut findings = unreachable(seen);
    findings.extend(same_places(seen));
    let mut foreign = 0;
    for (server, listing) in distinct(seen.places) {
        for found in &listing.found {
            match index.standing(server, found) {
                Standing::Orphan => findings.push(orphan(&index, server, found)),
                Standing::Foreign => foreign += 1,
                Standing::Named | Standing::Busy | Standing::Young => {}
            }
        }
    }
    findings.extend(named_ones(&index));
    let order = |one: &Finding| (one.subject.server.clone(), one.subject.name.clone(), one.subject.kind);
    findings.sort_by_key(order);
    let tenants = &seen.after.tenants;
    let databases = distinct(seen.places).flat_map(|(_, listing)| &listing.found);
    Report {
        at: seen.after.now,
        servers: index.places.len(),
        tenants: tenants.len(),
        databases: databases.filter(|found| found.what == FoundKind::Database).count(),
        opened: seen.asked.values().filter(|said| said.is_ok()).count(),
        busy: tenants.keys().filter(|tenant| index.is_busy(**tenant)).count(),
        foreign,
        findings,
    }
}

fn unreachable(seen: &Seen<'_>) -> Vec<Finding> {
    let away = seen.places.iter().filter_map(|place| Some((&place.server, place.listing.as_ref().err()?)));
    away.map(|(server, error)| Finding {
        subject: about(Kind::ServerUnreachable, server),
        severity: Severity::Error,
        reference: None,
        tenant_name: None,
        size_bytes: None,
        detail: format!("nothing is known of what is on it: {}: {}", error.code, error.detail),
        next_step: format!("fleetctl server get {}", server.name),
    })
    .collect()
}

fn same_places(seen: &Seen<'_>) -> Vec<Finding> {
    let mut met: HashMap<&str, &str> = HashMap::new();
    let mut findings = Vec::new();
    for place in seen.places {
        let Ok(listing) = &place.listing else { continue };
        let Some(first) = met.get(listing.place.as_str()) else {
            met.insert(&listing.place, &place.server.name);
            continue;
        };
        findings.push(Finding {
            subject: Subject { physical: Some(listing.place.clone()), ..about(Kind::SamePlace, &place.server) },
            severity: Severity::Error,
            reference: None,
            tenant_name: None,
            size_bytes: None,
            detail: format!("it is the same place as the server '{first}': two tenants could meet in one database"),
            next_step: format!("fleetctl server cordon {}, and use only one of them", place.server.name),
        });
    }
    findings
}

fn about(kind: Kind, server: &ServerRecord) -> Subject {
    let server = server.name.clone();
    Subject { kind, server, name: String::new(), what: None, physical: None, tenant: None, identity: None }
}

fn orphan(index: &Index<'_>, server: &ServerRecord, found: &Found) -> Finding {
    let tenant = found.tenant.and_then(|tenant| index.seen.after.tenants.get(&tenant));
    let said = index.asked(server.id, &found.name);
    let kind = kind_of_orphan(server, found, tenant.is_some() || index.says_ours(said));
    let mut detail = words(found.what).to_owned();
    detail += &tenant.map_or_else(String::new, |tenant| format!(" of the tenant '{}'", tenant.name));
    if index.is_shared(found) {
        detail += "; the same file has another name, too: it was not opened";
    }
    let (severity, said_so) = identity::of_orphan(&index.seen, tenant, said);
    detail += &said_so;
    Finding {
        subject: Subject {
            name: found.name.clone(),
            what: Some(found.what),
            physical: Some(found.physical.clone()),
            tenant: found.tenant,
            identity: said.and_then(|said| said.as_ref().ok().copied()),
            ..about(kind, server)
        },
        severity,
        reference: found.reference.clone(),
        tenant_name: tenant.map(|tenant| tenant.name.clone()),
        size_bytes: found.size_bytes,
        detail,
        next_step: match kind {
            Kind::ForeignFile => "find out whose it is, and move it by hand",
            _ => "fleetctl scrub --out report.json; look at it, then fleetctl scrub --quarantine report.json --yes",
        }
        .to_owned(),
    }
}

/// A file is only of this fleet when its name has the form and this fleet is proved: by the tenant in its name, which
/// the catalog knows, or by what the database says of itself. Strangers' files are left alone.
fn kind_of_orphan(server: &ServerRecord, found: &Found, is_ours: bool) -> Kind {
    match (found.what, server.engine) {
        (FoundKind::Role, _) => Kind::OrphanRole,
        (_, EngineKind::Postgres) => Kind::OrphanDatabase,
        (FoundKind::Unknown, _) => Kind::ForeignFile,
        _ if !is_ours => Kind::ForeignFile,
        (FoundKind::Database, _) => Kind::OrphanDatabase,
        _ => Kind::OrphanFile,
    }
}

fn words(what: FoundKind) -> &'static str {
    match what {
        FoundKind::Database => "the catalog names no such database",
        FoundKind::Part => "a database that was never finished",
        FoundKind::SideFile => "a log or the like without its database",
        FoundKind::Role => "a login whose database is gone",
        FoundKind::Unknown => "nothing that this program makes",
    }
}

/// Everything that the catalog names and that is at rest: is it there, is it one's own, does it say so?
fn named_ones(index: &Index<'_>) -> Vec<Finding> {
    let there: HashMap<(&str, &str), &Found> = distinct(index.seen.places)
        .flat_map(|(_, listing)| listing.found.iter().map(move |found| (listing.place.as_str(), found)))
        .filter_map(|(place, found)| Some(((place, found.reference.as_deref()?), found)))
        .collect();
    let steady = index.steady();
    let mut owners: HashMap<&str, Vec<&Claim<'_>>> = HashMap::new();
    for (place, claim) in &steady {
        if let Some(found) = there.get(&(*place, claim.reference)) {
            owners.entry(found.physical.as_str()).or_default().push(claim);
        }
    }
    let mut findings = Vec::new();
    for (place, claim) in &steady {
        let Some(found) = there.get(&(*place, claim.reference)) else {
            findings.push(missing(index, claim));
            continue;
        };
        let others = owners.get(found.physical.as_str()).map_or(&[][..], Vec::as_slice);
        let other = others.iter().find(|other| !std::ptr::eq(**other, claim));
        match other {
            Some(other) => findings.push(shared(index, claim, found, other)),
            None => findings.extend(identity::of_claim(index, claim, found)),
        }
    }
    findings
}

fn missing(index: &Index<'_>, claim: &Claim<'_>) -> Finding {
    let name = &claim.tenant.name;
    let (severity, detail, next_step) = match claim.retained {
        None => (
            Severity::Error,
            format!("the database of the tenant '{name}' is not there"),
            format!("mount the disk or put the file back; only if it is lost: fleetctl restore run {name} --to latest"),
        ),
        Some(kept) => (
            Severity::Warning,
            format!("a database kept for the tenant '{name}' ({}) is not there", kept.reason),
            "what it was kept for cannot be undone any more".to_owned(),
        ),
    };
    finding(index, claim, None, (Kind::MissingDatabase, severity), detail, next_step)
}

fn shared(index: &Index<'_>, claim: &Claim<'_>, found: &Found, other: &Claim<'_>) -> Finding {
    let detail = format!(
        "the database of the tenant '{}' is the same as the one of the tenant '{}' ({})",
        claim.tenant.name, other.tenant.name, other.reference
    );
    let next_step = format!(
        "stop both at once; then fleetctl restore run {} --to latest for the one whose data is gone",
        claim.tenant.name
    );
    finding(index, claim, Some(found), (Kind::SharedDatabase, Severity::Error), detail, next_step)
}

/// A finding about a database that the catalog names.
fn finding(
    index: &Index<'_>,
    claim: &Claim<'_>,
    found: Option<&Found>,
    (kind, severity): (Kind, Severity),
    detail: String,
    next_step: String,
) -> Finding {
    let server = index.seen.after.servers.iter().find(|server| server.id == claim.server);
    let said = found.and_then(|found| index.asked(claim.server, &found.name));
    Finding {
        subject: Subject {
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
