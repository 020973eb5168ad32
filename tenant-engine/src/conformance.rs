//! The suite every engine must pass: each verb, repeated, refused to the wrong caller, and after the others.
//!
//! A test makes a [`Subject`] around its engine and calls [`run_all`]; a law that does not hold panics and says which.
//! Everything here goes through the public trait, so the suite also says what a caller may rely on.
#![expect(clippy::missing_panics_doc, reason = "panicking is how a law says that it does not hold")]

use std::sync::Arc;

use bytes::Bytes;

use crate::migration::File;
use crate::{
    Access, After, Depth, Engine, ErrorKind, Expected, FleetId, Found, FoundKind, Generation, Identity, IdentityState,
    Image, Limits, MigrationSet, Placement, Result, Server, Statement, TenantId, Value,
};

/// An engine under test.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// Where its databases live.
    pub server: Server,
    /// Whether its databases can be connected to.
    pub serving: Serving,
}

/// Whether an engine opens pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// It does.
    Pools,
    /// It only knows the verbs of operations, as an engine for testing those may.
    VerbsOnly,
}

/// Runs every law.
pub async fn run_all(subject: &Subject) {
    provisioning_is_repeatable_and_exclusive(subject).await;
    migrating_is_repeatable_and_stops_at_the_target(subject).await;
    a_failing_version_is_rolled_back_alone(subject).await;
    the_ledger_must_agree_with_the_set(subject).await;
    a_stamp_is_repeatable(subject).await;
    a_frozen_database_is_still_snapshotted_and_thaws(subject).await;
    a_snapshot_names_its_content(subject).await;
    a_restore_fills_a_new_placement(subject).await;
    a_copy_has_the_same_fingerprint(subject).await;
    a_bad_image_leaves_nothing(subject).await;
    dropping_is_repeatable(subject).await;
    a_listing_names_what_is_there(subject).await;
    putting_aside_leaves_the_others(subject).await;
    a_missing_database_is_missing_to_every_verb(subject).await;
    the_wrong_caller_is_refused_by_every_verb(subject).await;
    if subject.serving == Serving::Pools {
        a_pool_serves_what_the_identity_allows(subject).await;
    }
}

/// Provisioning twice is once; another identity does not get the same placement.
pub async fn provisioning_is_repeatable_and_exclusive(subject: &Subject) {
    let one = subject.tenant();
    let template = ok(subject.engine.template(&subject.server, &base()).await);
    assert_eq!(template.schema_version, Some(2));
    assert_eq!(template.digest, base().digest());
    for _ in 0..2 {
        ok(subject.engine.provision(&one.at, &template, &one.identity).await);
    }
    let seen = ok(subject.engine.inspect(&one.at, Some(&one.expected()), Depth::Full).await);
    assert_eq!((&seen.identity, seen.schema_version()), (&one.identity, Some(2)));
    assert!(seen.problems.is_empty() && seen.size_bytes > 0 && seen.applied.iter().all(|row| row.success));
    let other = Identity { tenant: TenantId::generate(), ..one.identity.clone() };
    refused(subject.engine.provision(&one.at, &template, &other).await, ErrorKind::AlreadyExists);
    subject.is_still(&one).await;
}

/// Migrating twice is once; a target is where it stops.
pub async fn migrating_is_repeatable_and_stops_at_the_target(subject: &Subject) {
    let one = subject.provisioned(&base()).await;
    let set = base_and(&["alter table t1 add column b integer;", "create index i on t1(b);"]);
    let to_three = ok(subject.engine.migrate(&one.at, &one.expected(), &set, Some(3)).await);
    assert_eq!((to_three.from_version, to_three.to_version, to_three.applied), (Some(2), Some(3), vec![3]));
    let rest = ok(subject.engine.migrate(&one.at, &one.expected(), &set, None).await);
    assert_eq!((rest.from_version, rest.to_version, rest.applied), (Some(3), Some(4), vec![4]));
    let again = ok(subject.engine.migrate(&one.at, &one.expected(), &set, None).await);
    assert_eq!((again.from_version, again.to_version, again.applied), (Some(4), Some(4), vec![]));
    refused(subject.engine.migrate(&one.at, &one.expected(), &set, Some(77)).await, ErrorKind::MigrationInvalid);
}

/// A listing has a database while it is there, with its tenant, and not afterwards.
pub async fn a_listing_names_what_is_there(subject: &Subject) {
    let one = subject.provisioned(&base()).await;
    let found = subject.listed(&one.at).await.expect("a database that is there is listed");
    assert_eq!((found.tenant, found.what), (Some(one.identity.tenant), FoundKind::Database));
    assert!(!found.physical.is_empty());
    ok(subject.engine.drop_database(&one.at, Some(&one.expected())).await);
    assert_eq!(subject.listed(&one.at).await, None);
}

/// What is put aside is listed no more; what carries another identity than was found stays.
pub async fn putting_aside_leaves_the_others(subject: &Subject) {
    let (one, other) = (subject.provisioned(&base()).await, subject.provisioned(&base()).await);
    let found = subject.listed(&one.at).await.expect("it is there");
    let engine = &subject.engine;
    let wrong = engine.quarantine(&subject.server, &found, Some(&other.expected()), "20260101").await;
    refused(wrong, ErrorKind::WrongTenant);
    subject.is_still(&one).await;
    let aside = ok(engine.quarantine(&subject.server, &found, Some(&one.expected()), "20260101").await);
    assert!(aside.contains("quarantine") && aside.contains("20260101"), "{aside}");
    assert_eq!(subject.listed(&one.at).await, None);
    let again = engine.quarantine(&subject.server, &found, Some(&one.expected()), "20260101").await;
    refused(again, ErrorKind::Missing);
    subject.is_still(&other).await;
}

/// What was applied before a failing version stays, and the failing one leaves nothing.
pub async fn a_failing_version_is_rolled_back_alone(subject: &Subject) {
    let one = subject.provisioned(&base()).await;
    let bad = base_and(&["create table t3(a integer);", "create table t4(a integer); insert into nowhere values(1);"]);
    let error = refused(subject.engine.migrate(&one.at, &one.expected(), &bad, None).await, ErrorKind::MigrationFailed);
    assert!(error.contains("version 4"), "{error}");
    let repaired = base_and(&["create table t3(a integer);", "create table t4(a integer);"]);
    let done = ok(subject.engine.migrate(&one.at, &one.expected(), &repaired, None).await);
    assert_eq!((done.from_version, done.applied), (Some(3), vec![4]));
}

/// Ahead, changed and missing are three errors, and nothing is applied on any of them.
pub async fn the_ledger_must_agree_with_the_set(subject: &Subject) {
    let one = subject.provisioned(&base_and(&["create table t3(a integer);"])).await;
    let files = |names: &[(&str, &str)]| ok(MigrationSet::from_files(&names.iter().map(file).collect::<Vec<_>>()));
    for (set, kind) in [
        (base(), ErrorKind::MigrationAhead),
        (base_and(&["create table other(a integer);", "create table t4(a integer);"]), ErrorKind::MigrationChanged),
        (files(&[BASE[0], BASE[1], ("4_v.sql", "create table t4(a integer);")]), ErrorKind::MigrationMissing),
    ] {
        refused(subject.engine.migrate(&one.at, &one.expected(), &set, None).await, kind);
    }
    let seen = ok(subject.engine.inspect(&one.at, None, Depth::Ledger).await);
    assert_eq!(seen.schema_version(), Some(3));
}

/// Stamping twice is once, and the caller who stamped is the stale one afterwards.
pub async fn a_stamp_is_repeatable(subject: &Subject) {
    let one = subject.provisioned(&base()).await;
    let next = one.at_generation(2, IdentityState::Active);
    for _ in 0..2 {
        ok(subject.engine.stamp(&one.at, &one.expected(), &next.identity).await);
    }
    subject.is_still(&next).await;
    let third = one.at_generation(3, IdentityState::Active);
    refused(subject.engine.stamp(&one.at, &one.expected(), &third.identity).await, ErrorKind::Fenced);
    subject.is_still(&next).await;
}

/// Freezing twice is once; a frozen database can be looked at and copied; a later stamp thaws it.
pub async fn a_frozen_database_is_still_snapshotted_and_thaws(subject: &Subject) {
    let one = subject.provisioned(&base()).await;
    let frozen = one.at_generation(2, IdentityState::Frozen);
    for _ in 0..2 {
        ok(subject.engine.freeze(&one.at, &one.expected(), &frozen.identity).await);
    }
    subject.is_still(&frozen).await;
    let not_frozen = one.at_generation(2, IdentityState::Active);
    refused(subject.engine.freeze(&one.at, &frozen.expected(), &not_frozen.identity).await, ErrorKind::Internal);
    ok(subject.engine.snapshot(&frozen.at, &frozen.expected()).await);
    let thawed = one.at_generation(3, IdentityState::Active);
    ok(subject.engine.stamp(&one.at, &frozen.expected(), &thawed.identity).await);
    let writes = base_and(&["insert into t1 values(1); update t1 set a = 2; delete from t1;"]);
    ok(subject.engine.migrate(&one.at, &thawed.expected(), &writes, None).await);
}

/// Equal content has an equal hash, different content a different one, and the picture says whose it is.
pub async fn a_snapshot_names_its_content(subject: &Subject) {
    let one = subject.provisioned(&base()).await;
    let first = ok(subject.engine.snapshot(&one.at, &one.expected()).await);
    assert_eq!((&first.info.identity, first.info.schema_version), (&one.identity, Some(2)));
    assert_eq!(first.info.size_bytes, bytes_of(&first.image).len() as u64);
    let second = ok(subject.engine.snapshot(&one.at, &one.expected()).await);
    assert_eq!(first.info.content_hash, second.info.content_hash);
    let changed = base_and(&["insert into t1 values(1);"]);
    ok(subject.engine.migrate(&one.at, &one.expected(), &changed, None).await);
    let third = ok(subject.engine.snapshot(&one.at, &one.expected()).await);
    assert_ne!(first.info.content_hash, third.info.content_hash);
}

/// A copy holds the same, wherever it is and whatever its identity says; one changed row shows, and a changed schema.
pub async fn a_copy_has_the_same_fingerprint(subject: &Subject) {
    let one = subject.provisioned(&base_and(&["insert into t1 values(1); insert into t1 values(2);"])).await;
    let taken = ok(subject.engine.snapshot(&one.at, &one.expected()).await);
    let copy = subject.placed(one.at_generation(3, IdentityState::Building).identity);
    ok(subject.engine.restore(&copy.at, taken.image, one.identity.tenant, &copy.identity).await);
    let here = ok(subject.engine.fingerprint(&one.at, &one.expected()).await);
    let there = ok(subject.engine.fingerprint(&copy.at, &copy.expected()).await);
    assert_eq!(here.difference(&there), None);
    assert!(here.tables.iter().any(|(name, table)| name.ends_with("t1") && table.rows == 2), "{here:?}");
    let rows = base_and(&["insert into t1 values(1); insert into t1 values(2);", "update t1 set a = 3 where a = 2;"]);
    ok(subject.engine.migrate(&copy.at, &copy.expected(), &rows, None).await);
    let there = ok(subject.engine.fingerprint(&copy.at, &copy.expected()).await);
    let differs = |name: &str| here.tables.iter().any(|(n, sum)| n.ends_with(name) && there.tables.get(n) != Some(sum));
    assert!(differs("t1") && !differs("t2"), "{:?}", here.difference(&there));
    let frozen = one.at_generation(2, IdentityState::Frozen);
    ok(subject.engine.freeze(&one.at, &one.expected(), &frozen.identity).await);
    let fenced = ok(subject.engine.fingerprint(&frozen.at, &frozen.expected()).await);
    assert_eq!(here.difference(&fenced), None, "the fence does not count");
}

/// Restoring twice is once; the new placement carries the new identity, the old one is untouched; a clone changes the
/// tenant; a freeze does not travel.
pub async fn a_restore_fills_a_new_placement(subject: &Subject) {
    let one = subject.provisioned(&base()).await;
    let frozen = one.at_generation(2, IdentityState::Frozen);
    ok(subject.engine.freeze(&one.at, &one.expected(), &frozen.identity).await);
    let taken = ok(subject.engine.snapshot(&one.at, &frozen.expected()).await);
    let image = bytes_of(&taken.image);
    let own = subject.placed(one.at_generation(3, IdentityState::Building).identity);
    let clone = subject.placed(Identity { state: IdentityState::Building, ..subject.tenant().identity });
    for to in [&own, &clone] {
        for _ in 0..2 {
            let image = Image::Memory(image.clone());
            let done = ok(subject.engine.restore(&to.at, image, one.identity.tenant, &to.identity).await);
            assert_eq!((done.schema_version, done.foreign_key_violations), (Some(2), 0));
            assert!(done.size_bytes > 0);
            subject.is_still(to).await;
        }
        let active = to.in_state(IdentityState::Active);
        ok(subject.engine.stamp(&to.at, &to.expected(), &active.identity).await);
        let writes = base_and(&["insert into t1 values(1);"]);
        ok(subject.engine.migrate(&to.at, &active.expected(), &writes, None).await);
    }
    subject.is_still(&frozen).await;
}

/// Another tenant's image, a truncated one and garbage are refused, and nothing is there afterwards.
pub async fn a_bad_image_leaves_nothing(subject: &Subject) {
    let one = subject.provisioned(&base()).await;
    let image = bytes_of(&ok(subject.engine.snapshot(&one.at, &one.expected()).await).image);
    let cases = [
        (image.clone(), TenantId::generate(), ErrorKind::WrongTenant),
        (image.slice(..image.len() / 2), one.identity.tenant, ErrorKind::Corrupt),
        (Bytes::from_static(b"not a database"), one.identity.tenant, ErrorKind::Corrupt),
        (Bytes::new(), one.identity.tenant, ErrorKind::Corrupt),
    ];
    for (image, source, kind) in cases {
        let to = subject.tenant();
        refused(subject.engine.restore(&to.at, Image::Memory(image), source, &to.identity).await, kind);
        refused(subject.engine.inspect(&to.at, None, Depth::Ledger).await, ErrorKind::Missing);
    }
    let other = subject.provisioned(&base()).await;
    let error = subject.engine.restore(&other.at, Image::Memory(image), one.identity.tenant, &one.identity).await;
    refused(error, ErrorKind::AlreadyExists);
    subject.is_still(&other).await;
}

/// Dropping twice is once, with an expectation and without.
pub async fn dropping_is_repeatable(subject: &Subject) {
    for checked in [true, false] {
        let one = subject.provisioned(&base()).await;
        let expected = checked.then(|| one.expected());
        for _ in 0..2 {
            ok(subject.engine.drop_database(&one.at, expected.as_ref()).await);
        }
        refused(subject.engine.inspect(&one.at, None, Depth::Ledger).await, ErrorKind::Missing);
    }
}

/// No verb makes a database out of nothing.
pub async fn a_missing_database_is_missing_to_every_verb(subject: &Subject) {
    let one = subject.tenant();
    for (verb, outcome) in subject.every_verb(&one, &one.expected()).await {
        match verb {
            "drop_database" => ok(outcome),
            _ => drop(refused(outcome, ErrorKind::Missing)),
        }
    }
    refused(subject.engine.inspect(&one.at, None, Depth::Ledger).await, ErrorKind::Missing);
}

/// Another tenant, another fleet, another generation, another state: refused by every verb, and nothing changes.
pub async fn the_wrong_caller_is_refused_by_every_verb(subject: &Subject) {
    let one = subject.provisioned(&base()).await;
    let right = one.expected();
    let wrong = [
        (Expected { tenant: TenantId::generate(), ..right.clone() }, ErrorKind::WrongTenant),
        (Expected { fleet: FleetId::generate(), ..right.clone() }, ErrorKind::WrongTenant),
        (Expected { generation: Generation(2), ..right.clone() }, ErrorKind::Fenced),
        (Expected { states: vec![IdentityState::Frozen], ..right.clone() }, ErrorKind::Fenced),
        (Expected { states: vec![], ..right.clone() }, ErrorKind::Fenced),
    ];
    for (expected, kind) in wrong {
        for (_, outcome) in subject.every_verb(&one, &expected).await {
            refused(outcome, kind);
            subject.is_still(&one).await;
        }
    }
    let seen = ok(subject.engine.inspect(&one.at, Some(&right), Depth::Full).await);
    assert_eq!(seen.schema_version(), Some(2));
}

/// An active database is read and written, a frozen one only read, and a pool notices when it is no longer current.
pub async fn a_pool_serves_what_the_identity_allows(subject: &Subject) {
    let one = subject.provisioned(&base()).await;
    let states = vec![IdentityState::Active, IdentityState::Frozen];
    let pool = ok(subject.engine.connect(&one.at, &Expected { states: states.clone(), ..one.expected() }).await);
    let run = |access, sql: &str| {
        let (mut session, sql) = (pool.session(access, Limits::default()), sql.to_owned());
        async move { session.run(vec![Statement { sql, params: vec![] }], After::Commit).await }
    };
    ok(run(Access::Write, "insert into t1 values(41)").await);
    assert_eq!(ok(run(Access::Read, "select a + 1 from t1").await)[0].rows, [[Value::Integer(42)]]);
    let frozen = one.in_state(IdentityState::Frozen);
    ok(subject.engine.freeze(&one.at, &one.expected(), &frozen.identity).await);
    assert!(run(Access::Write, "insert into t1 values(1)").await.is_err());
    assert_eq!(ok(run(Access::Read, "select count(*) from t1").await)[0].rows, [[Value::Integer(1)]]);
    let next = one.at_generation(2, IdentityState::Active);
    ok(subject.engine.stamp(&one.at, &frozen.expected(), &next.identity).await);
    refused(run(Access::Read, "select 1").await, ErrorKind::Fenced);
    refused(run(Access::Write, "delete from t1").await, ErrorKind::Fenced);
    pool.close().await;
    assert_eq!(pool.connections(), 0);
}

/// A tenant on a subject.
#[derive(Debug, Clone)]
struct Tenant {
    at: Placement,
    identity: Identity,
}

impl Tenant {
    fn expected(&self) -> Expected {
        let Identity { tenant, fleet, generation, state, .. } = self.identity;
        Expected { tenant, fleet, generation, states: vec![state] }
    }

    fn at_generation(&self, generation: i64, state: IdentityState) -> Self {
        let identity = Identity { generation: Generation(generation), state, ..self.identity.clone() };
        Self { identity, ..self.clone() }
    }

    fn in_state(&self, state: IdentityState) -> Self {
        self.at_generation(self.identity.generation.0, state)
    }
}

impl Subject {
    /// What the listing says of this placement.
    async fn listed(&self, at: &Placement) -> Option<Found> {
        let listing = ok(self.engine.databases(&self.server, None).await);
        let found = listing.found.into_iter().find(|found| found.reference.as_deref() == Some(at.reference()));
        if let Some(found) = &found {
            // Of this tenant only, the same and nobody else's.
            let own = ok(self.engine.databases(&self.server, found.tenant).await).found;
            assert!(own.contains(found), "{found:?} is not among {own:?}");
            assert!(own.iter().all(|one| one.tenant == found.tenant), "{own:?}");
            let nobodys = ok(self.engine.databases(&self.server, Some(TenantId::generate())).await);
            assert_eq!(nobodys.found, []);
        }
        found
    }

    /// A tenant that does not exist yet.
    fn tenant(&self) -> Tenant {
        self.placed(Identity {
            tenant: TenantId::generate(),
            fleet: FleetId::generate(),
            generation: Generation::FIRST,
            state: IdentityState::Active,
            op: None,
            stamped_at: 1,
        })
    }

    fn placed(&self, identity: Identity) -> Tenant {
        Tenant { at: self.server.fresh(identity.tenant, identity.generation, 1), identity }
    }

    async fn provisioned(&self, set: &MigrationSet) -> Tenant {
        let tenant = self.tenant();
        let template = ok(self.engine.template(&self.server, set).await);
        ok(self.engine.provision(&tenant.at, &template, &tenant.identity).await);
        tenant
    }

    async fn is_still(&self, tenant: &Tenant) {
        let seen = ok(self.engine.inspect(&tenant.at, Some(&tenant.expected()), Depth::Ledger).await);
        assert_eq!(seen.identity, tenant.identity);
    }

    /// What every verb that opens an existing database answers to a caller with this expectation.
    async fn every_verb(&self, tenant: &Tenant, expected: &Expected) -> Vec<(&'static str, Result<()>)> {
        let (engine, at) = (&self.engine, &tenant.at);
        let next = tenant.at_generation(9, IdentityState::Active).identity;
        let frozen = tenant.at_generation(9, IdentityState::Frozen).identity;
        let set = base_and(&["create table t3(a integer);"]);
        let mut answers = vec![
            ("migrate", engine.migrate(at, expected, &set, None).await.map(drop)),
            ("snapshot", engine.snapshot(at, expected).await.map(drop)),
            ("stamp", engine.stamp(at, expected, &next).await),
            ("freeze", engine.freeze(at, expected, &frozen).await),
            ("drop_database", engine.drop_database(at, Some(expected)).await),
            ("inspect", engine.inspect(at, Some(expected), Depth::Full).await.map(drop)),
        ];
        if self.serving == Serving::Pools {
            answers.push(("connect", connect(engine, at, expected).await));
        }
        answers
    }
}

/// Connects and reads once: an engine may look at the identity as late as that.
async fn connect(engine: &Arc<dyn Engine>, at: &Placement, expected: &Expected) -> Result<()> {
    let pool = engine.connect(at, expected).await?;
    let select = Statement { sql: "select 1".to_owned(), params: vec![] };
    let answer = pool.session(Access::Read, Limits::default()).run(vec![select], After::Commit).await;
    pool.close().await;
    answer.map(drop)
}

const BASE: [(&str, &str); 2] =
    [("1_v.sql", "create table t1(a integer);"), ("2_v.sql", "create table t2(a integer);")];

fn base() -> MigrationSet {
    base_and(&[])
}

/// Two versions and then these.
fn base_and(more: &[&str]) -> MigrationSet {
    let more = more.iter().zip(3..).map(|(sql, n)| File { name: format!("{n}_v.sql"), sql: (*sql).to_owned() });
    ok(MigrationSet::from_files(&BASE.iter().map(file).chain(more).collect::<Vec<_>>()))
}

fn file((name, sql): &(&str, &str)) -> File {
    File { name: (*name).to_owned(), sql: (*sql).to_owned() }
}

fn bytes_of(image: &Image) -> Bytes {
    match image {
        Image::Memory(bytes) => bytes.clone(),
        Image::File(path) => std::fs::read(path).expect("an image can be read").into(),
    }
}

#[track_caller]
fn ok<T>(outcome: Result<T>) -> T {
    outcome.unwrap_or_else(|error| panic!("{:?}: {error}", error.kind()))
}

/// The message of an error that must have this kind.
#[track_caller]
fn refused<T>(outcome: Result<T>, kind: ErrorKind) -> String {
    match outcome {
        Ok(_) => panic!("expected {kind:?}, and it succeeded"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{error}");
            error.to_string()
        }
    }
}
