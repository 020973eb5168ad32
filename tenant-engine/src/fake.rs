//! An engine in memory, for tests of the code that uses engines: no files, no threads, and faults on request.
//!
//! Its databases are real SQLite databases in memory. They run through the code of the real engine wherever that code
//! does not concern files. So migrations, ledgers and images behave as on the real engine. It does not serve requests:
//! [`Engine::open_pool`] always fails.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::engine::{DatabaseTemplate, Engine, MigrationOutcome};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::DatabaseFingerprint;
use crate::identity::{ExpectedIdentity, Identity};
use crate::inspection::{Inspection, InspectionDepth};
use crate::listing::{ListedObject, ListedObjectKind, ServerListing};
use crate::migration::MigrationSet;
use crate::placement::{EngineKind, Placement};
use crate::pool::Pool;
use crate::server::{DatabaseServer, ServerSurvey};
use crate::snapshot::{RestoreOutcome, Snapshot, SnapshotImage};
use crate::sqlite::memory::MemoryDatabase;
use crate::{TenantId, sqlite};

/// The operations that a fault can be injected into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineVerb {
    /// [`Engine::survey_server`]
    Survey,
    /// [`Engine::prepare_template`]
    Template,
    /// [`Engine::provision_database`]
    Provision,
    /// [`Engine::migrate_database`]
    Migrate,
    /// [`Engine::take_snapshot`]
    Snapshot,
    /// [`Engine::restore_database`]
    Restore,
    /// [`Engine::stamp_identity`]
    Stamp,
    /// [`Engine::freeze_database`]
    Freeze,
    /// [`Engine::drop_database`]
    Drop,
    /// [`Engine::inspect_database`]
    Inspect,
    /// [`Engine::list_databases`]
    Databases,
    /// [`Engine::quarantine_object`]
    Quarantine,
}

/// When the fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultMoment {
    /// Before the work: nothing was done.
    Before,
    /// After the work, but the caller gets an error: this is like a crash before the answer.
    After,
}

/// The calls that a fault can hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultTarget {
    /// The next call of any caller.
    Anyone,
    /// The next call for a placement of this tenant.
    Tenant(TenantId),
}

/// One failure, used up by the first call that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InjectedFault {
    /// The operation that fails.
    pub verb: EngineVerb,
    /// The calls that it matches.
    pub target: FaultTarget,
    /// Before or after the work of the operation.
    pub moment: FaultMoment,
    /// The kind of error that the caller gets.
    pub kind: ErrorKind,
}

/// The engine in memory. Clones share the databases and the faults.
#[derive(Debug, Clone, Default)]
pub struct FakeEngine {
    state: Arc<Mutex<FakeEngineState>>,
}

#[derive(Debug, Default)]
struct FakeEngineState {
    databases: HashMap<Placement, MemoryDatabase>,
    faults: VecDeque<InjectedFault>,
    calls: HashMap<EngineVerb, usize>,
}

impl FakeEngine {
    /// An engine without databases.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault; it waits for a matching call.
    pub fn inject_fault(&self, fault: InjectedFault) {
        self.lock_state().faults.push_back(fault);
    }

    /// Number of calls of an operation, including failed ones.
    #[must_use]
    pub fn call_count(&self, verb: EngineVerb) -> usize {
        self.lock_state().calls.get(&verb).copied().unwrap_or(0)
    }

    /// Placements of all databases, in no particular order.
    #[must_use]
    pub fn database_placements(&self) -> Vec<Placement> {
        self.lock_state().databases.keys().cloned().collect()
    }

    fn lock_state(&self) -> MutexGuard<'_, FakeEngineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the call, applies a matching fault, and does the work.
    fn count_and_run<T>(
        &self,
        verb: EngineVerb,
        at: Option<&Placement>,
        work: impl FnOnce(&mut HashMap<Placement, MemoryDatabase>) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.lock_state();
        *state.calls.entry(verb).or_default() += 1;
        let fits = |fault: &InjectedFault| fault.verb == verb && fault.target.fits_placement(at);
        let fault = state.faults.iter().position(fits).and_then(|index| state.faults.remove(index));
        match fault {
            None => work(&mut state.databases),
            Some(InjectedFault { moment: FaultMoment::Before, kind, .. }) => Err(injected_error(verb, kind)),
            Some(InjectedFault { moment: FaultMoment::After, kind, .. }) => {
                work(&mut state.databases)?;
                Err(injected_error(verb, kind))
            }
        }
    }

    /// Runs a call on a database that must exist.
    fn with_database<T>(
        &self,
        verb: EngineVerb,
        at: &Placement,
        work: impl FnOnce(&mut MemoryDatabase) -> Result<T>,
    ) -> Result<T> {
        self.count_and_run(verb, Some(at), |databases| work(databases.get_mut(at).ok_or_else(missing_database)?))
    }
}

impl FaultTarget {
    /// A placement's reference begins with the tenant's UUID.
    fn fits_placement(self, at: Option<&Placement>) -> bool {
        match self {
            Self::Anyone => true,
            Self::Tenant(tenant) => at.is_some_and(|at| at.catalog_reference().starts_with(&tenant.uuid().to_string())),
        }
    }
}

fn injected_error(verb: EngineVerb, kind: ErrorKind) -> Error {
    Error::new(kind, format!("an injected fault struck {verb:?}"))
}

fn missing_database() -> Error {
    Error::new(ErrorKind::Missing, "there is no database at its placement")
}

fn placement_taken(at: &Placement) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("another database is already at {at}"))
}

fn listed_object(at: &Placement) -> ListedObject {
    let name = at.catalog_reference().to_owned();
    ListedObject {
        reference: Some(name.clone()),
        tenant: name
            .split_once('/')
            .and_then(|(tenant, _)| uuid::Uuid::try_parse(tenant).ok())
            .map(TenantId::from_uuid),
        what: ListedObjectKind::Database,
        physical: name.clone(),
        name,
        size_bytes: None,
        since: None,
    }
}

#[async_trait]
impl Engine for FakeEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Sqlite
    }

    async fn survey_server(&self, _server: &DatabaseServer) -> Result<ServerSurvey> {
        self.count_and_run(EngineVerb::Survey, None, |_| {
            Ok(ServerSurvey { version: "in memory".to_owned(), ..ServerSurvey::default() })
        })
    }

    async fn prepare_template(&self, _on: &DatabaseServer, set: &MigrationSet) -> Result<Arc<DatabaseTemplate>> {
        self.count_and_run(EngineVerb::Template, None, |_| sqlite::memory::build_template(set).map(Arc::new))
    }

    async fn provision_database(&self, at: &Placement, template: &DatabaseTemplate, identity: &Identity) -> Result<()> {
        self.count_and_run(EngineVerb::Provision, Some(at), |databases| match databases.get(at) {
            Some(there) if there.read_identity()?.same_as(identity) => Ok(()),
            Some(_) => Err(placement_taken(at)),
            None => {
                MemoryDatabase::from_template(template, identity).map(|new| drop(databases.insert(at.clone(), new)))
            }
        })
    }

    async fn open_pool(&self, _at: &Placement, _expected: &ExpectedIdentity) -> Result<Pool> {
        Err(Error::new(ErrorKind::Internal, "the engine in memory serves no requests"))
    }

    async fn migrate_database(
        &self,
        at: &Placement,
        expected: &ExpectedIdentity,
        set: &MigrationSet,
        target: Option<i64>,
    ) -> Result<MigrationOutcome> {
        self.with_database(EngineVerb::Migrate, at, |database| database.migrate_database(expected, set, target))
    }

    async fn take_snapshot(&self, at: &Placement, expected: &ExpectedIdentity) -> Result<Snapshot> {
        self.with_database(EngineVerb::Snapshot, at, |database| database.take_snapshot(expected))
    }

    async fn restore_database(
        &self,
        at: &Placement,
        image: SnapshotImage,
        source: TenantId,
        identity: &Identity,
    ) -> Result<RestoreOutcome> {
        self.count_and_run(EngineVerb::Restore, Some(at), |databases| match databases.get(at) {
            Some(there) if there.read_identity()?.same_as(identity) => there.restore_outcome(),
            Some(_) => Err(placement_taken(at)),
            None => {
                let new = MemoryDatabase::from_image(&image, source, identity)?;
                let restored = new.restore_outcome()?;
                databases.insert(at.clone(), new);
                Ok(restored)
            }
        })
    }

    async fn stamp_identity(&self, at: &Placement, expected: &ExpectedIdentity, identity: &Identity) -> Result<()> {
        self.with_database(EngineVerb::Stamp, at, |database| database.stamp_identity(expected, identity))
    }

    async fn freeze_database(&self, at: &Placement, expected: &ExpectedIdentity, identity: &Identity) -> Result<()> {
        self.with_database(EngineVerb::Freeze, at, |database| database.freeze_database(expected, identity))
    }

    async fn drop_database(&self, at: &Placement, expected: Option<&ExpectedIdentity>) -> Result<()> {
        self.count_and_run(EngineVerb::Drop, Some(at), |databases| {
            if let Some(there) = databases.get(at) {
                expected.map_or(Ok(()), |expected| expected.check_identity(&there.read_identity()?))?;
            }
            databases.remove(at);
            Ok(())
        })
    }

    async fn list_databases(&self, on: &DatabaseServer, of: Option<TenantId>) -> Result<ServerListing> {
        self.count_and_run(EngineVerb::Databases, None, |databases| {
            let mut found: Vec<ListedObject> = databases.keys().map(listed_object).collect();
            found.retain(|found| on.parse_placement(&found.name).is_ok() && (of.is_none() || found.tenant == of));
            found.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(ServerListing { place: "memory".to_owned(), found })
        })
    }

    async fn quarantine_object(
        &self,
        on: &DatabaseServer,
        found: &ListedObject,
        expected: Option<&ExpectedIdentity>,
        label: &str,
    ) -> Result<String> {
        let at = on.parse_placement(&found.name).map_err(|_| missing_database())?;
        self.count_and_run(EngineVerb::Quarantine, Some(&at), |databases| {
            let there = databases.get(&at).ok_or_else(missing_database)?;
            expected.map_or(Ok(()), |expected| expected.check_identity(&there.read_identity()?))?;
            databases.remove(&at);
            Ok(format!("quarantine/{label}/{}", found.name))
        })
    }

    async fn inspect_database(
        &self,
        at: &Placement,
        expected: Option<&ExpectedIdentity>,
        depth: InspectionDepth,
    ) -> Result<Inspection> {
        self.with_database(EngineVerb::Inspect, at, |database| database.inspect_database(expected, depth))
    }

    async fn compute_fingerprint(&self, at: &Placement, expected: &ExpectedIdentity) -> Result<DatabaseFingerprint> {
        self.with_database(EngineVerb::Inspect, at, |database| database.compute_fingerprint(expected))
    }
}
