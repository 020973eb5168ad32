use std::collections::{BTreeMap, HashSet};

use catalog::{BlockWrites, Generation, OperationId, ServerState, TenantState};
use tenant_engine::{FleetId, IdentityState};

use super::*;
use crate::error::{Error, ErrorKind};
use crate::scrub::finding::DatabaseOwner;

const NOW: i64 = 2_000_000_000_000;

/// A fleet with one server that answers, without any finding.
struct Fleet {
    claims: CatalogClaims,
    /// The later reading of the catalog. `None`: equal to the first.
    later: Option<CatalogClaims>,
    places: Vec<ServerContents>,
    asked: InspectedDatabases,
}

impl Fleet {
    fn of(tenants: &[&str]) -> Self {
        let server = server("one");
        let mut claims = CatalogClaims {
            fleet: FleetId::generate(),
            now: NOW,
            servers: vec![server.clone()],
            tenants: BTreeMap::new(),
            retained: Vec::new(),
            busy: HashSet::new(),
        };
        let listing = Ok(ServerListing { place: "1:1".to_owned(), found: Vec::new() });
        let mut fleet = Self {
            places: vec![ServerContents { server, listing }],
            asked: InspectedDatabases::new(),
            later: None,
            claims: {
                for name in tenants {
                    let tenant = tenant(name, claims.servers[0].id);
                    claims.tenants.insert(tenant.id, tenant);
                }
                claims
            },
        };
        for tenant in fleet.claims.tenants.values().cloned().collect::<Vec<_>>() {
            let reference = tenant.placement.clone().unwrap();
            fleet.put(&reference, Some(tenant.id));
            fleet.says(&reference, fleet.whose(&tenant));
        }
        fleet
    }

    fn whose(&self, tenant: &TenantRecord) -> DatabaseOwner {
        DatabaseOwner {
            tenant: tenant.id,
            fleet: self.claims.fleet,
            generation: tenant.generation,
            state: IdentityState::Active,
        }
    }

    fn found(&mut self) -> &mut Vec<ListedObject> {
        &mut self.places[0].listing.as_mut().unwrap().found
    }

    /// Adds an old database with this name, whose physical identity is its name.
    fn put(&mut self, reference: &str, tenant: Option<TenantId>) {
        self.found().push(ListedObject {
            reference: Some(reference.to_owned()),
            name: reference.to_owned(),
            tenant,
            what: ListedObjectKind::Database,
            physical: format!("1:{reference}"),
            size_bytes: Some(4096),
            since: Some(NOW - GRACE_MS),
        });
    }

    fn says(&mut self, name: &str, whose: DatabaseOwner) {
        self.asked.insert((self.claims.servers[0].id, name.to_owned()), Ok(whose));
    }

    fn only(&self, name: &str) -> &TenantRecord {
        self.claims.tenants.values().find(|tenant| tenant.name == name).unwrap()
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut TenantRecord)) {
        change(self.claims.tenants.values_mut().find(|tenant| tenant.name == name).unwrap());
    }

    fn seen(&self) -> ComparisonInput<'_> {
        let after = self.later.as_ref().unwrap_or(&self.claims);
        ComparisonInput { before: &self.claims, after, places: &self.places, asked: &self.asked }
    }

    fn findings(&self) -> Vec<Finding> {
        compare_claims(&self.seen()).findings
    }

    fn kinds(&self) -> Vec<FindingKind> {
        self.findings().iter().map(|finding| finding.subject.kind).collect()
    }
}

fn server(name: &str) -> ServerRecord {
    ServerRecord {
        id: ServerId::generate(),
        name: name.to_owned(),
        engine: EngineKind::Sqlite,
        base: "/srv".to_owned(),
        state: ServerState::Active,
        tenants_max: None,
        system_id: None,
        created_at: 0,
    }
}

fn tenant(name: &str, server_id: ServerId) -> TenantRecord {
    TenantRecord {
        id: TenantId::generate(),
        name: name.to_owned(),
        state: TenantState::Active,
        state_reason: None,
        wake_state: None,
        archive_backup_id: None,
        block_writes: None,
        server_id,
        placement: Some(format!("{name}/g2-1.db")),
        generation: Generation(2),
        placement_epoch: 1,
        schema_version: None,
        release_id: None,
        pin: None,
        ledger_release_id: None,
        size_bytes: None,
        protected: false,
        op_id: None,
        created_at: 0,
        updated_at: 0,
        deleted_at: None,
        purge_after: None,
        plan: None,
        labels: BTreeMap::new(),
    }
}

fn kept(fleet: &Fleet, name: &str, placement: &str) -> RetainedRecord {
    RetainedRecord {
        tenant_id: fleet.only(name).id,
        server_id: fleet.claims.servers[0].id,
        placement: placement.to_owned(),
        generation: Generation(1),
        reason: catalog::retained::RetainedReason::Restore,
        op_id: OperationId::generate(),
        schema_version: None,
        pin: None,
        created_at: 0,
        keep_until: NOW,
    }
}

#[test]
fn a_fleet_in_order_has_no_findings() {
    let fleet = Fleet::of(&["acme", "globex"]);
    let report = compare_claims(&fleet.seen());
    assert_eq!(report.findings, []);
    assert_eq!((report.servers, report.tenants, report.databases, report.opened, report.busy), (1, 2, 2, 2, 0));
}

#[test]
fn what_neither_reading_names_is_an_orphan() {
    let mut fleet = Fleet::of(&["acme"]);
    fleet.put("acme/g1-9.db", Some(fleet.only("acme").id));
    assert_eq!(fleet.kinds(), [FindingKind::OrphanDatabase]);
    let finding = fleet.findings().remove(0);
    assert_eq!((finding.severity, finding.tenant_name.as_deref()), (FindingSeverity::Warning, Some("acme")));
    // Only the later reading names it: an operation ended meanwhile.
    let mut later = fleet.claims.clone();
    later.retained.push(kept(&fleet, "acme", "acme/g1-9.db"));
    fleet.later = Some(later);
    assert_eq!(fleet.kinds(), []);
    // Only the earlier reading names it: it was dropped while the server was listed.
    let later = fleet.later.take().unwrap();
    fleet.later = Some(std::mem::replace(&mut fleet.claims, later));
    assert_eq!(fleet.kinds(), []);
}

#[test]
fn what_is_being_made_is_no_orphan() {
    let mut fleet = Fleet::of(&["acme"]);
    let id = fleet.only("acme").id;
    fleet.put("acme/g4-2.db", Some(id));
    fleet.found()[1].since = Some(NOW - GRACE_MS + 1);
    assert_eq!(fleet.kinds(), []);
    fleet.found()[1].since = Some(NOW + 1);
    assert_eq!(fleet.kinds(), [], "a clock that is ahead");
    fleet.found()[1].since = None;
    assert_eq!(fleet.kinds(), [FindingKind::OrphanDatabase]);
    fleet.claims.busy.insert(id);
    let report = compare_claims(&fleet.seen());
    assert_eq!((report.findings, report.busy), (vec![], 1));
}

#[test]
fn leftovers_are_orphans_but_not_the_log_of_a_missing_database() {
    let mut fleet = Fleet::of(&["acme"]);
    for (name, what) in [
        ("x/g1-1.db.part", ListedObjectKind::Part),
        ("x/g1-1.db-wal", ListedObjectKind::SideFile),
        ("notes.txt", ListedObjectKind::Unknown),
        ("acme/g2-1.db-wal", ListedObjectKind::SideFile),
    ] {
        fleet.put(name, Some(fleet.only("acme").id).filter(|_| name.contains('/')));
        let found = fleet.found().last_mut().unwrap();
        (found.what, found.reference) = (what, None);
    }
    assert_eq!(sorted(fleet.kinds()), [FindingKind::OrphanFile, FindingKind::OrphanFile, FindingKind::ForeignFile]);
    fleet.found().remove(0);
    let left =
        [FindingKind::MissingDatabase, FindingKind::OrphanFile, FindingKind::OrphanFile, FindingKind::ForeignFile];
    assert_eq!(sorted(fleet.kinds()), left);
}

fn sorted(mut kinds: Vec<FindingKind>) -> Vec<FindingKind> {
    kinds.sort();
    kinds
}

#[test]
fn a_file_that_is_not_proved_to_be_of_this_fleet_is_foreign() {
    let mut fleet = Fleet::of(&["acme"]);
    for what in
        [ListedObjectKind::Part, ListedObjectKind::SideFile, ListedObjectKind::Unknown, ListedObjectKind::Database]
    {
        fleet.put("x/g1-1.db", Some(TenantId::generate()));
        let found = fleet.found().last_mut().unwrap();
        (found.what, found.reference) = (what, None);
        assert_eq!(fleet.kinds(), [FindingKind::ForeignFile], "{what:?}");
        assert!(!FindingKind::ForeignFile.is_orphan());
        fleet.found().pop();
    }
}

#[test]
fn a_login_without_database_is_an_orphan_unless_the_catalog_names_the_database() {
    let mut fleet = Fleet::of(&[]);
    fleet.put("t_1_g1_1_r", None);
    fleet.found()[0].what = ListedObjectKind::Role;
    assert_eq!(fleet.kinds(), [FindingKind::OrphanRole]);
    let mut acme = tenant("acme", fleet.claims.servers[0].id);
    acme.placement = Some("t_1_g1_1".to_owned());
    fleet.claims.tenants.insert(acme.id, acme);
    assert_eq!(fleet.kinds(), [FindingKind::MissingDatabase]);
}

#[test]
fn another_fleets_database_is_none_of_our_business() {
    let mut fleet = Fleet::of(&["acme"]);
    fleet.put("other/g1-1.db", Some(TenantId::generate()));
    let mut whose = fleet.whose(fleet.only("acme"));
    whose.fleet = FleetId::generate();
    fleet.says("other/g1-1.db", whose);
    let report = compare_claims(&fleet.seen());
    assert_eq!((report.findings, report.foreign), (vec![], 1));
    // With one of the fleet's tenants in its name, it is an orphan of this fleet.
    let id = fleet.only("acme").id;
    fleet.found()[1].tenant = Some(id);
    assert_eq!(fleet.kinds(), [FindingKind::OrphanDatabase]);
}

#[test]
fn a_second_database_that_claims_to_be_current_is_an_error() {
    let mut fleet = Fleet::of(&["acme"]);
    fleet.put("acme/g3-9.db", Some(fleet.only("acme").id));
    fleet.says("acme/g3-9.db", fleet.whose(fleet.only("acme")));
    assert_eq!(fleet.findings()[0].severity, FindingSeverity::Error);
}

#[test]
fn missing_is_what_both_readings_name() {
    let mut fleet = Fleet::of(&["acme", "globex"]);
    fleet.found().retain(|found| !found.name.starts_with("acme"));
    assert_eq!(fleet.kinds(), [FindingKind::MissingDatabase]);
    assert_eq!(fleet.findings()[0].severity, FindingSeverity::Error);
    let mut later = fleet.claims.clone();
    later.tenants.values_mut().filter(|t| t.name == "acme").for_each(|t| t.generation = Generation(3));
    fleet.later = Some(later);
    assert_eq!(fleet.kinds(), [], "it changed meanwhile");
}

#[test]
fn a_kept_database_is_no_orphan_and_is_missed_with_a_warning() {
    let mut fleet = Fleet::of(&["acme"]);
    fleet.put("acme/g1-1.db", Some(fleet.only("acme").id));
    let kept = kept(&fleet, "acme", "acme/g1-1.db");
    fleet.claims.retained.push(kept);
    assert_eq!(fleet.kinds(), []);
    let mut whose = fleet.whose(fleet.only("acme"));
    fleet.says("acme/g1-1.db", whose);
    assert_eq!(fleet.kinds(), [FindingKind::WrongState], "a kept database is never active");
    whose.state = IdentityState::Frozen;
    fleet.says("acme/g1-1.db", whose);
    assert_eq!(fleet.kinds(), []);
    fleet.found().pop();
    assert_eq!(
        (fleet.kinds()[0], fleet.findings()[0].severity),
        (FindingKind::MissingDatabase, FindingSeverity::Warning)
    );
}

#[test]
fn two_tenants_on_one_file_are_both_told_and_it_is_not_opened() {
    let mut fleet = Fleet::of(&["acme", "globex"]);
    let physical = fleet.found()[0].physical.clone();
    fleet.found()[1].physical = physical;
    assert_eq!(fleet.kinds(), [FindingKind::SharedDatabase; 2]);
    assert!(databases_to_inspect(&fleet.seen()).is_empty());
}

#[test]
fn two_servers_that_are_one_place_are_told_and_their_tenants_are_not_orphans() {
    let mut fleet = Fleet::of(&["acme", "globex"]);
    let two = server("two");
    fleet.change("globex", |tenant| tenant.server_id = two.id);
    let found = fleet.found().clone();
    fleet.claims.servers.push(two.clone());
    fleet.places.push(ServerContents { server: two, listing: Ok(ServerListing { place: "1:1".to_owned(), found }) });
    assert_eq!(fleet.kinds(), [FindingKind::SamePlace]);
    let report = compare_claims(&fleet.seen());
    assert_eq!(report.databases, 2, "each is counted once");
}

#[test]
fn a_server_that_does_not_answer_is_a_finding_and_says_nothing_of_its_tenants() {
    let mut fleet = Fleet::of(&["acme"]);
    fleet.places[0].listing = Err(Error::new(ErrorKind::Engine(tenant_engine::ErrorKind::ServerUnreachable), "gone"));
    assert_eq!(fleet.kinds(), [FindingKind::ServerUnreachable]);
}

#[test]
fn identities_are_held_against_the_catalog() {
    let fleet = || Fleet::of(&["acme", "globex"]);
    let with = |change: &dyn Fn(&mut DatabaseOwner)| {
        let mut fleet = fleet();
        let mut whose = fleet.whose(fleet.only("acme"));
        change(&mut whose);
        fleet.says("acme/g2-1.db", whose);
        fleet.kinds()
    };
    let other = TenantId::generate();
    assert_eq!(with(&|whose| whose.tenant = other), [FindingKind::WrongTenant]);
    assert_eq!(with(&|whose| whose.fleet = FleetId::generate()), [FindingKind::WrongFleet]);
    assert_eq!(with(&|whose| whose.generation = Generation(3)), [FindingKind::WrongGeneration]);
    assert_eq!(with(&|whose| whose.state = IdentityState::Frozen), [FindingKind::WrongState]);
    let mut silent = fleet();
    let key = (silent.claims.servers[0].id, "acme/g2-1.db".to_owned());
    silent.asked.insert(key, Err(Error::new(ErrorKind::Engine(tenant_engine::ErrorKind::Corrupt), "damaged")));
    assert_eq!(silent.kinds(), [FindingKind::Unreadable]);
}

#[test]
fn what_could_not_be_looked_at_is_not_damaged_and_no_restore_is_advised() {
    use tenant_engine::ErrorKind as DatabaseError;
    let kinds = [
        DatabaseError::Io,
        DatabaseError::ConnectionsMax,
        DatabaseError::DiskFull,
        DatabaseError::ReadOnlyStorage,
        DatabaseError::Busy,
        DatabaseError::Missing,
        DatabaseError::Internal,
        DatabaseError::ServerUnreachable,
        DatabaseError::ServerFull,
        DatabaseError::DeadlineExceeded,
    ];
    for kind in kinds.map(ErrorKind::from).into_iter().chain([ErrorKind::Recorded("unknown".to_owned())]) {
        let code = kind.code().to_owned();
        let mut fleet = Fleet::of(&["acme"]);
        let key = (fleet.claims.servers[0].id, "acme/g2-1.db".to_owned());
        fleet.asked.insert(key, Err(Error::new(kind, "no answer").mark_transient()));
        let report = compare_claims(&fleet.seen());
        let kinds: Vec<FindingKind> = report.findings.iter().map(|finding| finding.subject.kind).collect();
        assert_eq!((kinds, report.opened), (vec![FindingKind::NotLooked], 0), "{code}");
        assert!(!report.findings[0].next_step.contains("restore"), "{}", report.findings[0].next_step);
        assert_eq!(report.findings[0].severity, FindingSeverity::Error);
    }
}

#[test]
fn the_state_goes_with_the_catalogs_state_and_block() {
    for (state, block, allowed) in [
        (TenantState::Active, None, IdentityState::Active),
        (TenantState::Active, Some(BlockWrites::Operation), IdentityState::Frozen),
        (TenantState::Active, Some(BlockWrites::Operator), IdentityState::Frozen),
        (TenantState::Suspended, None, IdentityState::Active),
        (TenantState::Suspended, Some(BlockWrites::Operator), IdentityState::Frozen),
        (TenantState::Deleted, None, IdentityState::Tombstone),
    ] {
        for said in [IdentityState::Active, IdentityState::Frozen, IdentityState::Tombstone, IdentityState::Building] {
            let mut fleet = Fleet::of(&["acme"]);
            fleet.change("acme", |tenant| (tenant.state, tenant.block_writes) = (state, block));
            let whose = DatabaseOwner { state: said, ..fleet.whose(fleet.only("acme")) };
            fleet.says("acme/g2-1.db", whose);
            let wanted: &[FindingKind] = if said == allowed { &[] } else { &[FindingKind::WrongState] };
            assert_eq!(fleet.kinds(), wanted, "{state:?} {block:?} {said}");
        }
    }
}
