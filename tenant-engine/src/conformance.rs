//! The test suite that every engine must pass: each operation alone, repeated, after others, and refused to the wrong
//! caller.
//!
//! A test makes an [`EngineUnderTest`] around its engine and calls [`run_all`]. A law that does not hold panics and
//! says which law it is. The suite uses only the public trait, so it also documents what a caller may rely on.
#![expect(clippy::missing_panics_doc, reason = "panicking is how a law says that it does not hold")]

mod kit;
mod own_tables;

use std::sync::Arc;

use bytes::Bytes;

use self::kit::{BASE, base_and, base_set, bytes_of, expect_ok, expect_refusal, migration_file};
use crate::{
    AccessMode, AfterStatements, DatabaseServer, Engine, ErrorKind, ExpectedIdentity, FleetId, Generation, Identity,
    IdentityState, InspectionDepth, ListedObject, ListedObjectKind, MigrationSet, Placement, Result, SessionLimits,
    SnapshotImage, SqlStatement, SqlValue, TenantId,
};

/// An engine under test.
#[derive(Debug, Clone)]
pub struct EngineUnderTest {
    /// The engine to test.
    pub engine: Arc<dyn Engine>,
    /// The server on which the suite makes its databases.
    pub server: DatabaseServer,
    /// Whether the engine opens pools.
    pub serving: PoolSupport,
}

/// Whether an engine opens pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolSupport {
    /// The engine opens pools.
    Pools,
    /// The engine has no pools; an engine for testing operations may lack them.
    VerbsOnly,
}

/// Runs every law of the suite.
pub async fn run_all(subject: &EngineUnderTest) {
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
    if subject.serving == PoolSupport::Pools {
        a_pool_serves_what_the_identity_allows(subject).await;
        own_tables::own_tables_commit_with_the_data(subject).await;
    }
}

/// Provisioning twice has the effect of once; another identity is refused at that placement.
pub async fn provisioning_is_repeatable_and_exclusive(subject: &EngineUnderTest) {
    let one = subject.new_tenant();
    let template = expect_ok(subject.engine.prepare_template(&subject.server, &base_set()).await);
    assert_eq!(template.schema_version, Some(2));
    assert_eq!(template.digest, base_set().set_digest());
    for _ in 0..2 {
        expect_ok(subject.engine.provision_database(&one.at, &template, &one.identity).await);
    }
    let seen = expect_ok(
        subject.engine.inspect_database(&one.at, Some(&one.expected_identity()), InspectionDepth::Full).await,
    );
    assert_eq!((&seen.identity, seen.schema_version()), (&one.identity, Some(2)));
    assert!(seen.problems.is_empty() && seen.size_bytes > 0 && seen.applied.iter().all(|row| row.success));
    let other = Identity { tenant: TenantId::generate(), ..one.identity.clone() };
    expect_refusal(subject.engine.provision_database(&one.at, &template, &other).await, ErrorKind::AlreadyExists);
    subject.is_still(&one).await;
}

/// Migrating twice has the effect of once; a migration with a target stops there.
pub async fn migrating_is_repeatable_and_stops_at_the_target(subject: &EngineUnderTest) {
    let one = subject.provision_tenant(&base_set()).await;
    let set = base_and(&["alter table t1 add column b integer;", "create index i on t1(b);"]);
    let to_three = expect_ok(subject.engine.migrate_database(&one.at, &one.expected_identity(), &set, Some(3)).await);
    assert_eq!((to_three.from_version, to_three.to_version, to_three.applied), (Some(2), Some(3), vec![3]));
    let rest = expect_ok(subject.engine.migrate_database(&one.at, &one.expected_identity(), &set, None).await);
    assert_eq!((rest.from_version, rest.to_version, rest.applied), (Some(3), Some(4), vec![4]));
    let again = expect_ok(subject.engine.migrate_database(&one.at, &one.expected_identity(), &set, None).await);
    assert_eq!((again.from_version, again.to_version, again.applied), (Some(4), Some(4), vec![]));
    expect_refusal(
        subject.engine.migrate_database(&one.at, &one.expected_identity(), &set, Some(77)).await,
        ErrorKind::MigrationInvalid,
    );
}

/// A listing contains a database with its tenant while the database exists, and not afterwards.
pub async fn a_listing_names_what_is_there(subject: &EngineUnderTest) {
    let one = subject.provision_tenant(&base_set()).await;
    let found = subject.find_listed(&one.at).await.expect("a database that is there is listed");
    assert_eq!((found.tenant, found.what), (Some(one.identity.tenant), ListedObjectKind::Database));
    assert!(!found.physical.is_empty());
    expect_ok(subject.engine.drop_database(&one.at, Some(&one.expected_identity())).await);
    assert_eq!(subject.find_listed(&one.at).await, None);
}

/// An object in quarantine is no longer listed; an object with another identity than was found stays in its place.
pub async fn putting_aside_leaves_the_others(subject: &EngineUnderTest) {
    let (one, other) = (subject.provision_tenant(&base_set()).await, subject.provision_tenant(&base_set()).await);
    let found = subject.find_listed(&one.at).await.expect("it is there");
    let engine = &subject.engine;
    let wrong = engine.quarantine_object(&subject.server, &found, Some(&other.expected_identity()), "20260101").await;
    expect_refusal(wrong, ErrorKind::WrongTenant);
    subject.is_still(&one).await;
    let aside =
        expect_ok(engine.quarantine_object(&subject.server, &found, Some(&one.expected_identity()), "20260101").await);
    assert!(aside.contains("quarantine") && aside.contains("20260101"), "{aside}");
    assert_eq!(subject.find_listed(&one.at).await, None);
    let again = engine.quarantine_object(&subject.server, &found, Some(&one.expected_identity()), "20260101").await;
    expect_refusal(again, ErrorKind::Missing);
    subject.is_still(&other).await;
}

/// Versions before a failing version stay applied, and the failing version leaves nothing behind.
pub async fn a_failing_version_is_rolled_back_alone(subject: &EngineUnderTest) {
    let one = subject.provision_tenant(&base_set()).await;
    let bad = base_and(&["create table t3(a integer);", "create table t4(a integer); insert into nowhere values(1);"]);
    let error = expect_refusal(
        subject.engine.migrate_database(&one.at, &one.expected_identity(), &bad, None).await,
        ErrorKind::MigrationFailed,
    );
    assert!(error.contains("version 4"), "{error}");
    let repaired = base_and(&["create table t3(a integer);", "create table t4(a integer);"]);
    let done = expect_ok(subject.engine.migrate_database(&one.at, &one.expected_identity(), &repaired, None).await);
    assert_eq!((done.from_version, done.applied), (Some(3), vec![4]));
}

/// Ahead, changed and missing are three different errors, and nothing is applied on any of them.
pub async fn the_ledger_must_agree_with_the_set(subject: &EngineUnderTest) {
    let one = subject.provision_tenant(&base_and(&["create table t3(a integer);"])).await;
    let files = |names: &[(&str, &str)]| {
        expect_ok(MigrationSet::from_files(&names.iter().map(migration_file).collect::<Vec<_>>()))
    };
    for (set, kind) in [
        (base_set(), ErrorKind::MigrationAhead),
        (base_and(&["create table other(a integer);", "create table t4(a integer);"]), ErrorKind::MigrationChanged),
        (files(&[BASE[0], BASE[1], ("4_v.sql", "create table t4(a integer);")]), ErrorKind::MigrationMissing),
    ] {
        expect_refusal(subject.engine.migrate_database(&one.at, &one.expected_identity(), &set, None).await, kind);
    }
    let seen = expect_ok(subject.engine.inspect_database(&one.at, None, InspectionDepth::Ledger).await);
    assert_eq!(seen.schema_version(), Some(3));
}

/// Stamping twice has the effect of once, and afterwards the caller's earlier identity is stale.
pub async fn a_stamp_is_repeatable(subject: &EngineUnderTest) {
    let one = subject.provision_tenant(&base_set()).await;
    let next = one.at_generation(2, IdentityState::Active);
    for _ in 0..2 {
        expect_ok(subject.engine.stamp_identity(&one.at, &one.expected_identity(), &next.identity).await);
    }
    subject.is_still(&next).await;
    let third = one.at_generation(3, IdentityState::Active);
    expect_refusal(
        subject.engine.stamp_identity(&one.at, &one.expected_identity(), &third.identity).await,
        ErrorKind::Fenced,
    );
    subject.is_still(&next).await;
}

/// Freezing twice has the effect of once. A frozen database can be inspected and copied. A later stamp makes it active
/// again.
pub async fn a_frozen_database_is_still_snapshotted_and_thaws(subject: &EngineUnderTest) {
    let one = subject.provision_tenant(&base_set()).await;
    let frozen = one.at_generation(2, IdentityState::Frozen);
    for _ in 0..2 {
        expect_ok(subject.engine.freeze_database(&one.at, &one.expected_identity(), &frozen.identity).await);
    }
    subject.is_still(&frozen).await;
    let not_frozen = one.at_generation(2, IdentityState::Active);
    expect_refusal(
        subject.engine.freeze_database(&one.at, &frozen.expected_identity(), &not_frozen.identity).await,
        ErrorKind::Internal,
    );
    expect_ok(subject.engine.take_snapshot(&frozen.at, &frozen.expected_identity()).await);
    let thawed = one.at_generation(3, IdentityState::Active);
    expect_ok(subject.engine.stamp_identity(&one.at, &frozen.expected_identity(), &thawed.identity).await);
    let writes = base_and(&["insert into t1 values(1); update t1 set a = 2; delete from t1;"]);
    expect_ok(subject.engine.migrate_database(&one.at, &thawed.expected_identity(), &writes, None).await);
}

/// Equal content has an equal hash, different content a different hash, and the snapshot names its tenant.
pub async fn a_snapshot_names_its_content(subject: &EngineUnderTest) {
    let one = subject.provision_tenant(&base_set()).await;
    let first = expect_ok(subject.engine.take_snapshot(&one.at, &one.expected_identity()).await);
    assert_eq!((&first.info.identity, first.info.schema_version), (&one.identity, Some(2)));
    assert_eq!(first.info.size_bytes, bytes_of(&first.image).len() as u64);
    let second = expect_ok(subject.engine.take_snapshot(&one.at, &one.expected_identity()).await);
    assert_eq!(first.info.content_hash, second.info.content_hash);
    let changed = base_and(&["insert into t1 values(1);"]);
    expect_ok(subject.engine.migrate_database(&one.at, &one.expected_identity(), &changed, None).await);
    let third = expect_ok(subject.engine.take_snapshot(&one.at, &one.expected_identity()).await);
    assert_ne!(first.info.content_hash, third.info.content_hash);
}

/// A copy has an equal fingerprint, wherever it is stored and whatever its identity is. One changed row or a changed
/// schema makes a difference.
pub async fn a_copy_has_the_same_fingerprint(subject: &EngineUnderTest) {
    let one = subject.provision_tenant(&base_and(&["insert into t1 values(1); insert into t1 values(2);"])).await;
    let taken = expect_ok(subject.engine.take_snapshot(&one.at, &one.expected_identity()).await);
    let copy = subject.place_tenant(one.at_generation(3, IdentityState::Building).identity);
    expect_ok(subject.engine.restore_database(&copy.at, taken.image, one.identity.tenant, &copy.identity).await);
    let here = expect_ok(subject.engine.compute_fingerprint(&one.at, &one.expected_identity()).await);
    let there = expect_ok(subject.engine.compute_fingerprint(&copy.at, &copy.expected_identity()).await);
    assert_eq!(here.first_difference(&there), None);
    assert!(here.tables.iter().any(|(name, table)| name.ends_with("t1") && table.rows == 2), "{here:?}");
    let rows = base_and(&["insert into t1 values(1); insert into t1 values(2);", "update t1 set a = 3 where a = 2;"]);
    expect_ok(subject.engine.migrate_database(&copy.at, &copy.expected_identity(), &rows, None).await);
    let there = expect_ok(subject.engine.compute_fingerprint(&copy.at, &copy.expected_identity()).await);
    let differs = |name: &str| here.tables.iter().any(|(n, sum)| n.ends_with(name) && there.tables.get(n) != Some(sum));
    assert!(differs("t1") && !differs("t2"), "{:?}", here.first_difference(&there));
    let frozen = one.at_generation(2, IdentityState::Frozen);
    expect_ok(subject.engine.freeze_database(&one.at, &one.expected_identity(), &frozen.identity).await);
    let fenced = expect_ok(subject.engine.compute_fingerprint(&frozen.at, &frozen.expected_identity()).await);
    assert_eq!(here.first_difference(&fenced), None, "the fence does not count");
}

/// Restoring twice has the effect of once. The new placement carries the new identity; the old database is unchanged. A
/// clone changes the tenant. A copy of a frozen database is not frozen.
pub async fn a_restore_fills_a_new_placement(subject: &EngineUnderTest) {
    let one = subject.provision_tenant(&base_set()).await;
    let frozen = one.at_generation(2, IdentityState::Frozen);
    expect_ok(subject.engine.freeze_database(&one.at, &one.expected_identity(), &frozen.identity).await);
    let taken = expect_ok(subject.engine.take_snapshot(&one.at, &frozen.expected_identity()).await);
    let image = bytes_of(&taken.image);
    let own = subject.place_tenant(one.at_generation(3, IdentityState::Building).identity);
    let clone = subject.place_tenant(Identity { state: IdentityState::Building, ..subject.new_tenant().identity });
    for to in [&own, &clone] {
        for _ in 0..2 {
            let image = SnapshotImage::Memory(image.clone());
            let done =
                expect_ok(subject.engine.restore_database(&to.at, image, one.identity.tenant, &to.identity).await);
            assert_eq!((done.schema_version, done.foreign_key_violations), (Some(2), 0));
            assert!(done.size_bytes > 0);
            subject.is_still(to).await;
        }
        let active = to.in_state(IdentityState::Active);
        expect_ok(subject.engine.stamp_identity(&to.at, &to.expected_identity(), &active.identity).await);
        let writes = base_and(&["insert into t1 values(1);"]);
        expect_ok(subject.engine.migrate_database(&to.at, &active.expected_identity(), &writes, None).await);
    }
    subject.is_still(&frozen).await;
}

/// The image of another tenant, a truncated image and garbage are refused, and nothing is left behind.
pub async fn a_bad_image_leaves_nothing(subject: &EngineUnderTest) {
    let one = subject.provision_tenant(&base_set()).await;
    let image = bytes_of(&expect_ok(subject.engine.take_snapshot(&one.at, &one.expected_identity()).await).image);
    let cases = [
        (image.clone(), TenantId::generate(), ErrorKind::WrongTenant),
        (image.slice(..image.len() / 2), one.identity.tenant, ErrorKind::Corrupt),
        (Bytes::from_static(b"not a database"), one.identity.tenant, ErrorKind::Corrupt),
        (Bytes::new(), one.identity.tenant, ErrorKind::Corrupt),
    ];
    for (image, source, kind) in cases {
        let to = subject.new_tenant();
        expect_refusal(
            subject.engine.restore_database(&to.at, SnapshotImage::Memory(image), source, &to.identity).await,
            kind,
        );
        expect_refusal(
            subject.engine.inspect_database(&to.at, None, InspectionDepth::Ledger).await,
            ErrorKind::Missing,
        );
    }
    let other = subject.provision_tenant(&base_set()).await;
    let error = subject
        .engine
        .restore_database(&other.at, SnapshotImage::Memory(image), one.identity.tenant, &one.identity)
        .await;
    expect_refusal(error, ErrorKind::AlreadyExists);
    subject.is_still(&other).await;
}

/// Dropping twice has the effect of once, with an expected identity and without.
pub async fn dropping_is_repeatable(subject: &EngineUnderTest) {
    for checked in [true, false] {
        let one = subject.provision_tenant(&base_set()).await;
        let expected = checked.then(|| one.expected_identity());
        for _ in 0..2 {
            expect_ok(subject.engine.drop_database(&one.at, expected.as_ref()).await);
        }
        expect_refusal(
            subject.engine.inspect_database(&one.at, None, InspectionDepth::Ledger).await,
            ErrorKind::Missing,
        );
    }
}

/// No operation makes a database where there is none.
pub async fn a_missing_database_is_missing_to_every_verb(subject: &EngineUnderTest) {
    let one = subject.new_tenant();
    for (verb, outcome) in subject.every_verb(&one, &one.expected_identity()).await {
        match verb {
            "drop_database" => expect_ok(outcome),
            _ => drop(expect_refusal(outcome, ErrorKind::Missing)),
        }
    }
    expect_refusal(subject.engine.inspect_database(&one.at, None, InspectionDepth::Ledger).await, ErrorKind::Missing);
}

/// Every operation refuses another tenant, fleet, generation or state, and changes nothing.
pub async fn the_wrong_caller_is_refused_by_every_verb(subject: &EngineUnderTest) {
    let one = subject.provision_tenant(&base_set()).await;
    let right = one.expected_identity();
    let wrong = [
        (ExpectedIdentity { tenant: TenantId::generate(), ..right.clone() }, ErrorKind::WrongTenant),
        (ExpectedIdentity { fleet: FleetId::generate(), ..right.clone() }, ErrorKind::WrongTenant),
        (ExpectedIdentity { generation: Generation(2), ..right.clone() }, ErrorKind::Fenced),
        (ExpectedIdentity { states: vec![IdentityState::Frozen], ..right.clone() }, ErrorKind::Fenced),
        (ExpectedIdentity { states: vec![], ..right.clone() }, ErrorKind::Fenced),
    ];
    for (expected, kind) in wrong {
        for (_, outcome) in subject.every_verb(&one, &expected).await {
            expect_refusal(outcome, kind);
            subject.is_still(&one).await;
        }
    }
    let seen = expect_ok(subject.engine.inspect_database(&one.at, Some(&right), InspectionDepth::Full).await);
    assert_eq!(seen.schema_version(), Some(2));
}

/// An active database is read and written, a frozen one is only read, and a pool detects when its database is no longer
/// current.
pub async fn a_pool_serves_what_the_identity_allows(subject: &EngineUnderTest) {
    let one = subject.provision_tenant(&base_set()).await;
    let states = vec![IdentityState::Active, IdentityState::Frozen];
    let pool = expect_ok(
        subject
            .engine
            .open_pool(&one.at, &ExpectedIdentity { states: states.clone(), ..one.expected_identity() })
            .await,
    );
    let run = |access, sql: &str| {
        let (mut session, sql) = (pool.new_session(access, SessionLimits::default()), sql.to_owned());
        async move { session.run_statements(vec![SqlStatement { sql, params: vec![] }], AfterStatements::Commit).await }
    };
    expect_ok(run(AccessMode::Write, "insert into t1 values(41)").await);
    assert_eq!(expect_ok(run(AccessMode::Read, "select a + 1 from t1").await)[0].rows, [[SqlValue::Integer(42)]]);
    let frozen = one.in_state(IdentityState::Frozen);
    expect_ok(subject.engine.freeze_database(&one.at, &one.expected_identity(), &frozen.identity).await);
    assert!(run(AccessMode::Write, "insert into t1 values(1)").await.is_err());
    assert_eq!(expect_ok(run(AccessMode::Read, "select count(*) from t1").await)[0].rows, [[SqlValue::Integer(1)]]);
    let next = one.at_generation(2, IdentityState::Active);
    expect_ok(subject.engine.stamp_identity(&one.at, &frozen.expected_identity(), &next.identity).await);
    expect_refusal(run(AccessMode::Read, "select 1").await, ErrorKind::Fenced);
    expect_refusal(run(AccessMode::Write, "delete from t1").await, ErrorKind::Fenced);
    pool.close().await;
    assert_eq!(pool.connection_count(), 0);
}

/// A tenant with its database on the engine under test.
#[derive(Debug, Clone)]
struct ConformanceTenant {
    at: Placement,
    identity: Identity,
}

impl ConformanceTenant {
    fn expected_identity(&self) -> ExpectedIdentity {
        let Identity { tenant, fleet, generation, state, .. } = self.identity;
        ExpectedIdentity { tenant, fleet, generation, states: vec![state] }
    }

    fn at_generation(&self, generation: i64, state: IdentityState) -> Self {
        let identity = Identity { generation: Generation(generation), state, ..self.identity.clone() };
        Self { identity, ..self.clone() }
    }

    fn in_state(&self, state: IdentityState) -> Self {
        self.at_generation(self.identity.generation.0, state)
    }
}

impl EngineUnderTest {
    /// The listing's entry for this placement.
    async fn find_listed(&self, at: &Placement) -> Option<ListedObject> {
        let listing = expect_ok(self.engine.list_databases(&self.server, None).await);
        let found = listing.found.into_iter().find(|found| found.reference.as_deref() == Some(at.catalog_reference()));
        if let Some(found) = &found {
            // A listing for one tenant has that tenant's objects, and no others.
            let own = expect_ok(self.engine.list_databases(&self.server, found.tenant).await).found;
            assert!(own.contains(found), "{found:?} is not among {own:?}");
            assert!(own.iter().all(|one| one.tenant == found.tenant), "{own:?}");
            let nobodys = expect_ok(self.engine.list_databases(&self.server, Some(TenantId::generate())).await);
            assert_eq!(nobodys.found, []);
        }
        found
    }

    /// A tenant that does not exist yet.
    fn new_tenant(&self) -> ConformanceTenant {
        self.place_tenant(Identity {
            tenant: TenantId::generate(),
            fleet: FleetId::generate(),
            generation: Generation::FIRST,
            state: IdentityState::Active,
            op: None,
            stamped_at: 1,
        })
    }

    fn place_tenant(&self, identity: Identity) -> ConformanceTenant {
        ConformanceTenant { at: self.server.fresh_placement(identity.tenant, identity.generation, 1), identity }
    }

    async fn provision_tenant(&self, set: &MigrationSet) -> ConformanceTenant {
        let tenant = self.new_tenant();
        let template = expect_ok(self.engine.prepare_template(&self.server, set).await);
        expect_ok(self.engine.provision_database(&tenant.at, &template, &tenant.identity).await);
        tenant
    }

    async fn is_still(&self, tenant: &ConformanceTenant) {
        let seen = expect_ok(
            self.engine.inspect_database(&tenant.at, Some(&tenant.expected_identity()), InspectionDepth::Ledger).await,
        );
        assert_eq!(seen.identity, tenant.identity);
    }

    /// The result of every operation that opens an existing database, for a caller with this expected identity.
    async fn every_verb(
        &self,
        tenant: &ConformanceTenant,
        expected: &ExpectedIdentity,
    ) -> Vec<(&'static str, Result<()>)> {
        let (engine, at) = (&self.engine, &tenant.at);
        let next = tenant.at_generation(9, IdentityState::Active).identity;
        let frozen = tenant.at_generation(9, IdentityState::Frozen).identity;
        let set = base_and(&["create table t3(a integer);"]);
        let mut answers = vec![
            ("migrate", engine.migrate_database(at, expected, &set, None).await.map(drop)),
            ("snapshot", engine.take_snapshot(at, expected).await.map(drop)),
            ("stamp", engine.stamp_identity(at, expected, &next).await),
            ("freeze", engine.freeze_database(at, expected, &frozen).await),
            ("drop_database", engine.drop_database(at, Some(expected)).await),
            ("inspect", engine.inspect_database(at, Some(expected), InspectionDepth::Full).await.map(drop)),
        ];
        if self.serving == PoolSupport::Pools {
            answers.push(("connect", connect_and_read(engine, at, expected).await));
        }
        answers
    }
}

/// Connects and reads once: an engine may check the identity as late as that.
async fn connect_and_read(engine: &Arc<dyn Engine>, at: &Placement, expected: &ExpectedIdentity) -> Result<()> {
    let pool = engine.open_pool(at, expected).await?;
    let select = SqlStatement { sql: "select 1".to_owned(), params: vec![] };
    let answer = pool
        .new_session(AccessMode::Read, SessionLimits::default())
        .run_statements(vec![select], AfterStatements::Commit)
        .await;
    pool.close().await;
    answer.map(drop)
}
