//! An engine in memory for tests of what is built on engines: no files, no threads, and faults on request.
//!
//! Its databases are real SQLite databases in memory, run through the same code as the real engine's where that does
//! not concern files, so migrations, ledgers and images mean what they mean everywhere. It does not serve requests:
//! [`Engine::connect`] always fails.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::engine::{Engine, Migrated, Template};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::Fingerprint;
use crate::found::{Found, FoundKind, Listing};
use crate::identity::{Expected, Identity};
use crate::inspection::{Depth, Inspection};
use crate::migration::MigrationSet;
use crate::placement::{EngineKind, Placement};
use crate::pool::Pool;
use crate::server::{Server, Survey};
use crate::snapshot::{Image, Restored, Snapshot};
use crate::sqlite::memory::Memory;
use crate::{TenantId, sqlite};

/// The verbs a fault can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// [`Engine::survey`]
    Survey,
    /// [`Engine::template`]
    Template,
    /// [`Engine::provision`]
    Provision,
    /// [`Engine::migrate`]
    Migrate,
    /// [`Engine::snapshot`]
    Snapshot,
    /// [`Engine::restore`]
    Restore,
    /// [`Engine::stamp`]
    Stamp,
    /// [`Engine::freeze`]
    Freeze,
    /// [`Engine::drop_database`]
    Drop,
    /// [`Engine::inspect`]
    Inspect,
    /// [`Engine::databases`]
    Databases,
    /// [`Engine::quarantine`]
    Quarantine,
}

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing was done.
    Before,
    /// Everything was done, and the caller was not told: what a crash before the answer looks like.
    After,
}

/// Whom a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The next caller.
    Anyone,
    /// The next caller for this tenant's placements.
    Tenant(TenantId),
}

/// One failure, used up by the first call it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Which verb.
    pub verb: Verb,
    /// Of whom.
    pub target: Target,
    /// Before or after the work.
    pub moment: Moment,
    /// What the caller sees.
    pub kind: ErrorKind,
}

/// The engine. Clones share the databases and the faults.
#[derive(Debug, Clone, Default)]
pub struct FakeEngine {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    databases: HashMap<Placement, Memory>,
    faults: VecDeque<Fault>,
    calls: HashMap<Verb, usize>,
}

impl FakeEngine {
    /// An engine without databases.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault to those waiting for their call.
    pub fn inject(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    /// How often a verb was called, failures included.
    #[must_use]
    pub fn calls(&self, verb: Verb) -> usize {
        self.lock().calls.get(&verb).copied().unwrap_or(0)
    }

    /// Where databases are, in no order.
    #[must_use]
    pub fn placements(&self) -> Vec<Placement> {
        self.lock().databases.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the call, lets a waiting fault strike, and does the work.
    fn call<T>(
        &self,
        verb: Verb,
        at: Option<&Placement>,
        work: impl FnOnce(&mut HashMap<Placement, Memory>) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.lock();
        *state.calls.entry(verb).or_default() += 1;
        let fits = |fault: &Fault| fault.verb == verb && fault.target.fits(at);
        let fault = state.faults.iter().position(fits).and_then(|index| state.faults.remove(index));
        match fault {
            None => work(&mut state.databases),
            Some(Fault { moment: Moment::Before, kind, .. }) => Err(struck(verb, kind)),
            Some(Fault { moment: Moment::After, kind, .. }) => {
                work(&mut state.databases)?;
                Err(struck(verb, kind))
            }
        }
    }

    /// A call to a database that must be there.
    fn open<T>(&self, verb: Verb, at: &Placement, work: impl FnOnce(&mut Memory) -> Result<T>) -> Result<T> {
        self.call(verb, Some(at), |databases| work(databases.get_mut(at).ok_or_else(missing)?))
    }
}

impl Target {
    /// A placement's reference begins with the tenant's UUID.
    fn fits(self, at: Option<&Placement>) -> bool {
        match self {
            Self::Anyone => true,
            Self::Tenant(tenant) => at.is_some_and(|at| at.reference().starts_with(&tenant.uuid().to_string())),
        }
    }
}

fn struck(verb: Verb, kind: ErrorKind) -> Error {
    Error::new(kind, format!("an injected fault struck {verb:?}"))
}

fn missing() -> Error {
    Error::new(ErrorKind::Missing, "there is no database at its placement")
}

fn taken(at: &Placement) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("another database is already at {at}"))
}

fn found(at: &Placement) -> Found {
    let name = at.reference().to_owned();
    Found {
        reference: Some(name.clone()),
        tenant: name
            .split_once('/')
            .and_then(|(tenant, _)| uuid::Uuid::try_parse(tenant).ok())
            .map(TenantId::from_uuid),
        what: FoundKind::Database,
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

    async fn survey(&self, _server: &Server) -> Result<Survey> {
        self.call(Verb::Survey, None, |_| Ok(Survey { version: "in memory".to_owned(), ..Survey::default() }))
    }

    async fn template(&self, _on: &Server, set: &MigrationSet) -> Result<Arc<Template>> {
        self.call(Verb::Template, None, |_| sqlite::memory::template(set).map(Arc::new))
    }

    async fn provision(&self, at: &Placement, template: &Template, identity: &Identity) -> Result<()> {
        self.call(Verb::Provision, Some(at), |databases| match databases.get(at) {
            Some(there) if there.identity()?.same_as(identity) => Ok(()),
            Some(_) => Err(taken(at)),
            None => Memory::from_template(template, identity).map(|new| drop(databases.insert(at.clone(), new))),
        })
    }

    async fn connect(&self, _at: &Placement, _expected: &Expected) -> Result<Pool> {
        Err(Error::new(ErrorKind::Internal, "the engine in memory serves no requests"))
    }

    async fn migrate(
        &self,
        at: &Placement,
        expected: &Expected,
        set: &MigrationSet,
        target: Option<i64>,
    ) -> Result<Migrated> {
        self.open(Verb::Migrate, at, |database| database.migrate(expected, set, target))
    }

    async fn snapshot(&self, at: &Placement, expected: &Expected) -> Result<Snapshot> {
        self.open(Verb::Snapshot, at, |database| database.snapshot(expected))
    }

    async fn restore(&self, at: &Placement, image: Image, source: TenantId, identity: &Identity) -> Result<Restored> {
        self.call(Verb::Restore, Some(at), |databases| match databases.get(at) {
            Some(there) if there.identity()?.same_as(identity) => there.restored(),
            Some(_) => Err(taken(at)),
            None => {
                let new = Memory::from_image(&image, source, identity)?;
                let restored = new.restored()?;
                databases.insert(at.clone(), new);
                Ok(restored)
            }
        })
    }

    async fn stamp(&self, at: &Placement, expected: &Expected, identity: &Identity) -> Result<()> {
        self.open(Verb::Stamp, at, |database| database.stamp(expected, identity))
    }

    async fn freeze(&self, at: &Placement, expected: &Expected, identity: &Identity) -> Result<()> {
        self.open(Verb::Freeze, at, |database| database.freeze(expected, identity))
    }

    async fn drop_database(&self, at: &Placement, expected: Option<&Expected>) -> Result<()> {
        self.call(Verb::Drop, Some(at), |databases| {
            if let Some(there) = databases.get(at) {
                expected.map_or(Ok(()), |expected| expected.check(&there.identity()?))?;
            }
            databases.remove(at);
            Ok(())
        })
    }

    async fn databases(&self, on: &Server, of: Option<TenantId>) -> Result<Listing> {
        self.call(Verb::Databases, None, |databases| {
            let mut found: Vec<Found> = databases.keys().map(found).collect();
            found.retain(|found| on.placement(&found.name).is_ok() && (of.is_none() || found.tenant == of));
            found.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(Listing { place: "memory".to_owned(), found })
        })
    }

    async fn quarantine(&self, on: &Server, found: &Found, expected: Option<&Expected>, label: &str) -> Result<String> {
        let at = on.placement(&found.name).map_err(|_| missing())?;
        self.call(Verb::Quarantine, Some(&at), |databases| {
            let there = databases.get(&at).ok_or_else(missing)?;
            expected.map_or(Ok(()), |expected| expected.check(&there.identity()?))?;
            databases.remove(&at);
            Ok(format!("quarantine/{label}/{}", found.name))
        })
    }

    async fn inspect(&self, at: &Placement, expected: Option<&Expected>, depth: Depth) -> Result<Inspection> {
        self.open(Verb::Inspect, at, |database| database.inspect(expected, depth))
    }

    async fn fingerprint(&self, at: &Placement, expected: &Expected) -> Result<Fingerprint> {
        self.open(Verb::Inspect, at, |database| database.fingerprint(expected))
    }
}
